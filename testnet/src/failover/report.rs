//! What was measured: for machines, and for people.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::history::Nanos;
use crate::load::Spread;

/// `report.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What everything random followed from.
    pub seed: u64,
    /// Faults of each kind that were asked for.
    pub rounds: usize,
    /// By the Rust client.
    pub onespend: Onespend,
    /// A kill, through HAProxy as `docs/deploy/haproxy/tcp.cfg` has it.
    pub haproxy_kill: Figure,
    /// What was promised of each figure above, and whether this run kept it.
    pub goals: BTreeMap<&'static str, Goal>,
    /// A kill, etcd with 100 and 1000 ms; null where it is not installed.
    pub etcd_default: Option<Figure>,
    /// A kill, etcd with 30 and 300 ms; null where it is not installed.
    pub etcd_tuned: Option<Figure>,
    /// Why there is nothing about etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_missing: Option<String>,
    /// What the judges found: nothing, or the service is wrong.
    pub violations: Vec<String>,
}

/// By fault.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Onespend {
    /// SIGKILL.
    pub kill: Figure,
    /// SIGSTOP.
    pub pause: Figure,
    /// Cut off from nodes and callers, with open connections.
    pub blackhole: Figure,
    /// Asked for by an operator.
    pub handover: Figure,
}

/// From the fault to the first mutation of a later term that a waiting caller had acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    /// Faults.
    pub rounds: usize,
    /// Half of them took not longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took not longer; the longest, of fewer than 100.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Requests without a good answer within ten seconds, all tries included.
    pub failed_requests: u64,
}

impl Figure {
    pub(super) fn of(times: &[Nanos], failed_requests: u64) -> Result<Self> {
        let Spread { p50, p99, max } = Spread::of(times).context("nothing was measured")?;
        Ok(Self { rounds: times.len(), p50_ms: p50, p99_ms: p99, max_ms: max, failed_requests })
    }

    /// Above the lines of [`Self::line`].
    pub fn heading() -> String {
        "  to the next mutation, ms      p50       p99       max   failed   goal".to_owned()
    }

    /// For people.
    pub fn line(&self, name: &str) -> String {
        let Self { p50_ms, p99_ms, max_ms, failed_requests, .. } = self;
        let goal = goal(name, self).map(|goal| format!("   {}", goal.words())).unwrap_or_default();
        format!("  {name:<24} {p50_ms:>8.1}  {p99_ms:>8.1}  {max_ms:>8.1}   {failed_requests:>6}{goal}")
    }
}

/// What the project promises of a machine that does nothing else, at the median and at most in milliseconds, and without a
/// request that failed. Reported and never asserted: machines are noisy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// Of `p50_ms`, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// Of `p99_ms`.
    pub p99_ms: f64,
    /// Whether this run kept it.
    pub met: bool,
}

/// The goals by figure.
const GOALS: [(&str, Option<f64>, f64); 5] = [
    ("kill", Some(400.0), 600.0),
    ("pause", None, 800.0),
    ("blackhole", None, 800.0),
    ("handover", None, 50.0),
    ("haproxy_kill", None, 900.0),
];

/// How the goal of a figure compares with it; `None` where there is none.
pub(super) fn goal(name: &str, figure: &Figure) -> Option<Goal> {
    let (_, p50_ms, p99_ms) = *GOALS.iter().find(|(of, ..)| *of == name)?;
    let met = p50_ms.is_none_or(|most| figure.p50_ms <= most) && figure.p99_ms <= p99_ms && figure.failed_requests == 0;
    Some(Goal { p50_ms, p99_ms, met })
}

impl Goal {
    /// For people.
    pub(super) fn words(self) -> String {
        let p50 = self.p50_ms.map(|most| format!("p50 ≤ {most:.0}, ")).unwrap_or_default();
        format!("{}: {p50}p99 ≤ {:.0}", if self.met { "met" } else { "MISSED" }, self.p99_ms)
    }
}

impl Report {
    /// Every figure's goal.
    pub(super) fn goals(onespend: &Onespend, haproxy_kill: &Figure) -> BTreeMap<&'static str, Goal> {
        let figures = [&onespend.kill, &onespend.pause, &onespend.blackhole, &onespend.handover, haproxy_kill];
        let named = GOALS.iter().zip(figures);
        named.filter_map(|((name, ..), figure)| Some((*name, goal(name, figure)?))).collect()
    }

    /// Writes it as JSON, making the folder when it is missing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_report_has_the_keys_that_were_promised() {
        let figure = Figure::of(&[400_000_000, 380_000_000], 1).unwrap();
        let report = Report {
            seed: 7,
            rounds: 2,
            onespend: Onespend { kill: figure, ..Onespend::default() },
            haproxy_kill: figure,
            goals: BTreeMap::new(),
            etcd_default: None,
            etcd_tuned: Some(figure),
            etcd_missing: None,
            violations: Vec::new(),
        };
        let json = serde_json::to_value(&report).unwrap();
        let expected = serde_json::json!(
            { "rounds": 2, "p50_ms": 380.0, "p99_ms": 400.0, "max_ms": 400.0, "failed_requests": 1 }
        );
        assert_eq!(
            (&json["onespend"]["kill"], &json["haproxy_kill"], &json["etcd_tuned"]),
            (&expected, &expected, &expected)
        );
        for fault in ["pause", "blackhole", "handover"] {
            assert_eq!(json["onespend"][fault].as_object().unwrap().len(), 5, "{fault}");
        }
        assert!(json["etcd_default"].is_null() && json.get("etcd_missing").is_none());
        assert!(Figure::of(&[], 0).is_err());
    }

    #[test]
    fn a_goal_is_missed_by_either_figure_and_by_a_failed_request() {
        let figure =
            |p50_ms, p99_ms, failed_requests| Figure { rounds: 50, p50_ms, p99_ms, max_ms: p99_ms, failed_requests };
        let met = |name: &str, figure: &Figure| goal(name, figure).unwrap().met;
        assert!(met("kill", &figure(400.0, 600.0, 0)));
        assert!(!met("kill", &figure(401.0, 600.0, 0)) && !met("kill", &figure(400.0, 601.0, 0)));
        assert!(!met("handover", &figure(20.0, 30.0, 1)) && met("pause", &figure(700.0, 800.0, 0)));
        assert!(goal("etcd_tuned", &figure(1.0, 1.0, 0)).is_none());
        assert!(figure(500.0, 500.0, 0).line("kill").ends_with("MISSED: p50 ≤ 400, p99 ≤ 600"));
        let onespend = Onespend { handover: figure(1.0, 51.0, 0), ..Onespend::default() };
        let goals = Report::goals(&onespend, &figure(1.0, 900.0, 0));
        assert_eq!((goals["handover"].met, goals["haproxy_kill"].met, goals.len()), (false, true, 5));
    }
}
