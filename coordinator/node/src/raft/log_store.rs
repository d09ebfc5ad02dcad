//! openraft's log storage over the port [`LogStore`]: encodes, and waits where openraft demands it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use onespend_adapters::store::{LogKey, LogStore, Record, StoreError};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use tokio::sync::oneshot;

use super::codec;
use super::lag::AppendTimes;
use super::types::{LogEntry, LogId, TypeConfig, Vote};
use crate::runtime::blocking;

/// One message to a replica carries records of at most this many bytes, unless a single one is larger.
const MAX_READ_BYTES: usize = 2 << 20;
/// Records so close to the end are in the store's memory (it keeps 8 192, or 8 MiB of them); older ones may have to
/// come from disk, which must not happen on the threads that serve everybody.
const HOT_RECORDS: u64 = 1_024;

/// The log of this node. Clones are the same log.
#[derive(Clone)]
pub(crate) struct RaftLog {
    store: Arc<dyn LogStore>,
    appended: AppendTimes,
}

impl RaftLog {
    pub(crate) fn new(store: Arc<dyn LogStore>, appended: AppendTimes) -> Self {
        Self { store, appended }
    }

    fn state(&self) -> io::Result<openraft::LogState<TypeConfig>> {
        let state = self.store.state();
        let purged = state.purged.map(|purged| codec::decode_log_id(&purged.marker)).transpose()?;
        let last = match state.last {
            None => purged,
            Some(last) => decode(&self.store.read(last..last + 1, 1).map_err(io_error)?)?.pop().map(|e| e.log_id()),
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<LogEntry>> {
        let end = self.store.state().last.map_or(0, |last| last + 1);
        if range.start.saturating_add(HOT_RECORDS) >= end {
            return decode(&self.store.read(range, max_bytes).map_err(io_error)?);
        }
        let store = Arc::clone(&self.store);
        let read = move || decode(&store.read(range, max_bytes).map_err(io_error)?);
        blocking(read).await.map_err(io::Error::other)?
    }

    fn vote(&self) -> io::Result<Option<Vote>> {
        self.store.get(LogKey::Vote).map(|bytes| codec::decode_vote(&bytes)).transpose()
    }
}

fn decode(records: &[Record]) -> io::Result<Vec<LogEntry>> {
    records.iter().map(|(_, record)| codec::decode_entry(record)).collect()
}

pub(crate) fn io_error(error: StoreError) -> io::Error {
    io::Error::other(error)
}

/// A change whose end nobody waits for: if it fails, the store has failed, and whoever watches the store stops the
/// node (see `RaftNode::wait_fatal`).
fn unawaited(_: Result<(), StoreError>) {}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        self.read(half_open(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.read(start..end, MAX_READ_BYTES).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.vote()
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<openraft::LogState<TypeConfig>> {
        self.state()
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, saved) = oneshot::channel();
        let tell = Box::new(move |result| drop(done.send(result)));
        self.store.put(LogKey::Vote, codec::encode_vote(vote)?, tell);
        saved.await.map_err(io::Error::other)?.map_err(io_error)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(id) = committed {
            self.store.put_lazily(LogKey::Committed, codec::encode_log_id(id)?);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.store.get(LogKey::Committed).map(|bytes| codec::decode_log_id(&bytes)).transpose()
    }

    /// Returns when the entries can be read; `flushed` hears when they are on disk. The store makes this wait only
    /// while 64 MiB are waiting for the disk, which proposals in flight are too few for (see [`super::propose`]).
    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries
            .into_iter()
            .map(|entry| Ok((entry.index(), codec::encode_entry(&entry)?.into())))
            .collect::<io::Result<Vec<Record>>>()?;
        if let Some((last, _)) = records.last() {
            self.appended.note(*last);
        }
        self.store.append(records, Box::new(move |result| flushed.io_completed(result.map_err(io_error))));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.store.truncate_from(last.map_or(0, |id| id.index + 1), Box::new(unawaited));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.store.purge_through(upto.index, codec::encode_log_id(upto)?, Box::new(unawaited));
        Ok(())
    }
}
