//! What readers see of a log: its bounds, named values and latest records, in memory.
//!
//! Pure data, no disk and no lock; both implementations of the log stand on it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::StoreError;
use super::log::{LogKey, LogState, Purged, Record};

/// One change to the log.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Nothing but a place in the order.
    Barrier,
    Append(Vec<Record>),
    Truncate {
        from: u64,
    },
    Purge(Purged),
    Put(LogKey, Arc<[u8]>),
}

impl Change {
    /// Bytes that this change keeps in memory while it waits, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Append(entries) => entries.iter().map(|(_, record)| record.len()).sum(),
            Self::Purge(purged) => purged.marker.len(),
            Self::Put(_, value) => value.len(),
            Self::Barrier | Self::Truncate { .. } => 0,
        }
    }
}

#[derive(Clone)]
struct Kept {
    record: Arc<[u8]>,
    /// The change that brought it; durable once the writer has passed this ticket.
    ticket: u64,
}

/// Bounds, named values and the latest records.
#[derive(Default, Clone)]
pub(crate) struct Tail {
    first: u64,
    next: u64,
    purged: Option<Purged>,
    named: BTreeMap<LogKey, Arc<[u8]>>,
    /// The last records without a hole: `next - kept.len() .. next`.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// How often records were cut off, at either end.
    cuts: u64,
}

impl Tail {
    /// As found on disk: `live` are the indices of the records there, none of them kept in memory.
    pub(crate) fn restored(live: Range<u64>, purged: Option<Purged>, named: BTreeMap<LogKey, Arc<[u8]>>) -> Self {
        Self { first: live.start, next: live.end, purged, named, ..Self::default() }
    }

    pub(crate) fn state(&self) -> LogState {
        let filled = self.first < self.next;
        LogState {
            first: filled.then_some(self.first),
            last: filled.then(|| self.next - 1),
            purged: self.purged.clone(),
        }
    }

    pub(crate) fn named(&self, key: LogKey) -> Option<Arc<[u8]>> {
        self.named.get(&key).cloned()
    }

    pub(crate) fn set_named(&mut self, key: LogKey, value: Arc<[u8]>) {
        self.named.insert(key, value);
    }

    /// How often the log was cut: equal before and after means that what was read between belongs together.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Where the records in memory begin.
    pub(crate) fn kept_from(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    /// The part of `range` that exists.
    pub(crate) fn clip(&self, range: &Range<u64>) -> Range<u64> {
        range.start.max(self.first)..range.end.min(self.next)
    }

    /// Makes a change visible. Gives back the change that is left to write: a barrier if it changes nothing.
    pub(crate) fn accept(&mut self, change: Change, ticket: u64) -> Result<Change, StoreError> {
        let changed = match &change {
            Change::Barrier => false,
            Change::Append(entries) => self.append(entries, ticket)?,
            Change::Truncate { from } => self.truncate(*from),
            Change::Purge(purged) => self.purge(purged)?,
            Change::Put(key, value) => {
                self.set_named(*key, value.clone());
                true
            }
        };
        Ok(if changed { change } else { Change::Barrier })
    }

    /// Copies the records of `range`, which must be in memory, until `budget` is used up.
    pub(crate) fn copy(&self, range: Range<u64>, budget: &mut Budget, out: &mut Vec<Record>) {
        let from = self.kept_from();
        for index in range {
            let Some(kept) = index.checked_sub(from).and_then(|at| self.kept.get(usize::try_from(at).ok()?)) else {
                return;
            };
            if budget.is_used_up() {
                return;
            }
            budget.take(kept.record.len());
            out.push((index, kept.record.clone()));
        }
    }

    /// Forgets the oldest records in memory above the bounds, as far as they are durable.
    pub(crate) fn evict(&mut self, durable: u64, max_records: usize, max_bytes: usize) {
        while self.kept.len() > max_records || self.kept_bytes > max_bytes {
            match self.kept.front() {
                Some(kept) if kept.ticket <= durable => self.forget_front(),
                _ => return,
            }
        }
    }

    fn append(&mut self, entries: &[Record], ticket: u64) -> Result<bool, StoreError> {
        let Some((start, _)) = entries.first() else {
            return Ok(false);
        };
        let untouched = self.first == self.next && self.purged.is_none();
        let mut expected = if untouched { *start } else { self.next };
        for (index, _) in entries {
            // The last possible index stays free, so that `index + 1` can always be written down.
            if *index != expected || *index >= i64::MAX as u64 {
                return Err(StoreError::Hole { expected, found: *index });
            }
            expected += 1;
        }
        if untouched {
            self.first = *start;
        }
        self.next = expected;
        for (_, record) in entries {
            self.kept_bytes += record.len();
            self.kept.push_back(Kept { record: record.clone(), ticket });
        }
        Ok(true)
    }

    fn truncate(&mut self, from: u64) -> bool {
        let next = from.max(self.first);
        if next >= self.next {
            return false;
        }
        while self.next > next {
            self.next -= 1;
            if let Some(kept) = self.kept.pop_back() {
                self.kept_bytes -= kept.record.len();
            } else {
                self.next = next;
            }
        }
        self.cuts += 1;
        true
    }

    fn purge(&mut self, purged: &Purged) -> Result<bool, StoreError> {
        if self.purged.as_ref().is_some_and(|earlier| purged.index <= earlier.index) {
            return Ok(false);
        }
        let filled = self.first < self.next;
        let first = purged.index.saturating_add(1);
        if (filled && first < self.first) || first >= i64::MAX as u64 {
            return Err(StoreError::Hole { expected: self.first.saturating_sub(1), found: purged.index });
        }
        while self.kept_from() < first && !self.kept.is_empty() {
            self.forget_front();
        }
        self.first = first;
        self.next = self.next.max(first);
        self.purged = Some(purged.clone());
        self.cuts += 1;
        Ok(true)
    }

    fn forget_front(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.kept_bytes -= kept.record.len();
        }
    }
}

/// How many bytes a read may still give back. The first record is always given.
pub(crate) struct Budget {
    left: usize,
    fresh: bool,
}

impl Budget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { left: max_bytes, fresh: true }
    }

    pub(crate) fn is_used_up(&self) -> bool {
        !self.fresh && self.left == 0
    }

    pub(crate) fn take(&mut self, bytes: usize) {
        self.fresh = false;
        self.left = self.left.saturating_sub(bytes);
    }
}
