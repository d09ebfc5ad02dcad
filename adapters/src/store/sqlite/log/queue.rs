//! What is waiting to be written, and what readers see meanwhile, under one lock: so order and visibility agree.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::store::failure::{Failure, lock};
use crate::store::tail::{Change, Tail};
use crate::store::{Callback, LogKey, StoreError};

/// Callers wait while more than this is waiting to be written.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// And while more changes than this are waiting.
const MAX_WAITING_CHANGES: usize = 65_536;
/// One commit takes what is waiting until it holds this much.
const MAX_GROUP_BYTES: usize = 4 << 20;
/// And at most this many changes.
const MAX_GROUP_CHANGES: usize = 16_384;
/// Records that stay in memory behind the written ones, for readers.
const MAX_KEPT_RECORDS: usize = 8_192;
/// And at most this many bytes of them. What is not written yet always stays.
const MAX_KEPT_BYTES: usize = 8 << 20;

pub(super) struct Waiting {
    pub(super) change: Change,
    pub(super) done: Callback,
}

/// What one commit writes.
pub(super) struct Group {
    pub(super) changes: Vec<Waiting>,
    /// Lazy values, to be written after the changes.
    pub(super) lazy: BTreeMap<LogKey, Arc<[u8]>>,
    /// Everything up to this ticket is durable once the group is.
    ticket: u64,
}

/// What the writer should do next.
pub(super) enum Next {
    Write(Group),
    /// Nothing came for the given time.
    Idle,
    /// Stopped, and all is written.
    End,
}

struct Inner {
    tail: Tail,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    lazy: BTreeMap<LogKey, Arc<[u8]>>,
    /// Of the latest change that was accepted, and of the latest that the writer took.
    accepted: u64,
    taken: u64,
    stopping: bool,
    /// No writer is left to serve the queue.
    closed: bool,
}

impl Inner {
    fn is_full(&self) -> bool {
        self.waiting_bytes > MAX_WAITING_BYTES || self.waiting.len() > MAX_WAITING_CHANGES
    }

    fn take_group(&mut self) -> Group {
        let mut changes = Vec::new();
        let mut bytes = 0;
        while bytes < MAX_GROUP_BYTES && changes.len() < MAX_GROUP_CHANGES {
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            bytes += waiting.change.bytes();
            changes.push(waiting);
        }
        self.waiting_bytes -= bytes;
        self.taken += changes.len() as u64;
        // A lazy value may be older than a change that stays behind, but never gets to disk before it.
        let lazy = if self.waiting.is_empty() { std::mem::take(&mut self.lazy) } else { BTreeMap::new() };
        Group { changes, lazy, ticket: self.taken }
    }
}

pub(super) struct LogQueue {
    inner: Mutex<Inner>,
    work: Condvar,
    room: Condvar,
    failure: Failure,
}

impl LogQueue {
    pub(super) fn new(tail: Tail) -> Self {
        let inner = Inner {
            tail,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            lazy: BTreeMap::new(),
            accepted: 0,
            taken: 0,
            stopping: false,
            closed: false,
        };
        Self { inner: Mutex::new(inner), work: Condvar::new(), room: Condvar::new(), failure: Failure::default() }
    }

    pub(super) fn failure(&self) -> &Failure {
        &self.failure
    }

    pub(super) fn with_tail<T>(&self, look: impl FnOnce(&Tail) -> T) -> T {
        look(&lock(&self.inner).tail)
    }

    /// Changes that the writer has not taken yet.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.inner).waiting.len()
    }

    /// Makes a change visible and queues it, or refuses it. Blocks while the queue is full.
    pub(super) fn push(&self, change: Change, done: Callback) {
        let mut inner = lock(&self.inner);
        while inner.is_full() && !inner.stopping && !inner.closed {
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.stopping || inner.closed {
            drop(inner);
            return done(Err(self.failure.check().err().unwrap_or(StoreError::Stopped)));
        }
        let ticket = inner.accepted + 1;
        match inner.tail.accept(change, ticket) {
            Err(refused) => {
                drop(inner);
                done(Err(refused));
            }
            Ok(change) => {
                inner.accepted = ticket;
                inner.waiting_bytes += change.bytes();
                if let Change::Put(key, _) = &change {
                    inner.lazy.remove(key);
                }
                inner.waiting.push_back(Waiting { change, done });
                drop(inner);
                self.work.notify_one();
            }
        }
    }

    pub(super) fn put_lazily(&self, key: LogKey, value: Arc<[u8]>) {
        let mut inner = lock(&self.inner);
        if !inner.stopping && !inner.closed {
            inner.tail.set_named(key, value.clone());
            inner.lazy.insert(key, value);
        }
    }

    /// Waits for something to write, but not longer than `patience`.
    pub(super) fn next(&self, patience: Option<Duration>) -> Next {
        let mut inner = lock(&self.inner);
        loop {
            if !inner.waiting.is_empty() {
                let group = inner.take_group();
                drop(inner);
                self.room.notify_all();
                return Next::Write(group);
            }
            if inner.stopping {
                return if inner.lazy.is_empty() { Next::End } else { Next::Write(inner.take_group()) };
            }
            let Some(patience) = patience else {
                inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (woken, waited) = self.work.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
            inner = woken;
            if waited.timed_out() && inner.waiting.is_empty() && !inner.stopping {
                return Next::Idle;
            }
        }
    }

    /// The group is durable: its records may leave the memory.
    pub(super) fn settle(&self, group: &Group) {
        lock(&self.inner).tail.evict(group.ticket, MAX_KEPT_RECORDS, MAX_KEPT_BYTES);
    }

    /// No more changes; the writer ends when it has written what is waiting.
    pub(super) fn stop(&self) {
        lock(&self.inner).stopping = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// The writer ends. Whatever is waiting hears of the failure, in order.
    pub(super) fn close(&self) {
        let left = {
            let mut inner = lock(&self.inner);
            inner.closed = true;
            std::mem::take(&mut inner.waiting)
        };
        self.room.notify_all();
        for waiting in left {
            (waiting.done)(Err(self.failure.check().err().unwrap_or(StoreError::Stopped)));
        }
    }
}
