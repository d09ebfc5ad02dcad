//! What a node remembers. Two ports that know bytes only, no Raft and no money:
//!
//! - [`LogStore`]: the replicated log, durable before it is acknowledged;
//! - [`StateStore`]: the rows of the replicated state, written behind, and snapshots of them.
//!
//! [`sqlite`] keeps them in a data folder, [`memory`] in memory for tests and simulation. Both pass the same contract
//! suites. [`WriteBehind`] collects changes of the state and writes them off the request path. [`PeerBook`] remembers with
//! which folder each other node came.

mod checksum;
#[cfg(test)]
mod contract;
pub(crate) mod durable;
mod error;
mod failure;
mod identity;
mod log;
pub mod memory;
mod peer_book;
mod shelf;
mod snapshot;
mod space;
pub mod sqlite;
mod state;
mod tail;
mod write_behind;

pub use error::{Owner, StoreError};
pub use failure::FailureWatcher;
pub use identity::FORMAT_VERSION;
pub use log::{Callback, CommitBegins, CommitObserver, CommitStats, LogKey, LogState, LogStore, Purged, Record};
pub use peer_book::{Meeting, PeerBook};
pub use snapshot::{IncomingSnapshot, SnapshotDigest, SnapshotFile};
pub use space::{SpaceReserve, free_bytes};
pub use state::{Row, RowBatch, RowChange, RowVisitor, StateStore};
pub use write_behind::{WriteBehind, WriteBehindOptions};
