//! A log in memory, with a disk that is imagined.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::store::failure::{Failure, lock};
use crate::store::tail::{Budget, Change, Tail};
use crate::store::{Callback, FailureWatcher, LogKey, LogState, LogStore, Purged, Record, StoreError};

/// A log in memory. By default every change is durable at once; [`MemoryLog::unsynced`] makes one whose changes wait for
/// [`MemoryLog::sync`], so that a test decides what a power failure loses.
pub struct MemoryLog {
    inner: Mutex<Inner>,
    /// Somebody stopped acknowledging.
    rested: Condvar,
    failure: Failure,
    syncs_itself: bool,
}

#[derive(Default)]
struct Inner {
    /// What readers see.
    visible: Tail,
    /// What a power failure leaves.
    durable: Tail,
    waiting: Vec<(Change, Callback)>,
    lazy: Vec<(LogKey, Arc<[u8]>)>,
    /// Somebody acknowledges right now; so the order holds when two sync at once.
    acknowledging: bool,
    stopped: bool,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::of(Tail::default(), Tail::default(), true)
    }
}

impl MemoryLog {
    /// An empty log whose changes become durable only in [`MemoryLog::sync`].
    pub fn unsynced() -> Self {
        Self::of(Tail::default(), Tail::default(), false)
    }

    fn of(visible: Tail, durable: Tail, syncs_itself: bool) -> Self {
        let inner = Inner { visible, durable, ..Inner::default() };
        Self { inner: Mutex::new(inner), rested: Condvar::new(), failure: Failure::default(), syncs_itself }
    }

    /// Makes everything that is waiting durable, lazy values included, and acknowledges it in order. May be called from a
    /// callback, and then leaves the work to whom called that.
    pub fn sync(&self) {
        if std::mem::replace(&mut lock(&self.inner).acknowledging, true) {
            return;
        }
        loop {
            let (waiting, result) = {
                let mut inner = lock(&self.inner);
                let waiting = std::mem::take(&mut inner.waiting);
                let result = self.failure.check().and_then(|()| inner.harden(&waiting));
                if waiting.is_empty() {
                    inner.acknowledging = false;
                    self.rested.notify_all();
                    return;
                }
                (waiting, result)
            };
            for (_, done) in waiting {
                done(result.clone());
            }
        }
    }

    /// The power fails: whoever waits never hears, this value is stopped, and what was durable is given back as the log
    /// that the next start finds.
    pub fn crash(&self) -> Self {
        let mut inner = lock(&self.inner);
        inner.stopped = true;
        inner.waiting.clear();
        inner.lazy.clear();
        Self::of(inner.durable.clone(), inner.durable.clone(), self.syncs_itself)
    }

    /// The disk breaks: this and every later change fails.
    pub fn fail(&self, error: &StoreError) {
        self.failure.set(error);
        self.sync();
    }

    fn push(&self, change: Change, done: Callback) {
        {
            let mut inner = lock(&self.inner);
            let refused = if inner.stopped { Err(StoreError::Stopped) } else { self.failure.check() };
            match refused.and_then(|()| inner.visible.accept(change, 0)) {
                Ok(change) => inner.waiting.push((change, done)),
                Err(refused) => {
                    drop(inner);
                    return done(Err(refused));
                }
            }
        }
        if self.syncs_itself {
            self.sync();
        }
    }
}

impl Inner {
    fn harden(&mut self, waiting: &[(Change, Callback)]) -> Result<(), StoreError> {
        for (change, _) in waiting {
            self.durable.accept(change.clone(), 0)?;
        }
        for (key, value) in self.lazy.drain(..) {
            self.durable.set_named(key, value);
        }
        Ok(())
    }
}

impl LogStore for MemoryLog {
    fn state(&self) -> LogState {
        lock(&self.inner).visible.state()
    }

    fn append(&self, entries: Vec<Record>, done: Callback) {
        self.push(Change::Append(entries), done);
    }

    fn truncate_from(&self, index: u64, done: Callback) {
        self.push(Change::Truncate { from: index }, done);
    }

    fn purge_through(&self, index: u64, marker: Vec<u8>, done: Callback) {
        self.push(Change::Purge(Purged { index, marker: marker.into() }), done);
    }

    fn put(&self, key: LogKey, value: Vec<u8>, done: Callback) {
        lock(&self.inner).lazy.retain(|(lazy, _)| *lazy != key);
        self.push(Change::Put(key, value.into()), done);
    }

    fn put_lazily(&self, key: LogKey, value: Vec<u8>) {
        let mut inner = lock(&self.inner);
        if !inner.stopped {
            let value: Arc<[u8]> = value.into();
            inner.visible.set_named(key, value.clone());
            inner.lazy.retain(|(lazy, _)| *lazy != key);
            inner.lazy.push((key, value));
        }
    }

    fn get(&self, key: LogKey) -> Option<Arc<[u8]>> {
        lock(&self.inner).visible.named(key)
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Record>, StoreError> {
        let inner = lock(&self.inner);
        let mut records = Vec::new();
        inner.visible.copy(inner.visible.clip(&range), &mut Budget::new(max_bytes), &mut records);
        Ok(records)
    }

    fn failed(&self) -> Option<StoreError> {
        self.failure.get()
    }

    fn on_failure(&self, watcher: FailureWatcher) {
        self.failure.watch(watcher);
    }

    fn stop(&self) {
        lock(&self.inner).stopped = true;
        self.sync();
        let mut inner = lock(&self.inner);
        while inner.acknowledging {
            inner = self.rested.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::path::Path;

    use super::*;
    use crate::store::contract::log::{LogFixture, all, log_contract, nobody, records};

    impl LogFixture for MemoryLog {
        fn fresh() -> Self {
            Self::default()
        }

        fn log(&self) -> &dyn LogStore {
            self
        }

        fn restart(&mut self) {
            self.stop();
            *self = self.crash();
        }

        fn break_disk(&self) {
            self.fail(&StoreError::corrupt(Path::new("memory"), "on purpose"));
        }
    }

    log_contract!(MemoryLog);

    #[test]
    fn a_crash_loses_what_was_not_synced() {
        let log = MemoryLog::unsynced();
        log.append(records(0..3, "a"), nobody());
        log.put_lazily(LogKey::Committed, vec![1]);
        log.sync();
        log.put_lazily(LogKey::Committed, vec![2]);
        log.append(records(3..5, "a"), Box::new(|_| panic!("nobody hears after a crash")));
        assert_eq!(all(&log), records(0..5, "a"));
        let after = log.crash();
        assert_eq!(all(&after), records(0..3, "a"));
        assert_eq!(after.get(LogKey::Committed).as_deref(), Some(&[1][..]));
    }
}
