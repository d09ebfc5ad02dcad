//! Writing the state behind the request path: changes are collected, and one thread writes them together.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::failure::lock;
use super::{RowBatch, RowChange, StateStore, StoreError};

/// Submitting waits while more than this is collected and not written.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// When collected changes are written.
#[derive(Debug, Clone, Copy)]
pub struct WriteBehindOptions {
    /// At the latest after this time.
    pub interval: Duration,
    /// At the latest when so many batches came together.
    pub max_batches: usize,
}

impl Default for WriteBehindOptions {
    fn default() -> Self {
        // A disk that lies about the log lies about the state as well.
        #[cfg(feature = "sabotage")]
        if crate::sabotage::Guard::SyncBeforeAck.is_off() {
            return Self { interval: Duration::from_secs(5), max_batches: usize::MAX };
        }
        Self { interval: Duration::from_millis(100), max_batches: 1_000 }
    }
}

/// A thread that writes batches to a [`StateStore`], many in one transaction. Dropping it writes what is left.
pub struct WriteBehind {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Arc<dyn StateStore>,
    options: WriteBehindOptions,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    collected: Collected,
    /// Batches that were submitted, and of these written.
    submitted: u64,
    written: u64,
    /// Somebody waits for everything up to this one.
    wanted: u64,
    stopping: bool,
    ended: bool,
}

/// The sum of some batches.
#[derive(Default)]
struct Collected {
    marker: Vec<u8>,
    rows: BTreeMap<(u8, Vec<u8>), Option<Vec<u8>>>,
    bytes: usize,
    since: Option<Instant>,
}

impl Collected {
    fn add(&mut self, batch: RowBatch) {
        self.since.get_or_insert_with(Instant::now);
        self.marker = batch.marker;
        for RowChange { table, key, value } in batch.rows {
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            self.rows.insert((table, key), value);
        }
    }

    fn into_batch(self) -> RowBatch {
        let rows = self.rows.into_iter().map(|((table, key), value)| RowChange { table, key, value });
        RowBatch { marker: self.marker, rows: rows.collect() }
    }
}

impl WriteBehind {
    /// Starts the thread.
    pub fn start(store: Arc<dyn StateStore>, options: WriteBehindOptions) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared { store, options, inner: Mutex::default(), changed: Condvar::new() });
        let thread = std::thread::Builder::new().name("state-writer".into()).spawn({
            let shared = shared.clone();
            move || {
                let _ends = EndOnExit(&shared);
                shared.run();
            }
        });
        let thread = thread.map_err(StoreError::io("state-writer".as_ref(), "start the thread"))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hands over a batch; batches are written in the order of the calls. Waits only while far too much is waiting.
    pub fn submit(&self, batch: RowBatch) -> Result<(), StoreError> {
        let mut inner = lock(&self.shared.inner);
        while inner.collected.bytes > MAX_WAITING_BYTES && !inner.ended {
            inner = self.shared.wait(inner);
        }
        self.shared.check(&inner)?;
        if inner.stopping {
            return Err(StoreError::Stopped);
        }
        inner.collected.add(batch);
        inner.submitted += 1;
        let waiting = inner.submitted - inner.written;
        drop(inner);
        // In between the thread sleeps until the interval is over.
        if waiting == 1 || waiting >= self.shared.options.max_batches as u64 {
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// Returns when everything that was submitted before is written.
    pub fn flush(&self) -> Result<(), StoreError> {
        let mut inner = lock(&self.shared.inner);
        let wanted = inner.submitted;
        inner.wanted = inner.wanted.max(wanted);
        self.shared.changed.notify_all();
        while inner.written < wanted && !inner.ended {
            inner = self.shared.wait(inner);
        }
        if inner.written < wanted { self.shared.check(&inner).and(Err(StoreError::Stopped)) } else { Ok(()) }
    }

    /// Batches that were submitted and are not written yet.
    pub fn lag(&self) -> u64 {
        let inner = lock(&self.shared.inner);
        inner.submitted - inner.written
    }

    /// Writes what is left and ends. Later batches are refused.
    pub fn stop(&self) -> Result<(), StoreError> {
        let flushed = self.flush();
        lock(&self.shared.inner).stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the thread shows as `ended` to whoever waits.
            let _ = thread.join();
        }
        flushed
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(error = %error, "the state was not written to its end");
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut inner = lock(&self.inner);
        loop {
            let due = inner.collected.since.map(|since| since + self.options.interval);
            let many = inner.submitted - inner.written >= self.options.max_batches as u64;
            let now = Instant::now();
            match due {
                Some(due) if many || inner.wanted > inner.written || inner.stopping || due <= now => {
                    let batch = std::mem::take(&mut inner.collected).into_batch();
                    let upto = inner.submitted;
                    drop(inner);
                    if self.store.write(&batch).is_err() {
                        return;
                    }
                    inner = lock(&self.inner);
                    inner.written = upto;
                    self.changed.notify_all();
                }
                None if inner.stopping => return,
                None => inner = self.wait(inner),
                Some(due) => {
                    let waited = self.changed.wait_timeout(inner, due - now);
                    inner = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread ends early only when the store failed.
    fn check(&self, inner: &Inner) -> Result<(), StoreError> {
        match self.store.failed() {
            Some(first) => Err(first.sticky()),
            None if inner.ended => Err(StoreError::Stopped),
            None => Ok(()),
        }
    }
}

/// Tells whoever waits when the thread ends, however it ends.
struct EndOnExit<'a>(&'a Shared);

impl Drop for EndOnExit<'_> {
    fn drop(&mut self) {
        lock(&self.0.inner).ended = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::path::Path;

    use super::*;
    use crate::store::contract::state::{batch, rows};
    use crate::store::memory::MemoryState;
    use crate::store::{FailureWatcher, IncomingSnapshot, RowVisitor, SnapshotDigest, SnapshotFile};

    const NEVER: Duration = Duration::from_hours(1);

    /// Counts what is written, and can be held up.
    struct Counting {
        state: MemoryState,
        written: Mutex<Vec<RowBatch>>,
        _folder: tempfile::TempDir,
    }

    impl StateStore for Counting {
        fn load(&self, visit: &mut RowVisitor<'_>) -> Result<Option<Vec<u8>>, StoreError> {
            self.state.load(visit)
        }
        fn write(&self, batch: &RowBatch) -> Result<(), StoreError> {
            let mut written = lock(&self.written);
            written.push(batch.clone());
            self.state.write(batch)
        }
        fn snapshot(&self) -> Result<Option<SnapshotFile>, StoreError> {
            self.state.snapshot()
        }
        fn current_snapshot(&self) -> Result<Option<SnapshotFile>, StoreError> {
            self.state.current_snapshot()
        }
        fn copy(&self) -> Result<Option<SnapshotFile>, StoreError> {
            self.state.copy()
        }
        fn receive(&self, announced: SnapshotDigest) -> Result<IncomingSnapshot, StoreError> {
            self.state.receive(announced)
        }
        fn verify(&self, snapshot: &SnapshotFile) -> Result<(), StoreError> {
            self.state.verify(snapshot)
        }
        fn install(&self, snapshot: &SnapshotFile) -> Result<SnapshotFile, StoreError> {
            self.state.install(snapshot)
        }
        fn failed(&self) -> Option<StoreError> {
            self.state.failed()
        }
        fn on_failure(&self, watcher: FailureWatcher) {
            self.state.on_failure(watcher);
        }
    }

    fn start(interval: Duration, max_batches: usize) -> (Arc<Counting>, WriteBehind) {
        let folder = tempfile::TempDir::new().unwrap();
        let state = MemoryState::open(folder.path(), "demo").unwrap();
        let store = Arc::new(Counting { state, written: Mutex::default(), _folder: folder });
        let behind = WriteBehind::start(store.clone(), WriteBehindOptions { interval, max_batches }).unwrap();
        (store, behind)
    }

    #[test]
    fn many_batches_become_one_with_the_latest_rows() {
        let (store, behind) = start(NEVER, 1_000);
        behind.submit(batch("1", &[(1, "a", Some("x")), (1, "b", Some("x"))])).unwrap();
        behind.submit(batch("2", &[(1, "a", Some("y")), (2, "a", Some("z"))])).unwrap();
        behind.submit(batch("3", &[(1, "b", None)])).unwrap();
        assert_eq!(behind.lag(), 3);
        assert_eq!(rows(&*store).0, None);
        behind.flush().unwrap();
        assert_eq!(behind.lag(), 0);
        let expected = batch("3", &[(1, "a", Some("y")), (1, "b", None), (2, "a", Some("z"))]);
        assert_eq!(*lock(&store.written), [expected]);
        behind.flush().unwrap();
        assert_eq!(lock(&store.written).len(), 1, "nothing new, nothing written");
    }

    #[test]
    fn it_writes_by_itself_after_the_interval_or_the_count() {
        for (interval, max_batches, submitted) in [(Duration::from_millis(20), 1_000, 1), (NEVER, 5, 5)] {
            let (store, behind) = start(interval, max_batches);
            for n in 0..submitted {
                behind.submit(batch(&n.to_string(), &[])).unwrap();
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            while behind.lag() > 0 {
                assert!(Instant::now() < deadline, "still {} behind", behind.lag());
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(rows(&*store).0.unwrap(), (submitted - 1).to_string().as_bytes());
        }
    }

    #[test]
    fn stopping_writes_what_is_left() {
        let (store, behind) = start(NEVER, 1_000);
        behind.submit(batch("1", &[(1, "a", Some("x"))])).unwrap();
        behind.stop().unwrap();
        assert_eq!(rows(&*store).0.as_deref(), Some(&b"1"[..]));
        assert!(matches!(behind.submit(batch("2", &[])), Err(StoreError::Stopped)));
        behind.stop().unwrap();
    }

    #[test]
    fn a_failed_store_refuses_and_nobody_waits_for_ever() {
        let (store, behind) = start(NEVER, 1_000);
        behind.submit(batch("1", &[])).unwrap();
        store.state.fail(&StoreError::corrupt(Path::new("memory"), "on purpose"));
        assert!(matches!(behind.flush(), Err(StoreError::Failed { .. })));
        assert!(matches!(behind.submit(batch("2", &[])), Err(StoreError::Failed { .. })));
        assert!(behind.stop().is_err());
    }

    #[test]
    fn submitting_waits_while_too_much_is_waiting() {
        let (store, behind) = start(NEVER, 1);
        let held = lock(&store.written);
        let big = "x".repeat(MAX_WAITING_BYTES / 2);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..6 {
                    behind.submit(batch(&n.to_string(), &[(1, "a", Some(&big))])).unwrap();
                    tell.send(n).unwrap();
                }
            });
            while told.recv_timeout(Duration::from_millis(500)).is_ok_and(|n| n < 5) {}
            assert!(behind.lag() < 6, "the last ones wait");
            drop(held);
        });
        behind.flush().unwrap();
        assert_eq!(rows(&*store).0.as_deref(), Some(&b"5"[..]));
    }
}
