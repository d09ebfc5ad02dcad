//! Every metric of the service: name, unit, help, buckets and the one function that records it.
//!
//! Names follow Prometheus's conventions: `onespend_`, base units (seconds, bytes), `_total` for
//! counters. Label values come from closed sets, so the number of series is bounded. The recorder
//! has no listener of its own; the health listener serves [`Metrics::render`].

use std::sync::Arc;
use std::time::Duration;

use metrics::{Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tonic::Code;

/// How often samples are folded into buckets; without it they pile up between scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// From a local round trip to the longest deadline, about 2 to 2.5 apart.
const REQUEST_BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// From a good NVMe to a disk that is failing.
const FSYNC_BUCKETS: &[f64] = &[0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];
/// From a lookup to a scan of the UTXO set.
const RPC_BUCKETS: &[f64] = &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];
/// From a key in memory to a person who confirms on a device.
const SIGNER_BUCKETS: &[f64] = &[0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// What Prometheus is told about one metric.
struct Entry {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
}

const fn entry(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Entry {
    Entry { name, kind, unit, help }
}

const GRPC_SECONDS: &str = "onespend_grpc_request_duration_seconds";
const PROPOSALS: &str = "onespend_proposals_total";
const FSYNC_SECONDS: &str = "onespend_raft_log_fsync_duration_seconds";
const COMMIT_LAG: &str = "onespend_raft_commit_lag_entries";
const APPLY_LAG: &str = "onespend_raft_apply_lag_entries";
const LEADER_CHANGES: &str = "onespend_raft_leader_changes_total";
const IS_LEADER: &str = "onespend_raft_is_leader";
const TERM: &str = "onespend_raft_term";
const BITCOIND_HEIGHT: &str = "onespend_bitcoind_height_blocks";
const BITCOIND_LAG: &str = "onespend_bitcoind_lag_blocks";
const BITCOIND_PEERS: &str = "onespend_bitcoind_peers";
const BITCOIND_IN_SYNC: &str = "onespend_bitcoind_in_sync";
const BITCOIND_RPC_SECONDS: &str = "onespend_bitcoind_rpc_duration_seconds";
const RESERVATIONS: &str = "onespend_reservations";
const PAYMENTS: &str = "onespend_payments";
const RECOVERY: &str = "onespend_recovery_mode";
const SIGNER_SECONDS: &str = "onespend_signer_duration_seconds";
const POLICY_DENIALS: &str = "onespend_policy_denials_total";
const TELEMETRY_FAILURES: &str = "onespend_telemetry_export_failures_total";
const BUILD_INFO: &str = "onespend_build_info";

#[rustfmt::skip] // A table reads by rows.
const CATALOGUE: &[Entry] = &[
    entry(GRPC_SECONDS, Kind::Histogram(REQUEST_BUCKETS), Unit::Seconds, "Time to answer a gRPC request, by method and status code."),
    entry(PROPOSALS, Kind::Counter, Unit::Count, "Proposals to the replicated log, by outcome: applied, refused, unknown, or not_leader."),
    entry(FSYNC_SECONDS, Kind::Histogram(FSYNC_BUCKETS), Unit::Seconds, "Time to make one group of log entries durable."),
    entry(COMMIT_LAG, Kind::Gauge, Unit::Count, "Log entries on this disk that are not known to be committed."),
    entry(APPLY_LAG, Kind::Gauge, Unit::Count, "Committed log entries that this node has not applied."),
    entry(LEADER_CHANGES, Kind::Counter, Unit::Count, "Changes of leadership that this node has seen."),
    entry(IS_LEADER, Kind::Gauge, Unit::Count, "1 if this node believes to lead; whether a quorum agrees is what /leader tells."),
    entry(TERM, Kind::Gauge, Unit::Count, "The Raft term of this node."),
    entry(BITCOIND_HEIGHT, Kind::Gauge, Unit::Count, "Blocks that this node's bitcoind has connected."),
    entry(BITCOIND_LAG, Kind::Gauge, Unit::Count, "Blocks that this node's bitcoind lags its headers or the cluster's best."),
    entry(BITCOIND_PEERS, Kind::Gauge, Unit::Count, "Connections of this node's bitcoind."),
    entry(BITCOIND_IN_SYNC, Kind::Gauge, Unit::Count, "1 if this node's bitcoind is in sync."),
    entry(BITCOIND_RPC_SECONDS, Kind::Histogram(RPC_BUCKETS), Unit::Seconds, "Time of one call to bitcoind, by method and outcome: ok, error, or unknown."),
    entry(RESERVATIONS, Kind::Gauge, Unit::Count, "Reservations, by state."),
    entry(PAYMENTS, Kind::Gauge, Unit::Count, "Payments, by state."),
    entry(RECOVERY, Kind::Gauge, Unit::Count, "1 while the state may be older than what the cluster did, so that nothing is signed; else 0."),
    entry(SIGNER_SECONDS, Kind::Histogram(SIGNER_BUCKETS), Unit::Seconds, "Time of one signature, by signer and outcome: ok or error."),
    entry(POLICY_DENIALS, Kind::Counter, Unit::Count, "Requests that policy refused, by method and reason."),
    entry(TELEMETRY_FAILURES, Kind::Counter, Unit::Count, "Batches of spans that could not be exported."),
    entry(BUILD_INFO, Kind::Gauge, Unit::Count, "Always 1; the labels say what runs."),
];

/// How a proposal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// Committed, and it changed the state.
    Applied,
    /// Committed, and the rules refused it.
    Refused,
    /// Nobody knows yet whether it is committed.
    Unknown,
    /// Never appended: another node leads.
    NotLeader,
}

/// How a call to bitcoind ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcOutcome {
    /// It answered.
    Ok,
    /// It refused.
    Error,
    /// No answer: it may or may not have acted.
    Unknown,
}

/// The recorder and what renders it. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

/// Why metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A bucket list is empty: a mistake in this file.
    #[error("metric buckets: {0}")]
    Buckets(#[from] BuildError),
    /// Another recorder was installed before.
    #[error("a metrics recorder is installed already")]
    Installed,
    /// The upkeep thread cannot be started.
    #[error("the metrics thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Metrics {
    /// Makes the process's recorder and starts its upkeep.
    ///
    /// # Errors
    /// If a recorder is installed already, or no thread can be started.
    pub fn install() -> Result<Self, MetricsError> {
        let metrics = Self::new()?;
        metrics::set_global_recorder(Arc::clone(&metrics.recorder)).map_err(|_| MetricsError::Installed)?;
        let handle = metrics.handle.clone();
        std::thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_EVERY);
                handle.run_upkeep();
            }
        })?;
        Ok(metrics)
    }

    /// Makes a recorder that is not the process's; see [`Metrics::record`].
    ///
    /// # Errors
    /// If a bucket list is empty.
    pub fn new() -> Result<Self, MetricsError> {
        let mut builder = PrometheusBuilder::new();
        for entry in CATALOGUE {
            if let Kind::Histogram(buckets) = entry.kind {
                let name = Matcher::Full(entry.name.to_owned());
                builder = builder.set_buckets_for_metric(name, buckets)?;
            }
        }
        let recorder = Arc::new(builder.build_recorder());
        let metrics = Self { handle: recorder.handle(), recorder, process: metrics_process::Collector::default() };
        metrics.record(describe);
        metrics.record(|| metrics.process.describe());
        Ok(metrics)
    }

    /// Runs `what` with this recorder in force, on this thread.
    pub fn record<T>(&self, what: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&*self.recorder, what)
    }

    /// Everything, in Prometheus's text format.
    pub fn render(&self) -> String {
        self.record(|| self.process.collect());
        self.handle.render()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Describes every metric, and creates those without labels, so that a dashboard can tell
/// "never happened" from "not measured".
fn describe() {
    for Entry { name, kind, unit, help } in CATALOGUE {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *unit, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *unit, *help),
            Kind::Histogram(_) => metrics::describe_histogram!(*name, *unit, *help),
        }
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for name in [LEADER_CHANGES, TELEMETRY_FAILURES] {
        counter!(name).absolute(0);
    }
    for outcome in
        [ProposalOutcome::Applied, ProposalOutcome::Refused, ProposalOutcome::Unknown, ProposalOutcome::NotLeader]
    {
        counter!(PROPOSALS, "outcome" => outcome.word()).absolute(0);
    }
}

/// One gRPC request was answered. `method` is the rpc's name, such as `ReserveUtxos`.
pub fn grpc_request(method: &'static str, code: Code, took: Duration) {
    histogram!(GRPC_SECONDS, "method" => method, "code" => code_word(code)).record(took);
}

/// One proposal ended.
pub fn proposal(outcome: ProposalOutcome) {
    counter!(PROPOSALS, "outcome" => outcome.word()).increment(1);
}

/// One group of log entries became durable.
pub fn log_fsync(took: Duration) {
    histogram!(FSYNC_SECONDS).record(took);
}

/// Where the log stands: last entry on this disk, last committed, last applied.
pub fn log_position(last: u64, committed: u64, applied: u64) {
    gauge!(COMMIT_LAG).set(number(last.saturating_sub(committed)));
    gauge!(APPLY_LAG).set(number(committed.saturating_sub(applied)));
}

/// This node's part in the cluster.
pub fn leadership(term: u64, is_leader: bool) {
    gauge!(TERM).set(number(term));
    gauge!(IS_LEADER).set(number(u64::from(is_leader)));
}

/// Leadership moved, as seen by this node.
pub fn leader_changed() {
    counter!(LEADER_CHANGES).increment(1);
}

/// This node's bitcoind was judged; what is not known keeps its last value.
pub fn bitcoind(view: &crate::health::BitcoindView) {
    gauge!(BITCOIND_IN_SYNC).set(number(u64::from(view.in_sync)));
    for (name, value) in [(BITCOIND_HEIGHT, view.height), (BITCOIND_LAG, view.lag_blocks), (BITCOIND_PEERS, view.peers)]
    {
        if let Some(value) = value {
            gauge!(name).set(f64::from(value));
        }
    }
}

/// One call to bitcoind ended. `method` is the RPC's name, such as `gettxout`.
pub fn bitcoind_rpc(method: &'static str, outcome: RpcOutcome, took: Duration) {
    let outcome = match outcome {
        RpcOutcome::Ok => "ok",
        RpcOutcome::Error => "error",
        RpcOutcome::Unknown => "unknown",
    };
    histogram!(BITCOIND_RPC_SECONDS, "method" => method, "outcome" => outcome).record(took);
}

/// How many reservations and payments there are, by state. States without any must be given as 0.
pub fn holdings(counts: &crate::health::Counts) {
    for (state, count) in &counts.reservations {
        gauge!(RESERVATIONS, "state" => *state).set(number(*count));
    }
    for (state, count) in &counts.payments {
        gauge!(PAYMENTS, "state" => *state).set(number(*count));
    }
}

/// Whether the state may be older than what the cluster did, so that nothing is signed.
pub fn recovery(active: bool) {
    gauge!(RECOVERY).set(if active { 1.0 } else { 0.0 });
}

/// One signature was made or refused. `signer` is its configured name.
pub fn signed(signer: &str, ok: bool, took: Duration) {
    let outcome = if ok { "ok" } else { "error" };
    histogram!(SIGNER_SECONDS, "signer" => signer.to_owned(), "outcome" => outcome).record(took);
}

/// Policy refused a request.
pub fn policy_denied(denied: &onespend_policies::Denied) {
    use onespend_policies::Denied;
    let (Denied::Role { action, .. } | Denied::NotOwner { action, .. }) = denied;
    let (method, reason) = (action.name(), denied.reason());
    counter!(POLICY_DENIALS, "method" => method, "reason" => reason).increment(1);
}

/// A counter of spans that could not be exported, bound to the recorder in force now: the
/// exporter's thread has none of its own.
pub(crate) fn telemetry_failures() -> metrics::Counter {
    counter!(TELEMETRY_FAILURES)
}

impl ProposalOutcome {
    fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::NotLeader => "not_leader",
        }
    }
}

/// Gauges are floats; beyond 2^53 the last digits of a count do not matter to anyone.
#[allow(clippy::cast_precision_loss)]
fn number(count: u64) -> f64 {
    count as f64
}

/// The code's name in the gRPC specification.
fn code_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use onespend_policies::{Action, CallerId, Policy, Resource, Role, RoleTable, Subject};

    use super::*;
    use crate::health::{BitcoindView, Counts};

    const MS: Duration = Duration::from_millis(1);

    /// Every function of this module, once.
    fn exercise() {
        grpc_request("ReserveUtxos", Code::Ok, MS);
        grpc_request("ReserveUtxos", Code::Aborted, MS * 3);
        proposal(ProposalOutcome::Applied);
        log_fsync(MS / 5);
        log_position(12, 10, 9);
        leadership(3, true);
        leader_changed();
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
        });
        recovery(true);
        signed("hot", true, MS);
        let subject = Subject { caller: CallerId("client/a"), role: Role::Client };
        let denied = RoleTable.authorize(&subject, Action::SetLimits, &Resource::Cluster);
        policy_denied(&denied.unwrap_err());
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
            "onespend_raft_commit_lag_entries 2",
            "onespend_raft_apply_lag_entries 1",
            "onespend_raft_is_leader 1",
            "onespend_raft_term 3",
            "onespend_raft_leader_changes_total 1",
            "onespend_bitcoind_height_blocks 101",
            "onespend_bitcoind_rpc_duration_seconds_count{method=\"gettxout\",outcome=\"unknown\"} 1",
            "onespend_reservations{state=\"exposed\"} 0",
            "onespend_payments{state=\"settled\"} 200",
            "onespend_signer_duration_seconds_count{signer=\"hot\",outcome=\"ok\"} 1",
            "onespend_policy_denials_total{method=\"SetLimits\",reason=\"ROLE\"} 1",
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
    fn buckets_rise() {
        for entry in CATALOGUE {
            if let Kind::Histogram(buckets) = entry.kind {
                assert!(buckets.is_sorted_by(|left, right| left < right), "{}", entry.name);
            }
        }
    }

    /// Prometheus's own opinion, where it is installed.
    #[test]
    fn promtool_finds_nothing_to_complain_about() {
        let command = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = command else {
            return; // not installed: the other tests still pin the format
        };
        let (_metrics, text) = exercised();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
    }
}
