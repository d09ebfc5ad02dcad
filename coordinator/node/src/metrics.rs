//! Every metric of the service: name, unit, help, buckets and the one function that records it.
//!
//! Names follow Prometheus's conventions: `onespend_`, base units (seconds, bytes), `_total` for
//! counters. Label values come from closed sets, so the number of series is bounded. The recorder
//! has no listener of its own; the health listener serves [`Metrics::render`].

use std::sync::Arc;
use std::time::Duration;

use metrics::{Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use onespend_adapters::signer::memory::Refusal;
use onespend_policies::{Action, Denied};
use tonic::Code;

use crate::handover::HandOverReason;
use crate::raft::ProposalEnd;

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

/// From an empty state to one of gigabytes.
const SNAPSHOT_BUCKETS: &[f64] = &[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

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
const PROPOSAL_SECONDS: &str = "onespend_proposal_duration_seconds";
const COMMIT_LAG: &str = "onespend_raft_commit_lag_entries";
const APPLY_LAG: &str = "onespend_raft_apply_lag_entries";
const APPLIED_ENTRIES: &str = "onespend_raft_applied_entries_total";
const APPLY_SECONDS: &str = "onespend_raft_append_to_apply_duration_seconds";
const SNAPSHOT_SECONDS: &str = "onespend_raft_snapshot_duration_seconds";
const SNAPSHOT_BYTES: &str = "onespend_raft_snapshot_size_bytes";
const LEADER_CHANGES: &str = "onespend_raft_leader_changes_total";
const HAND_OVERS: &str = "onespend_raft_hand_overs_total";
const IS_LEADER: &str = "onespend_raft_is_leader";
const TERM: &str = "onespend_raft_term";
const PRIMARY: &str = "onespend_primary";
const BITCOIND_HEIGHT: &str = "onespend_bitcoind_height_blocks";
const BITCOIND_LAG: &str = "onespend_bitcoind_lag_blocks";
const BITCOIND_PEERS: &str = "onespend_bitcoind_peers";
const BITCOIND_IN_SYNC: &str = "onespend_bitcoind_in_sync";
const BITCOIND_RPC_SECONDS: &str = "onespend_bitcoind_rpc_duration_seconds";
const RESERVATIONS: &str = "onespend_reservations";
const PAYMENTS: &str = "onespend_payments";
const OLDEST_PAYMENT: &str = "onespend_oldest_payment_age_seconds";
const FROZEN_WALLETS: &str = "onespend_frozen_wallets";
const RECOVERY: &str = "onespend_recovery_mode";
const SIGNER_SECONDS: &str = "onespend_signer_duration_seconds";
const SIGNER_FROZEN: &str = "onespend_signer_frozen";
const SIGNER_REFUSALS: &str = "onespend_signer_memory_refusals_total";
const POLICY_DENIALS: &str = "onespend_policy_denials_total";
const BACKUP_LAST: &str = "onespend_backup_last_success_timestamp_seconds";
const BACKUP_FAILURES: &str = "onespend_backup_failures_total";
const TELEMETRY_FAILURES: &str = "onespend_telemetry_export_failures_total";
const DISK_FREE: &str = "onespend_disk_free_bytes";
const DISK_RESERVE: &str = "onespend_disk_reserve_bytes";
const ALARM: &str = "onespend_alarm";
const CHECK_FAILING: &str = "onespend_check_failing";
const CHECKS_PASSING: &str = "onespend_checks_passing";
const CERTIFICATE_EXPIRY: &str = "onespend_certificate_expiry_timestamp_seconds";
const BUILD_INFO: &str = "onespend_build_info";

#[rustfmt::skip] // A table reads by rows.
const CATALOGUE: &[Entry] = &[
    entry(GRPC_SECONDS, Kind::Histogram(REQUEST_BUCKETS), Unit::Seconds, "Time to answer a gRPC request, by method and status code."),
    entry(PROPOSALS, Kind::Counter, Unit::Count, "Proposals to the replicated log, by outcome: applied; refused by the rules; unknown; or never appended because not_leader, overloaded, too_large, or stopped."),
    entry(PROPOSAL_SECONDS, Kind::Histogram(REQUEST_BUCKETS), Unit::Seconds, "Time from a proposal to its outcome, by command."),
    entry(FSYNC_SECONDS, Kind::Histogram(FSYNC_BUCKETS), Unit::Seconds, "Time to make one group of log entries durable."),
    entry(COMMIT_LAG, Kind::Gauge, Unit::Count, "Log entries on this disk that are not known to be committed."),
    entry(APPLY_LAG, Kind::Gauge, Unit::Count, "Committed log entries that this node has not applied."),
    entry(APPLIED_ENTRIES, Kind::Counter, Unit::Count, "Log entries that this node has applied since it started."),
    entry(APPLY_SECONDS, Kind::Histogram(REQUEST_BUCKETS), Unit::Seconds, "Time from this node's log to its state, of the entry in each batch that waited longest."),
    entry(SNAPSHOT_SECONDS, Kind::Histogram(SNAPSHOT_BUCKETS), Unit::Seconds, "Time to make one snapshot of the state."),
    entry(SNAPSHOT_BYTES, Kind::Gauge, Unit::Bytes, "Size of the last snapshot that this node made."),
    entry(LEADER_CHANGES, Kind::Counter, Unit::Count, "Times that this node learned of a leader, or of a leader's new term."),
    entry(HAND_OVERS, Kind::Counter, Unit::Count, "Times that this node handed leadership over, by reason: bitcoind, check, disk, operator, signer, or stop."),
    entry(IS_LEADER, Kind::Gauge, Unit::Count, "1 if this node believes to lead; whether a quorum agrees is what /leader tells."),
    entry(TERM, Kind::Gauge, Unit::Count, "The Raft term of this node."),
    entry(PRIMARY, Kind::Gauge, Unit::Count, "1 if /primary is 200 at the moment of the scrape, so that spends may be sent here; else 0."),
    entry(BITCOIND_HEIGHT, Kind::Gauge, Unit::Count, "Blocks that this node's bitcoind has connected."),
    entry(BITCOIND_LAG, Kind::Gauge, Unit::Count, "Blocks that this node's bitcoind lags its headers or the cluster's best."),
    entry(BITCOIND_PEERS, Kind::Gauge, Unit::Count, "Connections of this node's bitcoind."),
    entry(BITCOIND_IN_SYNC, Kind::Gauge, Unit::Count, "1 if this node's bitcoind is in sync."),
    entry(BITCOIND_RPC_SECONDS, Kind::Histogram(RPC_BUCKETS), Unit::Seconds, "Time of one call to bitcoind, by method and outcome: ok, error, or unknown."),
    entry(RESERVATIONS, Kind::Gauge, Unit::Count, "Reservations, by state."),
    entry(PAYMENTS, Kind::Gauge, Unit::Count, "Payments, by state."),
    entry(OLDEST_PAYMENT, Kind::Gauge, Unit::Seconds, "Time since the oldest payment in this state was ordered; 0 if there is none. States: signing (its intent is committed and it is not signed) and signed (it is not broadcast)."),
    entry(FROZEN_WALLETS, Kind::Gauge, Unit::Count, "Wallets that are frozen: by an operator, by a deep reorganisation, or because their external signer broke its word."),
    entry(RECOVERY, Kind::Gauge, Unit::Count, "1 while the state may be older than what the cluster did, so that nothing is signed; else 0."),
    entry(SIGNER_SECONDS, Kind::Histogram(SIGNER_BUCKETS), Unit::Seconds, "Time of one signature, by signer and outcome: ok or error."),
    entry(SIGNER_FROZEN, Kind::Gauge, Unit::Count, "1 if the signer is frozen: it has signed what the cluster's log lacks."),
    entry(SIGNER_REFUSALS, Kind::Counter, Unit::Count, "Permits that a signer's memory refused, by signer and rule: second_payment, other_transaction, no_shared_coin, lower_fence, frozen, or epoch_not_accepted."),
    entry(POLICY_DENIALS, Kind::Counter, Unit::Count, "Requests that policy refused, by method and reason."),
    entry(BACKUP_LAST, Kind::Gauge, Unit::Seconds, "When this node last made a backup by its schedule, in seconds since 1970."),
    entry(BACKUP_FAILURES, Kind::Counter, Unit::Count, "Backups by this node's schedule that failed."),
    entry(TELEMETRY_FAILURES, Kind::Counter, Unit::Count, "Batches of spans that could not be exported."),
    entry(DISK_FREE, Kind::Gauge, Unit::Bytes, "Room on the file system of the data folder, besides what is held back."),
    entry(DISK_RESERVE, Kind::Gauge, Unit::Bytes, "Space that is held back for when the disk is full; 0 once it is given up."),
    entry(ALARM, Kind::Gauge, Unit::Count, "1 while the alarm of this code stands on this node; else 0."),
    entry(CHECK_FAILING, Kind::Gauge, Unit::Count, "1 while this check of this node fails; else 0. The labels say its name, and its purpose: primary, readiness, or report."),
    entry(CHECKS_PASSING, Kind::Gauge, Unit::Count, "1 if the checks for this purpose (primary, readiness), taken together, pass; else 0."),
    entry(CERTIFICATE_EXPIRY, Kind::Gauge, Unit::Seconds, "When a certificate that this node was started with ends, in seconds since 1970: node is its own, ca the authority's."),
    entry(BUILD_INFO, Kind::Gauge, Unit::Count, "Always 1; the labels say what runs."),
];

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

    /// The same at a moment when `/primary` is 200, or is not.
    pub fn page(&self, is_primary: bool) -> String {
        self.record(|| primary(is_primary));
        self.render()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Describes every metric, and creates the counters whose labels are known, so that a dashboard can tell "never happened"
/// from "not measured", and the first event is seen as a rise. What belongs to a signer, or to a schedule of backups, begins
/// where there is one.
fn describe() {
    for Entry { name, kind, unit, help } in CATALOGUE {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *unit, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *unit, *help),
            Kind::Histogram(_) => metrics::describe_histogram!(*name, *unit, *help),
        }
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for name in [APPLIED_ENTRIES, LEADER_CHANGES, TELEMETRY_FAILURES] {
        counter!(name).absolute(0);
    }
    for end in ProposalEnd::ALL {
        counter!(PROPOSALS, "outcome" => end.as_str()).absolute(0);
    }
    for reason in HandOverReason::ALL {
        counter!(HAND_OVERS, "reason" => reason.word()).absolute(0);
    }
    for method in Action::ALL.iter().map(|action| action.name()) {
        for reason in Denied::REASONS {
            counter!(POLICY_DENIALS, "method" => method, "reason" => reason).absolute(0);
        }
    }
}

/// One gRPC request was answered. `method` is the rpc's name, such as `ReserveUtxos`.
pub fn grpc_request(method: &'static str, code: Code, took: Duration) {
    histogram!(GRPC_SECONDS, "method" => method, "code" => code_word(code)).record(took);
}

/// One proposal ended. `command` is [`onespend_core::command::Command::kind`].
pub fn proposal(command: &'static str, end: ProposalEnd, took: Duration) {
    counter!(PROPOSALS, "outcome" => end.as_str()).increment(1);
    histogram!(PROPOSAL_SECONDS, "command" => command).record(took);
}

/// Entries were applied; `lag` is how long the one that waited longest took, where that is known.
pub fn entries_applied(entries: u64, lag: Option<Duration>) {
    counter!(APPLIED_ENTRIES).increment(entries);
    if let Some(lag) = lag {
        histogram!(APPLY_SECONDS).record(lag);
    }
}

/// A snapshot was made.
pub fn snapshot_made(size_bytes: u64, took: Duration) {
    gauge!(SNAPSHOT_BYTES).set(number(size_bytes));
    histogram!(SNAPSHOT_SECONDS).record(took);
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

/// What `/primary` says. To be told at each scrape: it changes without an event, when nobody acknowledges or renews what it
/// rests on any more.
pub fn primary(is_primary: bool) {
    gauge!(PRIMARY).set(number(u64::from(is_primary)));
}

/// This node learned of a leader, or of a leader's new term.
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

/// How long ago the oldest payment of a state was ordered. States without any must be given as zero.
pub fn oldest_payments(ages: &std::collections::BTreeMap<&'static str, Duration>) {
    for (state, age) in ages {
        gauge!(OLDEST_PAYMENT, "state" => *state).set(age.as_secs_f64());
    }
}

/// Room on the disk, and how much of it is held back, in bytes.
pub fn disk(free: u64, reserve: u64) {
    gauge!(DISK_FREE).set(number(free));
    gauge!(DISK_RESERVE).set(number(reserve));
}

/// The alarms that stand. Every code has its series, so that one that ends goes back to 0.
pub fn alarms(standing: &[crate::health::Alarm]) {
    for code in crate::alarms::CODES {
        let stands = standing.iter().any(|alarm| alarm.code == code);
        gauge!(ALARM, "code" => code).set(number(u64::from(stands)));
    }
}

/// When a certificate ends, in seconds since 1970. `certificate` is `node` or `ca`.
pub fn certificate_expiry(certificate: &'static str, at_unix_s: i64) {
    // Gauges are floats; dates are far below 2^53 seconds.
    #[allow(clippy::cast_precision_loss)]
    gauge!(CERTIFICATE_EXPIRY, "certificate" => certificate).set(at_unix_s as f64);
}

/// Whether a check of this node fails. `purpose` is what it decides, as in its configuration.
pub fn check_failing(check: &str, purpose: &'static str, failing: bool) {
    gauge!(CHECK_FAILING, "check" => check.to_owned(), "purpose" => purpose).set(number(u64::from(failing)));
}

/// Whether the checks for a purpose, taken together, pass.
pub fn checks_passing(purpose: &'static str, pass: bool) {
    gauge!(CHECKS_PASSING, "purpose" => purpose).set(number(u64::from(pass)));
}

/// How many wallets are frozen.
pub fn frozen_wallets(count: u64) {
    gauge!(FROZEN_WALLETS).set(number(count));
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

/// Whether a signer is frozen.
pub fn signer_frozen(signer: &str, frozen: bool) {
    gauge!(SIGNER_FROZEN, "signer" => signer.to_owned()).set(number(u64::from(frozen)));
}

/// This node has a signer: what its memory refuses is counted from 0.
pub fn signer_begins(signer: &str) {
    for rule in Refusal::RULES {
        counter!(SIGNER_REFUSALS, "signer" => signer.to_owned(), "rule" => rule).absolute(0);
    }
}

/// A signer's memory refused a permit. `rule` is the word of [`Refusal::rule`].
pub fn signer_refused(signer: &str, rule: &'static str) {
    counter!(SIGNER_REFUSALS, "signer" => signer.to_owned(), "rule" => rule).increment(1);
}

/// A backup was made by the schedule, so long after the beginning of 1970.
pub fn backup_made(at: Duration) {
    gauge!(BACKUP_LAST).set(at.as_secs_f64());
}

/// This node has a schedule of backups: those that fail are counted from 0.
pub fn backups_begin() {
    counter!(BACKUP_FAILURES).absolute(0);
}

/// A backup of the schedule failed.
pub fn backup_failed() {
    counter!(BACKUP_FAILURES).increment(1);
}

/// This node gave up the lead, and another took it.
pub fn handed_over(reason: HandOverReason) {
    counter!(HAND_OVERS, "reason" => reason.word()).increment(1);
}

/// Policy refused a request.
pub fn policy_denied(denied: &Denied) {
    let Denied::Role { action, .. } = denied;
    let (method, reason) = (action.name(), denied.reason());
    counter!(POLICY_DENIALS, "method" => method, "reason" => reason).increment(1);
}

/// A counter of spans that could not be exported, bound to the recorder in force now: the
/// exporter's thread has none of its own.
pub(crate) fn telemetry_failures() -> metrics::Counter {
    counter!(TELEMETRY_FAILURES)
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
#[path = "metrics_tests.rs"]
mod tests;
