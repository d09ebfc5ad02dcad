//! What load balancers, Prometheus and people may know, over HTTP.
//!
//! A [`Snapshot`] of the node is published several times a second; a server on its own thread and
//! runtime answers from it. So a node that is overloaded or stuck still answers, and says so: a
//! snapshot that nobody renews is itself a reason for 503. Decisions are pure functions of the
//! question, the snapshot and the moment ([`verdict()`]), for HTTP and `grpc.health.v1` alike.

mod agent;
pub mod bitcoind_sync;
mod body;
mod metrics_page;
mod progress;
mod question;
mod server;
mod snapshot;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::checks::judgement::Aggregation;
use crate::config::Section;
use crate::runtime;

use metrics_page::MetricsPage;

pub use progress::{Beat, Progress, Pulse};
pub use question::{Check, Question, Refusal};
pub use server::{HealthError, HealthServer, MAX_CONNECTIONS};
pub use snapshot::{Alarm, BitcoindView, CheckView, Counts, LeaderInfo, LeadershipChange, Member, Role, Snapshot};
pub use verdict::{Limits, Reason, Verdict, verdict};

/// `[health]`: when a node counts as healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// A replica further behind the leader's commit than this is not for reading.
    pub max_lag_entries: u64,
    /// A bitcoind further behind its headers, or the cluster, than this is out of sync.
    pub max_lag_blocks: u32,
    /// A leader whose bitcoind alone is out of sync, or whose checks alone fail, for this long hands over.
    pub hand_over_after: Duration,
    /// Pause between two such hand-overs by one node.
    pub hand_over_pause: Duration,
    /// Which of the checks for primary must pass.
    pub checks_for_primary: Aggregation,
    /// Which of the checks for readiness must pass.
    pub checks_for_readiness: Aggregation,
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            max_lag_entries: section.integer("max_lag_entries", 0..=1_000_000_000, Some(1_000)),
            max_lag_blocks: section.integer32("max_lag_blocks", 0..=1_000, 2),
            hand_over_after: section.millis("hand_over_after_ms", 0..=3_600_000, 2_000),
            hand_over_pause: section.millis("hand_over_pause_ms", 0..=3_600_000, 60_000),
            checks_for_primary: aggregation(section, "checks_for_primary"),
            checks_for_readiness: aggregation(section, "checks_for_readiness"),
        }
    }
}

fn aggregation(section: &mut Section<'_>, key: &str) -> Aggregation {
    section.choice(key, &Aggregation::WORDS, Some("all")).unwrap_or(Aggregation::All)
}

/// The node's health: where it is published, and where answers come from. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    snapshot: Arc<ArcSwap<Snapshot>>,
    limits: Limits,
    progress: Progress,
    metrics: MetricsPage,
}

impl Health {
    /// Begins with a first snapshot. `metrics` renders the Prometheus text, and is told whether `/primary` is 200 then.
    pub fn new(first: Snapshot, limits: Limits, metrics: impl Fn(bool) -> String + Send + Sync + 'static) -> Self {
        Self {
            snapshot: Arc::new(ArcSwap::from_pointee(first)),
            limits,
            progress: Progress::default(),
            metrics: MetricsPage::new(metrics),
        }
    }

    /// Replaces the snapshot. To be done at least every [`Health::PUBLISH_EVERY`] and at every
    /// change of role; answers that rest on one older than [`Limits::snapshot`] are refused.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// How often a snapshot should be published.
    pub const PUBLISH_EVERY: Duration = Duration::from_millis(100);

    /// The snapshot in force. One of a node that stops says so, whenever it was made.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let snapshot = self.snapshot.load_full();
        if !self.progress.is_stopping() {
            return snapshot;
        }
        Arc::new(Snapshot { draining: true, stopping: true, ..Snapshot::clone(&snapshot) })
    }

    /// The node stops: from now on nobody is to be sent here, and nobody need renew the snapshot any more.
    pub fn stopping(&self) {
        self.progress.stopping();
    }

    /// Answers one check now; what `grpc.health.v1` asks too.
    pub fn verdict(&self, check: &Check) -> Verdict {
        verdict(check, &self.snapshot(), &self.limits, runtime::now().into_std())
    }

    /// The snapshot in force, and what it answers to several checks now.
    pub fn verdicts<const N: usize>(&self, checks: [Check; N]) -> (Arc<Snapshot>, [Verdict; N]) {
        let (snapshot, now) = (self.snapshot(), runtime::now().into_std());
        let verdicts = checks.map(|check| verdict(&check, &snapshot, &self.limits, now));
        (snapshot, verdicts)
    }

    /// Where loops register their heartbeats for `/livez`.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Health")
            .field("snapshot", &self.snapshot.load())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
