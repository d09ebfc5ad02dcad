//! The port of the replicated log: records in order, and a few named values.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{FailureWatcher, StoreError};

/// Called exactly once when the change and everything before it is on disk, or can no longer get there. Runs on the
/// store's own thread (or on the caller's, when the change is refused at once), in the order of the calls; must not block.
pub type Callback = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// One record and its index.
pub type Record = (u64, Arc<[u8]>);

/// The named values beside the log. Their content is the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogKey {
    /// The vote: whom this node follows in which term. Lost, a node could vote twice.
    Vote,
    /// How far the log was known to be committed. May lag behind; then more is replayed after a restart.
    Committed,
}

impl LogKey {
    pub(crate) const ALL: [Self; 2] = [Self::Vote, Self::Committed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Committed => "committed",
        }
    }
}

/// Up to where the log was cut off at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// The last purged index.
    pub index: u64,
    /// The caller's own description of that record, such as its log id.
    pub marker: Arc<[u8]>,
}

/// What the log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// The lowest index that can be read; none when there is no record.
    pub first: Option<u64>,
    /// The highest index that can be read; none when there is no record. Then the log goes on after `purged`.
    pub last: Option<u64>,
    /// How far it was purged.
    pub purged: Option<Purged>,
}

/// One commit, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitStats {
    /// From the begin of the transaction to the return of its fsync.
    pub duration: Duration,
    /// Records appended in it.
    pub entries: u64,
    /// Bytes of these records.
    pub bytes: u64,
}

/// Told when a commit begins, on the store's own thread; must not block. [`CommitObserver`] is told when it has ended,
/// unless it fails.
pub type CommitBegins = Arc<dyn Fn() + Send + Sync>;

/// Told after every commit, on the store's own thread; must not block.
pub type CommitObserver = Arc<dyn Fn(CommitStats) + Send + Sync>;

/// Records in order of their index, and a few named values. Knows bytes only.
///
/// Changes are strictly first in, first out over all methods, and readers see them at once, before they are durable.
/// Callbacks come in the order of the calls. A call may block while too much is waiting to be written (backpressure).
/// After the first failed write nothing is acknowledged any more: every later callback gets [`StoreError::Failed`].
pub trait LogStore: Send + Sync + 'static {
    /// What the log holds now, changes that are not yet durable included.
    fn state(&self) -> LogState;

    /// Adds records at the end. Indices must continue the log without a hole, else [`StoreError::Hole`] and nothing is
    /// written; a log that never held anything may start anywhere. No record is a barrier: `done` comes in its turn.
    fn append(&self, entries: Vec<Record>, done: Callback);

    /// Drops every record from `index` on. Beyond the last record it does nothing.
    fn truncate_from(&self, index: u64, done: Callback);

    /// Drops every record up to and including `index` and remembers `marker`. May go beyond the last record: the log then
    /// is empty and continues at `index + 1`. At or below an earlier purge it does nothing. The space is given back later.
    fn purge_through(&self, index: u64, marker: Vec<u8>, done: Callback);

    /// Sets a named value.
    fn put(&self, key: LogKey, value: Vec<u8>, done: Callback);

    /// Sets a named value that reaches the disk with some later change, at the latest in `stop`. A crash may lose it; it
    /// never gets there before the changes that were made before it.
    fn put_lazily(&self, key: LogKey, value: Vec<u8>);

    /// The latest named value, whether durable yet or not.
    fn get(&self, key: LogKey) -> Option<Arc<[u8]>>;

    /// The records of the range that exist, in order and without a hole. Ends early, but never empty, once `max_bytes` are
    /// reached. What is purged is left out at the beginning, what is not there yet at the end.
    fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Record>, StoreError>;

    /// The first failure, if there was one. The node must exit.
    fn failed(&self) -> Option<StoreError>;

    /// Tells `watcher` of the first failure, at once if it has happened.
    fn on_failure(&self, watcher: FailureWatcher);

    /// Writes what is waiting, lazy values included, and closes. Later changes get [`StoreError::Stopped`]. Blocks until
    /// done; a second call does nothing. Must not be called from a callback.
    fn stop(&self);
}
