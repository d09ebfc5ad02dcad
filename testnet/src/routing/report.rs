//! What was measured: for machines, and for people.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Plan;
use crate::history::Nanos;
use crate::load::{Counts, Spread, ms};

/// `report.json`: a key for each way beside those of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What everything random followed from.
    pub seed: u64,
    /// Kills and hand-overs of each way.
    pub rounds: usize,
    /// By the name of the way.
    #[serde(flatten)]
    pub ways: BTreeMap<&'static str, Figures>,
}

/// One way to the cluster. Times are the longest that one caller went without an acknowledged mutation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// The file of `docs/deploy`; null without a load balancer.
    pub file: Option<&'static str>,
    /// Around a kill of the leader.
    pub kill_ms: Spread,
    /// Around a planned hand-over.
    pub handover_ms: Spread,
    /// Of each rolling restart.
    #[serde(serialize_with = "as_ms")]
    pub rolling_restart_ms: Vec<Nanos>,
    /// Requests without a good answer within ten seconds, all tries included, in all rolling restarts.
    pub rolling_restart_failed_requests: u64,
    /// All kills.
    pub kill: Tally,
    /// All hand-overs.
    pub handover: Tally,
    /// All rolling restarts.
    pub rolling_restart: Tally,
    /// What the judges found: nothing, or the service is wrong.
    pub violations: Vec<String>,
}

/// What callers were told around all events of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Mutations with a good answer.
    pub acknowledged: u64,
    /// Requests without one within ten seconds, all tries included.
    pub failed_requests: u64,
    /// Tries without one: what a caller that does not try again would have seen.
    pub errors_without_retry: u64,
}

impl Tally {
    pub(super) fn add(&mut self, counts: Counts) {
        self.acknowledged += counts.acknowledged;
        self.failed_requests += counts.failed;
        self.errors_without_retry += counts.errors;
    }
}

impl Figures {
    pub(super) fn of(file: Option<&'static str>) -> Self {
        Self { file, ..Self::default() }
    }

    pub(super) fn measured(&mut self, kills: &[Nanos], hand_overs: &[Nanos]) -> Result<()> {
        self.kill_ms = Spread::of(kills).context("no kill was measured")?;
        self.handover_ms = Spread::of(hand_overs).context("no hand-over was measured")?;
        self.rolling_restart_failed_requests = self.rolling_restart.failed_requests;
        Ok(())
    }

    /// Above the lines of [`Self::line`].
    pub fn heading() -> String {
        "  longest wait of a caller, ms   kill p50 / max     hand-over p50 / max   rolling max   failed   errors"
            .to_owned()
    }

    /// For people.
    pub fn line(&self, name: &str) -> String {
        let all = [self.kill, self.handover, self.rolling_restart];
        format!(
            "  {name:<28} {:>8.0} / {:>6.0}   {:>11.0} / {:>6.0}   {:>11.0}   {:>6}   {:>6}",
            self.kill_ms.p50,
            self.kill_ms.max,
            self.handover_ms.p50,
            self.handover_ms.max,
            self.rolling_restart_ms.iter().copied().map(ms).fold(0.0, f64::max),
            all.iter().map(|tally| tally.failed_requests).sum::<u64>(),
            all.iter().map(|tally| tally.errors_without_retry).sum::<u64>(),
        )
    }
}

impl Report {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { seed: plan.seed, rounds: plan.rounds, ways: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, name: &'static str, figures: Figures) {
        self.ways.insert(name, figures);
    }

    /// What the judges found, by all ways.
    pub fn violations(&self) -> Vec<String> {
        let named = |(name, figures): (&&'static str, &Figures)| {
            figures.violations.iter().map(|fault| format!("{name}: {fault}")).collect::<Vec<_>>()
        };
        self.ways.iter().flat_map(named).collect()
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

fn as_ms<S: serde::Serializer>(times: &[Nanos], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(times.iter().copied().map(ms))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_report_has_the_keys_that_were_promised() {
        let mut figures = Figures::of(Some("docs/deploy/nginx/nginx.conf"));
        figures.rolling_restart.add(Counts { acknowledged: 9, failed: 2, errors: 3 });
        figures.rolling_restart_ms = vec![5_120_000];
        figures.measured(&[1_000_000, 3_000_000], &[2_000_000]).unwrap();
        figures.violations = vec!["lost".to_owned()];
        let report = Report { seed: 7, rounds: 2, ways: BTreeMap::from([("nginx", figures)]) };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["nginx"]["kill_ms"], serde_json::json!({ "p50": 1.0, "p99": 3.0, "max": 3.0 }));
        assert_eq!(json["nginx"]["handover_ms"]["max"], 2.0);
        assert_eq!(json["nginx"]["rolling_restart_failed_requests"], 2);
        assert_eq!(json["nginx"]["rolling_restart"]["errors_without_retry"], 3);
        assert_eq!(json["nginx"]["rolling_restart_ms"], serde_json::json!([5.12]));
        assert_eq!((&json["seed"], report.violations()), (&7.into(), vec!["nginx: lost".to_owned()]));
        assert!(Figures::of(None).measured(&[], &[1]).is_err());
    }
}
