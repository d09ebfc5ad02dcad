//! openraft's state machine: the core's `apply` on the state in memory. Its rows are written behind.
//!
//! `apply` never waits for a disk, unless the disk is so far behind that memory would grow without bound. What a crash
//! loses of the rows is replayed from the log, which is purged only up to a durable snapshot.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::{FutureExt, Stream, StreamExt};
use onespend_adapters::store::{RowBatch, RowChange, StateStore, StoreError, WriteBehind, WriteBehindOptions};
use onespend_core::apply::{apply, skip};
use onespend_core::command::{Command, Entry};
use onespend_core::ids::LogIndex;
use onespend_core::outcome::Outcome;
use onespend_core::state::State;
use onespend_core::table::StoredRow;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use super::codec::{self, Marker};
use super::lag::AppendTimes;
use super::log_store::io_error;
use super::observer::RaftObserver;
use super::types::{Applied, LogEntry, LogId, Snapshot, SnapshotFile, SnapshotMeta, StoredMembership, TypeConfig};
use super::view::{HASH_EVERY, HashAt, News, Position, StateView};
use crate::{feature_level, runtime};

/// The state is locked for writing while so many entries are applied.
const MAX_LOCKED_ENTRIES: usize = 64;
/// Batches of rows that may wait for the disk before entries do. A batch holds the rows of at most 64 entries.
const MAX_UNWRITTEN_BATCHES: u64 = 4_096;

/// The latest durable snapshot; known without asking the store, which may be busy making the next one.
type CurrentSnapshot = Arc<Mutex<Option<Snapshot>>>;

/// The state machine of this node.
pub(crate) struct StateMachine {
    view: StateView,
    marker: Marker,
    store: Arc<dyn StateStore>,
    behind: Arc<WriteBehind>,
    current: CurrentSnapshot,
    appended: AppendTimes,
    observer: Arc<dyn RaftObserver>,
    gone: CancellationToken,
    _tells_when_gone: DropGuard,
}

/// What was done under the lock, to be told after it.
struct Done {
    answers: Vec<(ApplyResponder<TypeConfig>, Applied)>,
    news: News,
    rows: Vec<StoredRow>,
}

impl StateMachine {
    /// Loads the state as it was stored last.
    pub(crate) fn open(
        store: Arc<dyn StateStore>,
        appended: AppendTimes,
        observer: Arc<dyn RaftObserver>,
    ) -> io::Result<Self> {
        let (state, marker) = load(&*store)?;
        let current = store.current_snapshot().map_err(io_error)?.map(snapshot_of).transpose()?;
        let behind = WriteBehind::start(Arc::clone(&store), WriteBehindOptions::default()).map_err(io_error)?;
        let gone = CancellationToken::new();
        let view = StateView::new(state, position(marker.applied));
        view.set_used_ids(marker.used_ids());
        Ok(Self {
            view,
            marker,
            store,
            behind: Arc::new(behind),
            current: Arc::new(Mutex::new(current)),
            appended,
            observer,
            _tells_when_gone: gone.clone().drop_guard(),
            gone,
        })
    }

    pub(crate) fn view(&self) -> &StateView {
        &self.view
    }

    /// What writes the rows; to be stopped after Raft.
    pub(crate) fn behind(&self) -> Arc<WriteBehind> {
        Arc::clone(&self.behind)
    }

    /// Cancelled when this value is dropped: nothing is applied any more.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    fn apply_some(&mut self, entries: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        refuse_unreadable(&entries)?;
        let Some(last) = entries.last().map(|(entry, _)| entry.log_id) else { return Ok(()) };
        let count = entries.len() as u64;
        let mut memberships = Vec::new();
        let view = self.view.clone();
        let done = view.change(|state| {
            let before = state.applied();
            let mut done = Done { answers: Vec::new(), news: News::default(), rows: Vec::new() };
            for (entry, responder) in entries {
                let outcome = apply_one(state, &entry, &mut done.news)?;
                if entry.log_id.index.is_multiple_of(HASH_EVERY) {
                    view.note_hash(HashAt { index: LogIndex(entry.log_id.index), hash: state.hash() });
                }
                if let Some(responder) = responder {
                    let (index, term) = (LogIndex(entry.log_id.index), entry.log_id.leader_id.term);
                    done.answers.push((responder, Applied { outcome, index, term }));
                }
                if let EntryPayload::Membership(membership) = entry.payload {
                    memberships.push((entry.log_id, membership));
                }
            }
            done.news.upto = state.applied();
            done.news.payments = state.payments_changed_after(before, None).map(|(_, key)| key.clone()).collect();
            done.rows = state.drain_changes();
            view.reach(position(Some(last)));
            Ok::<_, io::Error>(done)
        })?;
        self.marker.applied = Some(last);
        for (at, membership) in memberships {
            self.marker.change_members(at, membership);
        }
        view.set_used_ids(self.marker.used_ids());
        self.behind.submit(batch(&self.marker, done.rows)?).map_err(io_error)?;
        view.publish(done.news);
        for (responder, applied) in done.answers {
            responder.send(applied);
        }
        self.observer.applied(count, self.appended.take(last.index));
        Ok(())
    }

    /// Waits while the disk is far behind; entries then wait in the log, and callers for their answers.
    async fn wait_for_disk(&self) -> io::Result<()> {
        if self.behind.lag() < MAX_UNWRITTEN_BATCHES {
            return Ok(());
        }
        let behind = Arc::clone(&self.behind);
        blocking(move || behind.flush()).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> io::Result<T> {
    runtime::blocking(work).await.map_err(io::Error::other)?.map_err(io_error)
}

/// An unknown command stops the node; it is never skipped (safety 32). Decodes before the state is locked.
fn refuse_unreadable(entries: &[EntryResponder<TypeConfig>]) -> io::Result<()> {
    entries.iter().try_for_each(|(entry, _)| check_readable(entry))
}

/// Refuses an entry that this version does not know.
pub(super) fn check_readable(entry: &LogEntry) -> io::Result<()> {
    let EntryPayload::Normal(proposal) = &entry.payload else { return Ok(()) };
    match proposal.entry() {
        Err(unreadable) => {
            let what = format!("log entry {}: {unreadable}", entry.log_id);
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
        Ok(Entry { command: Command::RaiseFeatureLevel { level }, .. }) => {
            feature_level::check(*level).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
        }
        Ok(_) => Ok(()),
    }
}

pub(super) fn apply_one(state: &mut State, entry: &LogEntry, news: &mut News) -> io::Result<Outcome> {
    let index = LogIndex(entry.log_id.index);
    let EntryPayload::Normal(proposal) = &entry.payload else {
        skip(state, index);
        return Ok(Outcome::Recorded);
    };
    let command = proposal.entry().map_err(|unreadable| io::Error::other(unreadable.clone()))?;
    let outcome = apply(state, index, command);
    match (&command.command, &outcome) {
        (_, Outcome::Rejected(_)) => {}
        (_, Outcome::Permitted { payment, attempt }) => news.permitted.push((payment.clone(), *attempt)),
        (_, Outcome::WalletChanged | Outcome::AddressesGiven { .. }) => news.wallets = true,
        (Command::Start { .. } | Command::ConnectBlock { .. } | Command::DisconnectBlock { .. }, _) => {
            news.chain = true;
        }
        _ => {}
    }
    Ok(outcome)
}

pub(super) fn position(applied: Option<LogId>) -> Position {
    applied.map_or(Position::default(), |id| Position { index: LogIndex(id.index), term: id.leader_id.term })
}

pub(super) fn batch(marker: &Marker, rows: Vec<StoredRow>) -> io::Result<RowBatch> {
    let change = |StoredRow { table, key, value }| RowChange { table, key, value };
    Ok(RowBatch { marker: codec::encode_marker(marker)?, rows: rows.into_iter().map(change).collect() })
}

/// Reads the whole state back.
pub(super) fn load(store: &dyn StateStore) -> io::Result<(State, Marker)> {
    let mut state = State::default();
    let mut visit = |row: onespend_adapters::store::Row<'_>| {
        state.load_row(row.table, row.key, row.value).map_err(|unreadable| unreadable.to_string())
    };
    let marker = store.load(&mut visit).map_err(io_error)?;
    feature_level::check(state.feature_level()).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    state.finish_loading();
    if let Some(marker) = marker {
        return Ok((state, codec::decode_marker(&marker)?));
    }
    // A fresh node writes that it knows nothing, so that from here on there always is something to make a snapshot of.
    let nothing = Marker::default();
    store.write(&batch(&nothing, state.drain_changes())?).map_err(io_error)?;
    Ok((state, nothing))
}

fn snapshot_of(file: SnapshotFile) -> io::Result<Snapshot> {
    let marker = codec::decode_marker(&file.digest.marker)?;
    Ok(Snapshot { meta: marker.snapshot_meta(), snapshot: file })
}

fn set_current(current: &CurrentSnapshot, snapshot: &Snapshot) {
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    // A snapshot that took long to make may be older than one that was installed meanwhile.
    if current.as_ref().is_none_or(|known| known.meta.last_log_id <= snapshot.meta.last_log_id) {
        *current = Some(snapshot.clone());
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.marker.applied, self.marker.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let mut some = vec![first?];
            while some.len() < MAX_LOCKED_ENTRIES
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                some.push(next?);
            }
            self.apply_some(some)?;
            self.wait_for_disk().await?;
        }
        Ok(())
    }

    /// Without room for one the log goes on growing: it takes less, and an attempt that fails would end the node.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        let store = Arc::clone(&self.store);
        let has_room = force || runtime::blocking(move || store.has_room_for_snapshot()).await.unwrap_or(true);
        if !has_room {
            warn!("no snapshot is made, and the log is not purged: the disk has too little room for one");
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            store: Arc::clone(&self.store),
            behind: Arc::clone(&self.behind),
            current: Arc::clone(&self.current),
            observer: Arc::clone(&self.observer),
        }
    }

    /// The store verifies before it touches anything; what came over the wire was verified once before, because an error
    /// here stops the node.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let (store, behind) = (Arc::clone(&self.store), Arc::clone(&self.behind));
        let install = move || {
            behind.flush().map_err(io_error)?;
            let placed = store.install(&snapshot).map_err(io_error)?;
            let (state, marker) = load(&*store)?;
            io::Result::Ok((placed, state, marker))
        };
        let (placed, state, marker) = runtime::blocking(install).await.map_err(io::Error::other)??;
        if marker.applied != meta.last_log_id {
            return Err(io::Error::other("the snapshot holds another place in the history than was announced"));
        }
        set_current(&self.current, &snapshot_of(placed)?);
        let news = News { upto: state.applied(), replaced: true, ..News::default() };
        self.view.change(|old| {
            *old = state;
            self.view.reach(position(marker.applied));
        });
        self.view.set_used_ids(marker.used_ids());
        self.view.publish(news);
        self.marker = marker;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.current.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Makes a snapshot beside the running state machine. It may hold later entries than were applied when it was asked for.
pub(crate) struct SnapshotBuilder {
    store: Arc<dyn StateStore>,
    behind: Arc<WriteBehind>,
    current: CurrentSnapshot,
    observer: Arc<dyn RaftObserver>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let started = Instant::now();
        let (store, behind) = (Arc::clone(&self.store), Arc::clone(&self.behind));
        let make = move || {
            behind.flush()?;
            store.snapshot()
        };
        let file = blocking(make).await?.ok_or_else(|| io::Error::other("there is no state yet"))?;
        self.observer.snapshot_made(file.digest.size_bytes, started.elapsed());
        let snapshot = snapshot_of(file)?;
        set_current(&self.current, &snapshot);
        Ok(snapshot)
    }
}
