//! What a node remembers. Two ports that know bytes only, no Raft and no money:
//!
//! - [`LogStore`]: the replicated log, durable before it is acknowledged;
//! - `StateStore`: the rows of the replicated state, written behind, and snapshots of them.
//!
//! [`sqlite`] keeps them in a data folder, [`memory`] in memory for tests and simulation. Both pass the same contract suites.

mod checksum;
mod error;
mod failure;
pub mod log;
pub mod memory;
pub mod sqlite;
mod tail;

#[cfg(test)]
mod contract;

pub use error::{Owner, StoreError};
pub use failure::FailureWatcher;
pub use log::{Callback, CommitObserver, CommitStats, LogKey, LogState, LogStore, Purged, Record};
