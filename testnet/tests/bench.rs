//! `make bench` in small: the program itself, and the report that it writes. Nothing here judges how fast it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use onespend_testnet::process::Process;
use serde_json::Value;

/// Far above what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);
const LEVELS: [u64; 2] = [1, 4];

/// Runs it, and returns whether it ended well and what it said.
fn bench(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let log = folder.join("bench.log");
    let arguments: Vec<String> =
        ["bench", "--seed", "7"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_onespend-testnet"));
    let mut bench = Process::spawn("bench", program, &arguments, &log).unwrap();
    let status = bench.wait(PATIENCE).unwrap();
    (status.success(), fs::read_to_string(&log).unwrap())
}

#[test]
fn a_short_benchmark_measures_every_level_and_reports_it() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("bench/report.json");
    let (ok, said) =
        bench(folder.path(), &["--callers", "1,4", "--seconds", "1", "--report", report.to_str().unwrap()]);
    assert!(ok, "{said}");
    assert!(said.lines().next().unwrap().contains("seed 7"), "the seed comes first:\n{said}");

    let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(report.as_object().unwrap().len(), 6, "{report}");
    assert_eq!((&report["seed"], &report["nodes"], &report["seconds_per_level"]), (&7.into(), &3.into(), &1.into()));
    assert!(report["cores"].as_u64().unwrap() >= 1 && report["wall_s"].as_f64().unwrap() > 2.0, "{report}");
    let levels = report["levels"].as_array().unwrap();
    assert_eq!(levels.iter().map(|level| level["callers"].as_u64().unwrap()).collect::<Vec<_>>(), LEVELS);
    for level in levels {
        assert_eq!(level.as_object().unwrap().len(), 8, "{level}");
        let operations = level["operations"].as_u64().unwrap();
        // Each reserve that is counted has its release, and each level was measured for one second.
        assert!(operations > 0 && operations.is_multiple_of(2), "{level}");
        assert_eq!(level["ops_per_s"].as_f64(), Some(f64::from(u32::try_from(operations).unwrap())), "{level}");
        assert!(level["errors"].is_u64() && level["primary_unanswered"].is_u64(), "{level}");
        for call in ["reserve", "release", "primary"] {
            let ms = |name: &str| level[call][name].as_f64().unwrap();
            assert!(0.0 < ms("p50_ms") && ms("p50_ms") <= ms("p99_ms") && ms("p99_ms") <= ms("max_ms"), "{level}");
        }
    }
    assert_eq!(
        said.lines().filter(|line| line.contains(" / ") && !line.contains("p50")).count(),
        LEVELS.len(),
        "{said}"
    );
}

#[test]
fn a_benchmark_of_nobody_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [["--callers", "0"], ["--callers", "1,1001"], ["--seconds", "0"]] {
        let report = folder.path().join("report.json");
        let (ok, said) = bench(folder.path(), &[&arguments[..], &["--report", report.to_str().unwrap()]].concat());
        assert!(!ok && !report.exists(), "{arguments:?}: {said}");
    }
}
