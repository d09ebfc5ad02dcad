//! `make chaos` in small, with a seed that does not change: the program itself, and the report that it writes. And that
//! its faults are in no binary that is deployed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use onespend_testnet::oracle::endpoints::ELECTION_TIMEOUT;
use onespend_testnet::process::Process;
use onespend_testnet::programs;
use serde_json::Value;

const SECONDS: u64 = 20;
/// Far above what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(6);
/// Only code with the features reads these, in these files.
const VARIABLES: [(&str, &str); 2] =
    [("ONESPEND_FAILPOINTS", "adapters/src/failpoints.rs"), ("ONESPEND_SABOTAGE", "adapters/src/sabotage.rs")];

/// safety 1, 2, 3, 5, 8, 10, 11, 15, 21, 22, 26, 29, as far as callers, signers, hashes and blocks show a breach; `make
/// chaos-selftest` proves that breaches of 3, 5, 8 and 29 are noticed.
#[test]
fn a_short_chaos_finds_nothing_and_reports_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let (report, log) = (folder.path().join("chaos/report.json"), folder.path().join("chaos.log"));
    let arguments =
        ["chaos", "--seed", "7", "--duration-s", "20", "--callers", "8", "--report", report.to_str().unwrap()];
    let arguments = arguments.map(str::to_owned);
    let program = Path::new(env!("CARGO_BIN_EXE_onespend-testnet"));
    let mut chaos = Process::spawn("chaos", program, &arguments, &log).unwrap();
    let status = chaos.wait(PATIENCE).unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.lines().next().unwrap().contains("seed 7"), "the seed comes first:\n{said}");
    assert!(status.success(), "{status}\n{said}");

    let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    let number = |field: &str| report[field].as_u64().unwrap_or_else(|| panic!("{field} of {report}"));
    assert_eq!((number("seed"), report["violations"].as_array().unwrap().len()), (7, 0));
    assert!(number("seconds") >= SECONDS && number("heal_ms") < 10_000, "{report}");
    assert!(number("ops") >= number("acked") + number("unknown") && number("acked") > SECONDS * 25, "{report}");
    // The others were cancelled; one that is neither is a violation.
    assert!(number("payments") > 20 && number("settled") * 10 > number("payments") * 8, "{report}");
    assert!(number("replacements") > 0, "{report}");
    assert!(number("attempts") == number("payments") + number("replacements"), "{report}");
    assert!(report["faults"].as_object().unwrap().len() >= 6, "{report}");
    assert!(u128::from(number("max_primary_overlap_ms")) <= ELECTION_TIMEOUT.as_millis(), "{report}");
    assert_eq!(report.as_object().unwrap().len(), 14, "{report}");

    let history = fs::read_to_string(folder.path().join("chaos/run-7/history.jsonl")).unwrap();
    let lines: Vec<Value> = history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (calls, faults): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line["fault"].is_null());
    assert!(u64::try_from(calls.len()).unwrap() >= number("ops"), "each operation is at least one call");
    let counted: u64 = report["faults"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let took_effect = faults.iter().filter(|line| line["fault"] != "late_signature_in_vain").count();
    assert_eq!(u64::try_from(took_effect).unwrap(), counted);
    assert!(lines.iter().all(|line| line["start_ns"].as_u64() <= line["end_ns"].as_u64()));
}

#[test]
fn the_binary_that_is_deployed_knows_no_faults_and_has_all_its_guards() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (name, file) in VARIABLES {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains(&format!("\"{name}\"")), "{file} reads no {name}: the scan would look for nothing");
    }
    let known = |program: &Path| {
        let bytes = fs::read(program).unwrap();
        VARIABLES.map(|(name, _)| bytes.windows(name.len()).any(|window| window == name.as_bytes()))
    };
    assert_eq!(known(&programs::onespend().unwrap()), [false, false]);
    assert_eq!(known(&programs::onespend_failpoints().unwrap()), [true, false], "the scan finds what is there");
}
