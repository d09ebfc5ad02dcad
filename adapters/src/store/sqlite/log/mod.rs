//! The log in `raft.db`: one thread writes, one fsync serves all that is waiting.

#[cfg(feature = "sabotage")]
mod held;
mod queue;
mod table;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rusqlite::Connection;

use self::queue::LogQueue;
pub(crate) use self::table::LOG_SCHEMA;
use super::{DataFolder, database};
use crate::store::failure::lock;
use crate::store::tail::{Budget, Change, Tail};
use crate::store::{
    Callback, CommitBegins, CommitObserver, FailureWatcher, LogKey, LogState, LogStore, Purged, Record, StoreError,
};

/// How a [`SqliteLog`] is opened.
#[derive(Default, Clone)]
pub struct LogOptions {
    /// Told of every commit.
    pub observer: Option<CommitObserver>,
    /// Told of every commit when it begins: one that hangs has no end to tell of.
    pub begins: Option<CommitBegins>,
}

/// A log in a data folder. Dropping it stops it.
pub struct SqliteLog {
    queue: Arc<LogQueue>,
    /// For records that are no longer in memory.
    reader: Mutex<Connection>,
    writer: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
    /// Keeps the lock of the folder for as long as its log is open.
    _folder: DataFolder,
}

impl SqliteLog {
    /// Opens the log, checks every record in it, and starts its thread.
    pub fn open(folder: &DataFolder, options: LogOptions) -> Result<Self, StoreError> {
        let path = folder.path().join(LOG_SCHEMA.file);
        let db = database::open(&path, &LOG_SCHEMA, folder.identity())?;
        let queue = Arc::new(LogQueue::new(table::restore(&db, &path)?));
        let reader = database::open_reader(&path)?;
        let writer = writer::start(db, path.clone(), queue.clone(), options)?;
        Ok(Self { queue, reader: Mutex::new(reader), writer: Mutex::new(Some(writer)), path, _folder: folder.clone() })
    }

    /// `None` when the log was cut meanwhile, so that what was read may belong to different histories.
    fn try_read(&self, range: &Range<u64>, max_bytes: usize) -> Result<Option<Vec<Record>>, StoreError> {
        let mut out = Vec::new();
        let mut budget = Budget::new(max_bytes);
        let mut from = range.start;
        let mut history = None;
        loop {
            let step = self.queue.with_tail(|tail| step(tail, from..range.end, &mut budget, &mut out));
            if *history.get_or_insert(step.cuts) != step.cuts {
                return Ok(None);
            }
            let Some(cold) = step.cold else {
                return Ok(Some(out));
            };
            from = cold.end;
            let (records, missing) = table::read(&lock(&self.reader), &self.path, cold, &mut budget)?;
            if self.queue.with_tail(|tail| tail.cuts() != step.cuts) {
                return Ok(None);
            }
            if let Some(missing) = missing {
                return Err(missing);
            }
            out.extend(records);
            if budget.is_used_up() {
                return Ok(Some(out));
            }
        }
    }
}

/// What a look into the memory left to do.
struct Step {
    cuts: u64,
    /// What must be read from disk. None: the rest was in memory, and is copied.
    cold: Option<Range<u64>>,
}

fn step(tail: &Tail, wanted: Range<u64>, budget: &mut Budget, out: &mut Vec<Record>) -> Step {
    let range = tail.clip(&wanted);
    let kept_from = tail.kept_from();
    let cold = range.start..range.end.min(kept_from);
    if cold.is_empty() {
        tail.copy(range, budget, out);
    }
    Step { cuts: tail.cuts(), cold: (!cold.is_empty()).then_some(cold) }
}

impl LogStore for SqliteLog {
    fn state(&self) -> LogState {
        self.queue.with_tail(Tail::state)
    }

    fn append(&self, entries: Vec<Record>, done: Callback) {
        self.queue.push(Change::Append(entries), done);
    }

    fn truncate_from(&self, index: u64, done: Callback) {
        self.queue.push(Change::Truncate { from: index }, done);
    }

    fn purge_through(&self, index: u64, marker: Vec<u8>, done: Callback) {
        self.queue.push(Change::Purge(Purged { index, marker: marker.into() }), done);
    }

    fn put(&self, key: LogKey, value: Vec<u8>, done: Callback) {
        self.queue.push(Change::Put(key, value.into()), done);
    }

    fn put_lazily(&self, key: LogKey, value: Vec<u8>) {
        self.queue.put_lazily(key, value.into());
    }

    fn get(&self, key: LogKey) -> Option<Arc<[u8]>> {
        self.queue.with_tail(|tail| tail.named(key))
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Record>, StoreError> {
        loop {
            if let Some(records) = self.try_read(&range, max_bytes)? {
                return Ok(records);
            }
        }
    }

    fn failed(&self) -> Option<StoreError> {
        self.queue.failure().get()
    }

    fn on_failure(&self, watcher: FailureWatcher) {
        self.queue.failure().watch(watcher);
    }

    fn stop(&self) {
        self.queue.stop();
        let writer = lock(&self.writer).take();
        // A callback may hold the last handle to the log; its thread cannot wait for itself.
        if let Some(writer) = writer
            && writer.thread().id() != std::thread::current().id()
        {
            // A panic of the thread was reported through the failure when it happened.
            let _ = writer.join();
        }
    }
}

impl Drop for SqliteLog {
    fn drop(&mut self) {
        self.stop();
    }
}
