//! What is rendered, and that everything is documented.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use onespend_policies::{CallerId, Policy, Resource, Role, RoleTable, Subject};

use super::*;
use crate::health::{Alarm, BitcoindView, Counts};
use crate::raft::RaftObserver;

const MS: Duration = Duration::from_millis(1);

/// Every function of this module, once.
fn exercise() {
    grpc_request("ReserveUtxos", Code::Ok, MS);
    grpc_request("ReserveUtxos", Code::Aborted, MS * 3);
    proposal("reserve", ProposalEnd::Accepted, MS * 2);
    entries_applied(64, Some(MS * 7));
    entries_applied(3, None);
    snapshot_made(1_000_000, MS * 300);
    log_fsync(MS / 5);
    log_position(12, 10, 9);
    leadership(3, true);
    primary(true);
    leader_changed();
    handed_over(HandOverReason::Bitcoind);
    handed_over(HandOverReason::Check);
    bitcoind(&BitcoindView {
        in_sync: true,
        height: Some(101),
        lag_blocks: Some(0),
        peers: Some(8),
        ..BitcoindView::default()
    });
    bitcoind_rpc("gettxout", RpcOutcome::Ok, MS);
    bitcoind_rpc("gettxout", RpcOutcome::Unknown, MS * 10_000);
    holdings(&Counts {
        wallets: 1,
        reservations: BTreeMap::from([("reserved", 2), ("exposed", 0)]),
        payments: BTreeMap::from([("settled", 200)]),
        oldest: BTreeMap::new(),
    });
    oldest_payments(&BTreeMap::from([("signing", MS * 1_500), ("signed", Duration::ZERO)]));
    disk(5_000_000_000, 67_108_864);
    alarms(&[Alarm { code: crate::agreement::MISMATCH, message: "on purpose".to_owned() }]);
    check_failing("disk-free", "report", true);
    checks_passing("primary", true);
    certificate_expiry("node", 1_800_000_000);
    recovery(true);
    frozen_wallets(1);
    signed("hot", true, MS);
    signer_frozen("hot", true);
    signer_begins("hot");
    signer_refused("hot", "lower_fence");
    let subject = Subject { caller: CallerId("client/a"), role: Role::Client };
    let denied = RoleTable.authorize(&subject, Action::SetLimits, &Resource::Cluster);
    policy_denied(&denied.unwrap_err());
    backup_made(MS * 1_000);
    backups_begin();
    backup_failed();
    telemetry_failures().increment(1);
}

fn exercised() -> (Metrics, String) {
    let metrics = Metrics::new().unwrap();
    metrics.record(exercise);
    let text = metrics.render();
    (metrics, text)
}

#[test]
fn everything_in_the_catalogue_is_rendered_with_type_and_help() {
    let (_metrics, text) = exercised();
    for entry in CATALOGUE {
        let kind = match entry.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        for line in [format!("# HELP {} {}\n", entry.name, entry.help), format!("# TYPE {} {kind}\n", entry.name)] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(entry.name.starts_with("onespend_"));
    }
    let ours = |line: &&str| line.starts_with("# TYPE onespend_");
    assert_eq!(text.lines().filter(ours).count(), CATALOGUE.len());
}

#[test]
fn values_and_labels_are_what_was_recorded() {
    let (metrics, text) = exercised();
    for line in [
        "onespend_grpc_request_duration_seconds_bucket{method=\"ReserveUtxos\",code=\"ABORTED\",le=\"0.005\"} 1",
        "onespend_grpc_request_duration_seconds_bucket{method=\"ReserveUtxos\",code=\"ABORTED\",le=\"0.002\"} 0",
        "onespend_proposals_total{outcome=\"applied\"} 1",
        "onespend_proposals_total{outcome=\"unknown\"} 0",
        "onespend_proposals_total{outcome=\"overloaded\"} 0",
        "onespend_proposal_duration_seconds_bucket{command=\"reserve\",le=\"0.002\"} 1",
        "onespend_raft_applied_entries_total 67",
        "onespend_raft_append_to_apply_duration_seconds_count 1",
        "onespend_raft_snapshot_duration_seconds_bucket{le=\"0.5\"} 1",
        "onespend_raft_snapshot_size_bytes 1000000",
        "onespend_raft_commit_lag_entries 2",
        "onespend_raft_apply_lag_entries 1",
        "onespend_raft_is_leader 1",
        "onespend_raft_term 3",
        "onespend_primary 1",
        "onespend_raft_leader_changes_total 1",
        "onespend_raft_hand_overs_total{reason=\"bitcoind\"} 1",
        "onespend_raft_hand_overs_total{reason=\"check\"} 1",
        "onespend_bitcoind_height_blocks 101",
        "onespend_bitcoind_rpc_duration_seconds_count{method=\"gettxout\",outcome=\"unknown\"} 1",
        "onespend_reservations{state=\"exposed\"} 0",
        "onespend_payments{state=\"settled\"} 200",
        "onespend_oldest_payment_age_seconds{state=\"signing\"} 1.5",
        "onespend_oldest_payment_age_seconds{state=\"signed\"} 0",
        "onespend_alarm{code=\"STATE_HASH_MISMATCH\"} 1",
        "onespend_alarm{code=\"RECOVERY_MODE\"} 0",
        "onespend_check_failing{check=\"disk-free\",purpose=\"report\"} 1",
        "onespend_checks_passing{purpose=\"primary\"} 1",
        "onespend_certificate_expiry_timestamp_seconds{certificate=\"node\"} 1800000000",
        "onespend_signer_duration_seconds_count{signer=\"hot\",outcome=\"ok\"} 1",
        "onespend_signer_frozen{signer=\"hot\"} 1",
        "onespend_signer_memory_refusals_total{signer=\"hot\",rule=\"lower_fence\"} 1",
        "onespend_policy_denials_total{method=\"SetLimits\",reason=\"ROLE\"} 1",
        "onespend_backup_failures_total 1",
        "onespend_telemetry_export_failures_total 1",
        &format!("onespend_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    let resident = text.lines().find(|line| line.starts_with("process_resident_memory_bytes "));
    assert!(resident.is_some(), "{text}");
    metrics.handle.run_upkeep();
    let again = metrics.render();
    assert!(again.contains("onespend_raft_log_fsync_duration_seconds_count 1\n"), "{again}");
}

#[test]
fn counters_begin_at_0_and_not_with_their_first_event() {
    let metrics = Metrics::new().unwrap();
    metrics.record(|| signer_begins("hot"));
    let text = metrics.render();
    for line in [
        "onespend_raft_hand_overs_total{reason=\"stop\"} 0",
        "onespend_raft_hand_overs_total{reason=\"signer\"} 0",
        "onespend_policy_denials_total{method=\"SetLimits\",reason=\"ROLE\"} 0",
        "onespend_signer_memory_refusals_total{signer=\"hot\",rule=\"frozen\"} 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
}

#[test]
fn a_page_says_of_its_own_moment_whether_the_node_is_primary() {
    let metrics = Metrics::new().unwrap();
    for (is_primary, line) in [(true, "onespend_primary 1"), (false, "onespend_primary 0")] {
        let text = metrics.page(is_primary);
        assert!(text.lines().any(|known| known == line), "{text}");
    }
}

#[test]
fn an_alarm_that_ends_goes_back_to_0() {
    let metrics = Metrics::new().unwrap();
    let stands = |alarms: &[Alarm]| {
        metrics.record(|| super::alarms(alarms));
        let text = metrics.render();
        let series = text.lines().filter(|line| line.starts_with("onespend_alarm{"));
        let values: Vec<&str> = series.filter_map(|line| line.rsplit_once(' ')).map(|(_, value)| value).collect();
        assert_eq!(values.len(), crate::alarms::CODES.len(), "{text}");
        values.into_iter().filter(|value| *value == "1").count()
    };
    let alarm = |code| Alarm { code, message: String::new() };
    assert_eq!(stands(&[]), 0);
    assert_eq!(stands(&crate::alarms::CODES.map(alarm)), crate::alarms::CODES.len());
    assert_eq!(stands(&[alarm(crate::restored::RECOVERY)]), 1);
    assert_eq!(stands(&[]), 0);
}

#[test]
fn buckets_rise() {
    for entry in CATALOGUE {
        if let Kind::Histogram(buckets) = entry.kind {
            assert!(buckets.is_sorted_by(|left, right| left < right), "{}", entry.name);
        }
    }
}

/// What Raft reports reaches the metrics under its own name.
#[test]
fn what_raft_tells_is_counted_as_what_it_is() {
    let metrics = Metrics::new().unwrap();
    metrics.record(|| {
        let raft = crate::parts::RaftMetrics;
        for end in ProposalEnd::ALL {
            raft.proposed("reserve", end, MS);
        }
        raft.applied(5, Some(MS));
        raft.leader_changed(None, 7);
        raft.leader_changed(Some(2), 7);
        raft.snapshot_made(9, MS);
    });
    let text = metrics.render();
    let outcomes = ["applied", "refused", "not_leader", "unknown", "overloaded", "too_large", "stopped"];
    assert_eq!(outcomes.len(), ProposalEnd::ALL.len());
    let mut lines: Vec<String> =
        outcomes.iter().map(|outcome| format!("onespend_proposals_total{{outcome=\"{outcome}\"}} 1")).collect();
    lines.push("onespend_raft_applied_entries_total 5".to_owned());
    lines.push("onespend_raft_snapshot_size_bytes 9".to_owned());
    // That nobody leads is not a change to another leader.
    lines.push("onespend_raft_leader_changes_total 1".to_owned());
    for line in lines {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
}

/// The table for operators names every metric, and no other.
#[test]
fn the_page_for_operators_names_exactly_what_there_is() {
    let page = include_str!("../../../docs/src/operations.md");
    let section = page.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let first_cells = section.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    let named: BTreeSet<&str> =
        first_cells.flat_map(|cell| cell.split('`')).filter(|word| word.starts_with("onespend_")).collect();
    let ours: BTreeSet<&str> = CATALOGUE.iter().map(|entry| entry.name).collect();
    assert_eq!(named, ours);
}

/// Prometheus's own opinion.
#[test]
fn promtool_finds_nothing_to_complain_about() {
    let command = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match command {
        Ok(promtool) => promtool,
        Err(error) => {
            assert!(
                std::env::var_os("ONESPEND_SKIP_PROMTOOL").is_some_and(|value| value == "1"),
                "no promtool ({error}): `testnet/setup.sh test` installs it; ONESPEND_SKIP_PROMTOOL=1 skips this"
            );
            eprintln!("SKIPPED: no promtool, and ONESPEND_SKIP_PROMTOOL=1");
            return;
        }
    };
    let (_metrics, text) = exercised();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
}
