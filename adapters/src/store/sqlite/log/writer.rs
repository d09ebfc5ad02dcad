//! The thread that writes the log.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::queue::{Group, LogQueue, Next, Waiting};
use super::{LogOptions, table};
use crate::store::tail::Change;
use crate::store::{CommitBegins, CommitObserver, CommitStats, LogKey, StoreError};

/// Pause between two chunks of a purge when nothing else is to be written.
const PURGE_PAUSE: Duration = Duration::from_millis(5);

struct Writer {
    db: Connection,
    path: PathBuf,
    queue: Arc<LogQueue>,
    observer: Option<CommitObserver>,
    begins: Option<CommitBegins>,
    /// Purged rows may be left to delete. So after a start, which may follow a crash.
    purging: bool,
    #[cfg(feature = "sabotage")]
    held: super::held::Held,
}

/// Starts the thread. It ends when the queue is stopped and written, or at the first error.
pub(super) fn start(
    db: Connection,
    path: PathBuf,
    queue: Arc<LogQueue>,
    options: LogOptions,
) -> Result<JoinHandle<()>, StoreError> {
    let at = path.clone();
    let writer = Writer {
        db,
        path,
        queue,
        observer: options.observer,
        begins: options.begins,
        purging: true,
        #[cfg(feature = "sabotage")]
        held: super::held::Held::default(),
    };
    thread::Builder::new()
        .name("raft-log".into())
        .spawn(move || {
            let _closes = CloseOnExit { queue: writer.queue.clone(), path: writer.path.clone() };
            writer.run();
        })
        .map_err(StoreError::io(&at, "start the thread of"))
}

impl Writer {
    fn run(mut self) {
        loop {
            let written = match self.queue.next(self.patience()) {
                Next::End => {
                    #[cfg(feature = "sabotage")]
                    let _shown_by_the_next_start = self.write_held(true);
                    return self.tidy_up();
                }
                Next::Idle => self.commit(&[], &BTreeMap::new()),
                Next::Write(group) => self.write(group),
            };
            #[cfg(feature = "sabotage")]
            let written = written.and_then(|()| self.write_held(false));
            if let Err(error) = written {
                self.queue.failure().set(&error);
                tracing::error!(error = %error, "the log cannot be written");
                return;
            }
        }
    }

    /// How long to wait for something to write while there is other work.
    fn patience(&self) -> Option<Duration> {
        #[cfg(feature = "sabotage")]
        if !self.held.is_empty() {
            return Some(PURGE_PAUSE);
        }
        self.purging.then_some(PURGE_PAUSE)
    }

    /// Writes what was acknowledged before it was written and has been held for long enough, or all of it.
    #[cfg(feature = "sabotage")]
    fn write_held(&mut self, all: bool) -> Result<(), StoreError> {
        while let Some(group) = self.held.take(all) {
            self.commit(&group.changes, &group.lazy)?;
            self.queue.settle(&group);
        }
        Ok(())
    }

    /// Leaves all in the database file. Only to have less to do at the next start: everything is durable already.
    fn tidy_up(self) {
        let done = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::warn!(error = %error, "the write-ahead log of the log stays for the next start");
        }
    }

    /// Commits a group and tells everyone in it. After an error nothing is ever acknowledged again: a later success would
    /// claim that what failed is there.
    fn write(&mut self, group: Group) -> Result<(), StoreError> {
        #[cfg(feature = "sabotage")]
        if crate::sabotage::Guard::SyncBeforeAck.is_off() {
            self.held.acknowledge(group);
            return Ok(());
        }
        let result = self.commit(&group.changes, &group.lazy);
        match &result {
            Ok(()) => self.queue.settle(&group),
            Err(error) => self.queue.failure().set(error),
        }
        for waiting in group.changes {
            (waiting.done)(result.clone());
        }
        result
    }

    /// One transaction: the changes, the lazy values, and a chunk of what was purged.
    fn commit(&mut self, changes: &[Waiting], lazy: &BTreeMap<LogKey, Arc<[u8]>>) -> Result<(), StoreError> {
        self.purging |= changes.iter().any(|waiting| matches!(waiting.change, Change::Purge(_)));
        let nothing = changes.iter().all(|waiting| matches!(waiting.change, Change::Barrier));
        if nothing && lazy.is_empty() && !self.purging {
            return Ok(());
        }
        let begun = Instant::now();
        if let Some(begins) = &self.begins {
            begins();
        }
        #[cfg(feature = "failpoints")]
        crate::failpoints::before_commit(&self.path)?;
        self.purging = self.transact(changes, lazy).map_err(StoreError::sqlite(&self.path))?;
        if let Some(observer) = &self.observer {
            observer(stats(begun.elapsed(), changes));
        }
        Ok(())
    }

    /// `true` while purged rows may be left.
    fn transact(&mut self, changes: &[Waiting], lazy: &BTreeMap<LogKey, Arc<[u8]>>) -> rusqlite::Result<bool> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for waiting in changes {
            table::write(&tx, &waiting.change)?;
        }
        for (key, value) in lazy {
            table::write_named(&tx, *key, value)?;
        }
        let purging = self.purging && table::delete_purged(&tx)?;
        tx.commit()?;
        Ok(purging)
    }
}

fn stats(duration: Duration, changes: &[Waiting]) -> CommitStats {
    let mut stats = CommitStats { duration, entries: 0, bytes: 0 };
    for waiting in changes {
        if let Change::Append(entries) = &waiting.change {
            stats.entries += entries.len() as u64;
            stats.bytes += waiting.change.bytes() as u64;
        }
    }
    stats
}

/// Tells whoever waits when the thread ends, however it ends: nobody may wait for a thread that is gone.
struct CloseOnExit {
    queue: Arc<LogQueue>,
    path: PathBuf,
}

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        if thread::panicking() {
            let cause = std::io::Error::other("its thread panicked");
            self.queue.failure().set(&StoreError::io(&self.path, "write")(cause));
        }
        self.queue.close();
    }
}
