//! What was measured: for machines, and for people.

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
        "  to the next mutation, ms      p50       p99       max   failed".to_owned()
    }

    /// For people.
    pub fn line(&self, name: &str) -> String {
        let Self { p50_ms, p99_ms, max_ms, failed_requests, .. } = self;
        format!("  {name:<24} {p50_ms:>8.1}  {p99_ms:>8.1}  {max_ms:>8.1}   {failed_requests:>6}")
    }
}

impl Report {
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
}
