//! What this cluster puts into openraft's type parameters.

use std::fmt;
use std::sync::{Arc, OnceLock};

use onespend_core::command::{Entry, UnreadableEntry};
use onespend_core::ids::LogIndex;
use onespend_core::outcome::Outcome;
use prost::bytes::Bytes;

/// A node's number, unique for ever within its cluster: a wiped disk comes back under a new one.
pub type NodeId = u64;

openraft::declare_raft_types!(
    /// The type parameters of openraft.
    pub TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Addresses,
        AsyncRuntime = Runtime,
        // At most one leader per term, as in the Raft paper, so that the term alone is a fence.
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

pub(crate) type CommittedLeader = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type LogEntry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::alias::PayloadOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, Addresses>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type SnapshotFile = onespend_adapters::store::SnapshotFile;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotFile>;
pub(crate) type Raft = openraft::Raft<TypeConfig, super::state_machine::StateMachine>;

#[cfg(test)]
pub use super::simulated::Runtime;
#[cfg(not(test))]
pub(crate) type Runtime = openraft_rt_tokio::TokioRuntime;

/// Where the other members, and its callers, reach a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    /// Control port, `host:port`: Raft, forwarded requests, operators.
    pub control: String,
    /// Data port, `host:port`: wallet back ends.
    pub data: String,
}

/// A command as the log carries it: its stored bytes, decoded at most once and only where it is needed. A replica
/// passes the bytes on to disk as they came, so every node stores the same ones.
#[derive(Clone)]
pub struct Proposal(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    entry: OnceLock<Result<Entry, UnreadableEntry>>,
}

impl Proposal {
    /// Of an entry that this node proposes.
    pub fn new(entry: Entry) -> Self {
        let bytes = entry.to_bytes().into();
        Self(Arc::new(Inner { bytes, entry: OnceLock::from(Ok(entry)) }))
    }

    /// Of bytes from a disk or another node.
    pub(crate) fn from_stored(bytes: Bytes) -> Self {
        Self(Arc::new(Inner { bytes, entry: OnceLock::new() }))
    }

    /// The stored form.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The command.
    ///
    /// # Errors
    /// The bytes are damaged, or of a later version: the node must stop (safety 32).
    pub fn entry(&self) -> Result<&Entry, &UnreadableEntry> {
        self.0.entry.get_or_init(|| Entry::from_bytes(&self.0.bytes)).as_ref()
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proposal").field(&self.0.bytes.len()).finish()
    }
}

/// Only the kind and the size: openraft puts this into its log lines, and amounts or addresses do not belong there.
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.entry().map_or("unreadable", |entry| entry.command.kind());
        write!(f, "{kind} ({} bytes)", self.0.bytes.len())
    }
}

/// What became of a proposal that was committed and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The answer of the core.
    pub outcome: Outcome,
    /// Index of the entry.
    pub index: LogIndex,
    /// Term of the entry.
    pub term: u64,
}
