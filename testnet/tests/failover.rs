//! `make bench-failover` in small: the program itself, and the report that it writes. Nothing here judges how fast it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use onespend_testnet::process::Process;
use onespend_testnet::programs;
use serde_json::Value;

/// Far above what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);
/// A caller who waits longer than this waits for something else than an election.
const LONGEST_MS: f64 = 10_000.0;

/// Runs it, and returns whether it ended well and what it said.
fn failover(folder: &Path, rounds: &str, report: &Path) -> (bool, String) {
    let log = folder.join("failover.log");
    let arguments = ["failover", "--seed", "7", "--rounds", rounds, "--report", report.to_str().unwrap()];
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_onespend-testnet"));
    let mut failover = Process::spawn("failover", program, &arguments, &log).unwrap();
    let status = failover.wait(PATIENCE).unwrap();
    (status.success(), fs::read_to_string(&log).unwrap())
}

#[test]
fn every_fault_is_followed_by_an_acknowledged_mutation_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("failover/report.json");
    let (ok, said) = failover(folder.path(), "1", &file);
    assert!(ok, "{said}");
    assert!(said.lines().next().unwrap().contains("seed 7"), "the seed comes first:\n{said}");
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!((&report["seed"], &report["rounds"]), (&7.into(), &1.into()));
    assert_eq!(report["violations"], serde_json::json!([]));
    let ours = ["kill", "pause", "blackhole", "handover"].map(|fault| (fault, &report["onespend"][fault]));
    for (fault, figure) in ours.into_iter().chain([("haproxy_kill", &report["haproxy_kill"])]) {
        let ms = |name: &str| figure[name].as_f64().unwrap();
        assert_eq!((&figure["rounds"], &figure["failed_requests"]), (&1.into(), &0.into()), "{fault}: {figure}");
        assert!(
            0.0 < ms("p50_ms") && ms("p50_ms") <= ms("p99_ms") && ms("p99_ms") <= ms("max_ms"),
            "{fault}: {figure}"
        );
        assert!(ms("max_ms") < LONGEST_MS, "{fault}: {figure}");
    }
    for case in ["load", "stalled_disk", "hanging_bitcoind"] {
        let answers = &report["primary"][case];
        let ms = |name: &str| answers[name].as_f64().unwrap();
        assert!(answers["questions"].as_u64().unwrap() > 0, "{case}: {answers}");
        assert!(answers["acknowledged"].as_u64().unwrap() > 0, "{case}: {answers}");
        assert!(
            0.0 < ms("p50_ms") && ms("p50_ms") <= ms("p99_ms") && ms("p99_ms") <= ms("max_ms"),
            "{case}: {answers}"
        );
        let name = format!("primary_{case}");
        assert!(report["goals"][&name]["met"].is_boolean(), "{report}");
        assert!(said.lines().any(|line| line.trim_start().starts_with(&name) && line.contains("p99 ≤ 20")), "{said}");
    }
    let has_etcd = programs::in_path("etcd").is_ok();
    for beside in ["etcd_default", "etcd_tuned"] {
        assert_eq!(report[beside].is_object(), has_etcd, "{beside}: {report}");
    }
    assert_eq!(report["etcd_missing"].is_string(), !has_etcd, "why it is null is said: {report}");
}

#[test]
fn no_rounds_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let (ok, said) = failover(folder.path(), "0", &report);
    assert!(!ok && !report.exists() && said.contains("one round"), "{said}");
}
