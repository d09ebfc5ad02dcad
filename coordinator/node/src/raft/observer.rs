//! What Raft tells the metrics, without knowing them.

use std::time::Duration;

use super::types::NodeId;

/// How a proposal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProposalEnd {
    /// Committed and applied; the change was made.
    Accepted,
    /// Committed and applied; the rules refused the change.
    Rejected,
    /// Never appended: this node does not lead.
    NotLeader,
    /// Nobody knows yet whether it was applied.
    Unknown,
    /// Never appended: too much is in flight.
    Overloaded,
    /// Never appended: it is larger than a command may be.
    TooLarge,
    /// Never appended: this node stops.
    Stopped,
}

impl ProposalEnd {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Rejected,
        Self::NotLeader,
        Self::Unknown,
        Self::Overloaded,
        Self::TooLarge,
        Self::Stopped,
    ];

    /// The value of a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "applied",
            Self::Rejected => "refused",
            Self::NotLeader => "not_leader",
            Self::Unknown => "unknown",
            Self::Overloaded => "overloaded",
            Self::TooLarge => "too_large",
            Self::Stopped => "stopped",
        }
    }
}

/// Told of what happens, on the threads where it happens; must not block. Each method does nothing by default. How long
/// the log's fsync takes is told by the log store itself (`onespend_adapters::store::CommitObserver`).
pub trait RaftObserver: Send + Sync + 'static {
    /// A proposal of this node ended. `kind` is [`onespend_core::command::Command::kind`].
    fn proposed(&self, kind: &'static str, end: ProposalEnd, took: Duration) {
        let _ = (kind, end, took);
    }

    /// Entries were applied. `lag` is how long the one that waited longest took from this node's log to its state;
    /// `None` for what was in the log when the process started.
    fn applied(&self, entries: u64, lag: Option<Duration>) {
        let _ = (entries, lag);
    }

    /// Another node leads, or none does.
    fn leader_changed(&self, leader: Option<NodeId>, term: u64) {
        let _ = (leader, term);
    }

    /// A snapshot was made.
    fn snapshot_made(&self, size_bytes: u64, took: Duration) {
        let _ = (size_bytes, took);
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl RaftObserver for NoObserver {}
