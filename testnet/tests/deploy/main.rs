//! The files in `docs/deploy`: Prometheus reads them and its tests of the rules pass, alerts and dashboard ask for
//! metrics that exist and are right when everything is scraped twice, the book has every alert and alarm, the unit for
//! systemd fits the daemon, the Debian package holds what it should, and three nodes work in containers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod catalogue;
mod containers;
mod dashboard;
mod images;
mod package;
mod pages;
mod promql;
mod rules;
mod unit;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use onespend_testnet::programs;
use onespend_testnet::progress::say;

use catalogue::Catalogue;
use rules::Alert;

const RULES: &str = "docs/deploy/prometheus/onespend.rules.yml";
const RULE_TESTS: &str = "docs/deploy/prometheus/onespend.rules.test.yml";
const PROMETHEUS: &str = "docs/deploy/prometheus/prometheus.yml";
const DASHBOARD: &str = "docs/deploy/grafana/onespend.json";
const UNIT: &str = "docs/deploy/systemd/onespend.service";
const OPERATIONS: &str = "docs/src/operations.md";
const MONITORING: &str = "docs/src/monitoring.md";
const RUNBOOK: &str = "https://github.com/onespend/onespend/blob/main/docs/src/operations.md#";
const SEVERITIES: [&str; 2] = ["critical", "warning"];

/// Spoilt rules, and why each must fail its tests.
const SPOILT: [(&str, &str, &str); 6] = [
    ("max by (cluster, node) (onespend_raft_is_leader)", "sum by (cluster, node) (onespend_raft_is_leader)", "copies"),
    ("max by (cluster) (onespend_recovery_mode) == 1", "sum by (cluster) (onespend_recovery_mode) == 1", "all nodes"),
    ("avg by (cluster) (max by (cluster, node) (up", "sum by (cluster) (max by (cluster, node) (up", "a share"),
    ("(onespend_primary)", "(onespend_raft_is_leader)", "a leader that is not primary"),
    ("time() - max by (cluster) (", "time() - min by (cluster) (", "the newest of all nodes"),
    (
        "  unless on (cluster) max by (cluster) (onespend_backup_last_success_timestamp_seconds)\n",
        "",
        "one that was made",
    ),
];
/// What many rules have. Each is spoilt in all of them.
const SPOILT_EVERYWHERE: [(&str, &str); 2] = [("for: 10m", "for: 0m"), ("severity: critical", "severity: warning")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn alerts() -> Vec<Alert> {
    let alerts = rules::alerts(&read(RULES));
    assert!(alerts.len() > 20, "the reader found almost nothing: {alerts:?}");
    alerts
}

fn the_catalogue() -> Catalogue {
    let catalogue = Catalogue::read(&read("coordinator/node/src/metrics.rs"));
    assert!(catalogue.count() > 20, "the reader found {} metrics only", catalogue.count());
    catalogue
}

fn the_dashboard() -> serde_json::Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

fn names(alerts: &[Alert]) -> BTreeSet<String> {
    let names: BTreeSet<String> = alerts.iter().map(|alert| alert.name.clone()).collect();
    assert_eq!(names.len(), alerts.len(), "two alerts of one name");
    names
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// What promtool has against a file; `Ok` with what it said otherwise.
fn promtool(command: [&str; 2], file: &Path) -> Result<String, String> {
    let output = Command::new(programs::in_path("promtool").unwrap()).args(command).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(format!("promtool {command:?}: {said}")) }
}

#[test]
fn promtool_accepts_the_rules_their_tests_and_the_configuration() {
    for (command, file) in
        [(["check", "rules"], RULES), (["test", "rules"], RULE_TESTS), (["check", "config"], PROMETHEUS)]
    {
        let said = promtool(command, &root().join(file)).unwrap_or_else(|said| panic!("{said}"));
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

/// What the rules' tests say of these rules.
fn tests_say(rules: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("onespend.rules.test.yml"), read(RULE_TESTS)).unwrap();
    fs::write(folder.path().join("onespend.rules.yml"), rules).unwrap();
    promtool(["test", "rules"], &folder.path().join("onespend.rules.test.yml"))
}

/// The alerts whose rules hold a text.
fn alerts_with<'a>(rules: &'a str, text: &str) -> Vec<&'a str> {
    let rules = rules.split("- alert: ").skip(1);
    rules.filter(|rule| rule.contains(text)).filter_map(|rule| rule.lines().next()).collect()
}

/// A run of promtool takes long, so what can be told apart is spoilt in one: each must fail a test of an alert of its own.
#[test]
fn spoilt_rules_fail_their_tests() {
    let good = read(RULES);
    let everywhere = SPOILT_EVERYWHERE.map(|(from, to)| {
        let spoilt = good.replace(from, to);
        thread::spawn(move || (from, tests_say(&spoilt)))
    });
    let spoilt = SPOILT.iter().fold(good.clone(), |rules, (from, to, _)| rules.replace(from, to));
    let said = tests_say(&spoilt).expect_err("no test needs what was spoilt");
    for (from, _, why) in SPOILT {
        let alerts = alerts_with(&good, from);
        assert!(!alerts.is_empty(), "the rules do not say {from} any more");
        let noticed = alerts.iter().any(|alert| said.contains(&format!("alertname: {alert},")));
        assert!(noticed, "no test of {alerts:?} needs {from} ({why}): {said}");
    }
    for run in everywhere {
        let (from, said) = run.join().unwrap();
        assert!(good.contains(from) && said.is_err(), "no test needs {from}");
    }
}

#[test]
fn spoilt_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::write(place("onespend.rules.yml"), read(RULES).replace("max by (cluster) (", "max by (cluster) ((")).unwrap();
    assert!(promtool(["check", "rules"], &place("onespend.rules.yml")).is_err());
    fs::write(place("prometheus.yml"), read(PROMETHEUS).replace("onespend.rules.yml", "gone.yml")).unwrap();
    assert!(promtool(["check", "config"], &place("prometheus.yml")).is_err());
}

#[test]
fn every_alert_is_seen_to_fire_and_to_stay_quiet() {
    let (raised, quiet) = rules::tested(&read(RULE_TESTS));
    let names = names(&alerts());
    assert_eq!(raised, names, "raised by the tests");
    assert_eq!(quiet, names, "quiet in the tests");
}

#[test]
fn alerts_ask_for_metrics_that_exist_and_count_nothing_twice() {
    let catalogue = the_catalogue();
    let faults = alerts().into_iter().flat_map(|alert| {
        let faults = catalogue.faults(&alert.expression);
        faults.into_iter().map(move |fault| format!("{}: {fault}", alert.name))
    });
    assert_none(&faults.collect::<Vec<_>>());
}

#[test]
fn every_alert_has_a_row_in_the_runbook_that_it_names_and_in_the_page_on_monitoring() {
    let (operations, monitoring) = (read(OPERATIONS), read(MONITORING));
    let alerts = alerts();
    let mut faults = Vec::new();
    for Alert { name, runbook, severity, .. } in &alerts {
        let section = runbook.strip_prefix(RUNBOOK).and_then(|anchor| pages::section(&operations, anchor));
        if !section.is_some_and(|section| pages::rows(section).contains(name)) {
            faults.push(format!("{name}: {runbook} has no row for it"));
        }
        if !SEVERITIES.contains(&severity.as_str()) {
            faults.push(format!("{name}: {severity} is no severity"));
        }
        if !monitoring.contains(&format!("| `{name}` | {severity} |")) {
            faults.push(format!("{name}: no row of {MONITORING} says that it is {severity}"));
        }
    }
    assert_none(&faults);
    let rows = |page: &str, anchor: &str| pages::rows(pages::section(page, anchor).unwrap());
    assert_eq!(rows(&operations, "alerts"), names(&alerts), "{OPERATIONS} has rows for these");
    assert_eq!(rows(&monitoring, "what-each-alert-means"), names(&alerts), "{MONITORING} has rows for these");
}

#[test]
fn every_alarm_has_an_alert() {
    let operations = read(OPERATIONS);
    let codes = pages::rows(pages::section(&operations, "alarms").unwrap());
    assert!(codes.len() > 4, "only these alarms were found: {codes:?}");
    let with: BTreeSet<String> = alerts().into_iter().filter_map(|alert| alert.alarm).collect();
    assert_eq!(with, codes);
}

#[test]
fn the_dashboard_is_whole_and_asks_for_metrics_that_exist() {
    let dashboard = the_dashboard();
    assert!(dashboard::panels(&dashboard).len() > 30);
    assert_none(&dashboard::faults(&dashboard, &the_catalogue()));
}

/// What nobody is shown, nobody looks at.
#[test]
fn every_metric_is_in_an_alert_or_in_a_panel() {
    let (alerts, dashboard) = (alerts(), the_dashboard());
    let panels = dashboard::panels(&dashboard);
    let shown = panels.into_iter().flat_map(dashboard::expressions);
    let asked = alerts.iter().map(|alert| alert.expression.as_str()).chain(shown);
    assert_eq!(the_catalogue().unseen(asked), Vec::<&str>::new());
}

/// promtool reads them as rules, once Grafana's variable is a duration.
#[test]
fn promtool_accepts_every_expression_of_the_dashboard() {
    let dashboard = the_dashboard();
    let mut text = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let panels = dashboard::panels(&dashboard);
    for (index, expression) in panels.into_iter().flat_map(dashboard::expressions).enumerate() {
        let expression = serde_json::Value::from(expression.replace("$__rate_interval", "5m"));
        // JSON's strings are YAML's.
        writeln!(text, "      - record: panel:{index}\n        expr: {expression}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yml");
    fs::write(&file, &text).unwrap();
    promtool(["check", "rules"], &file).unwrap_or_else(|said| panic!("{said}"));
    fs::write(&file, text.replacen("max by", "max max by", 1)).unwrap();
    assert!(promtool(["check", "rules"], &file).is_err(), "it accepts anything");
}

#[test]
fn the_unit_fits_the_daemon() {
    let sample = read("coordinator/node/onespend.sample.toml");
    let deadline_ms = unit::sample_number(&sample, "deadline_ms").unwrap();
    assert_none(&unit::faults(&read(UNIT), deadline_ms));
}

/// systemd's own opinion, where there is systemd. The program and the user of the unit are not on this machine.
#[test]
fn systemd_knows_every_setting_of_the_unit() {
    let Ok(analyze) = programs::in_path("systemd-analyze") else {
        say("SKIPPED: no systemd-analyze on this machine");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("onespend.service");
    let here = read(UNIT).replace("ExecStart=/usr/bin/onespend", "ExecStart=/bin/true");
    let here = here.replace("User=onespend", "User=root").replace("Group=onespend", "Group=root");
    let said = |unit: &str| {
        fs::write(&file, unit).unwrap();
        let output = Command::new(&analyze).arg("verify").arg(&file).output().unwrap();
        // It names other units of the machine too.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.lines().filter(|line| line.contains("onespend.service")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_none(&said(&here));
    assert_eq!(said(&here.replace("PrivateTmp=", "PrivateTemp=")).len(), 1, "it accepts anything");
}
