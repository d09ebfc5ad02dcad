//! The load balancers of `docs/deploy`, as real programs with those very files: in front of fake nodes, and in front of a
//! cluster under load through a kill, a hand-over and a rolling restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod fakes;
mod files;

use std::collections::BTreeSet;
use std::path::PathBuf;

use onespend_testnet::routing::{self, Plan, Way};

/// No caller may wait longer than this, on however busy a machine.
const LONGEST_WAIT_MS: f64 = 10_000.0;
const SEED: u64 = 7;

#[test]
fn nothing_is_lost_or_granted_twice_through_any_load_balancer_and_callers_go_on() {
    let plan = Plan { rounds: 1, ways: Way::all(), seed: SEED, report: PathBuf::new() };
    let report = routing::play(&plan).unwrap();
    assert_eq!(report.violations(), Vec::<String>::new());
    let measured: BTreeSet<&str> = report.ways.keys().copied().collect();
    assert_eq!(measured, Way::all().into_iter().map(Way::name).collect::<BTreeSet<_>>());
    for (name, figures) in &report.ways {
        eprintln!("{}", figures.line(name));
        for (event, tally) in
            [("kill", figures.kill), ("hand-over", figures.handover), ("rolling restart", figures.rolling_restart)]
        {
            assert!(tally.acknowledged > 0, "{name}: nothing was acknowledged around the {event}");
            assert_eq!(tally.failed_requests, 0, "{name}: around the {event}");
        }
        assert_eq!(figures.rolling_restart_failed_requests, 0, "{name}");
        let json = serde_json::to_value(figures).unwrap();
        let rolling = json["rolling_restart_ms"][0].as_f64().unwrap();
        for (event, wait_ms) in
            [("kill", figures.kill_ms.max), ("hand-over", figures.handover_ms.max), ("rolling restart", rolling)]
        {
            assert!(0.0 < wait_ms && wait_ms < LONGEST_WAIT_MS, "{name}: {wait_ms} ms around the {event}");
        }
    }
}
