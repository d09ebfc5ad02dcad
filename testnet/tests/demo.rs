//! `make demo` in small: the program itself, and the report that it writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use onespend_testnet::process::Process;
use serde_json::Value;

const PAYMENTS: u64 = 24;
const FAILOVER_GOAL_MS: u64 = 10_000;
/// Far above what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(4);

#[test]
fn a_small_demo_settles_every_payment_and_reports_it() {
    let folder = tempfile::tempdir().unwrap();
    let (report, log) = (folder.path().join("report/report.json"), folder.path().join("demo.log"));
    let arguments = ["demo", "--payments", "24", "--callers", "4", "--seed", "7", "--report", report.to_str().unwrap()];
    // `make demo` asks for 1500; other tests may keep this machine busy.
    let goal = ["--failover-goal-ms".to_owned(), FAILOVER_GOAL_MS.to_string()];
    let arguments = [&arguments.map(str::to_owned)[..], &goal[..]].concat();
    let program = Path::new(env!("CARGO_BIN_EXE_onespend-testnet"));
    let mut demo = Process::spawn("demo", program, &arguments, &log).unwrap();
    let status = demo.wait(PATIENCE).unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{status}\n{said}");
    assert!(said.lines().next().unwrap().contains("seed 7"), "the seed comes first:\n{said}");

    let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    let number = |field: &str| report[field].as_u64().unwrap_or_else(|| panic!("{field} of {report}"));
    assert_eq!((number("seed"), number("nodes")), (7, 3));
    assert_eq!((number("payments_requested"), number("payments_settled")), (PAYMENTS, PAYMENTS));
    assert_eq!((number("duplicate_payments"), number("double_spent_outpoints")), (0, 0));
    assert!(number("leader_kills") >= 1);
    assert!(number("unknown_outcomes_resolved") <= PAYMENTS);
    assert!((1..FAILOVER_GOAL_MS).contains(&number("failover_ms")), "{report}");
    assert!(report["wall_s"].as_f64().unwrap() > 0.0);
    assert_eq!(report.as_object().unwrap().len(), 10, "{report}");
    assert!(said.contains("24 of 24"), "{said}");
}
