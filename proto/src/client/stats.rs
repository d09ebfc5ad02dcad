//! Counts of what a client did.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the client was made, over all its clones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Calls begun.
    pub calls: u64,
    /// Tries, at least one per call.
    pub tries: u64,
    /// Tries that went where a node said the leader is.
    pub hints_followed: u64,
    /// Tries that were sent and had no answer.
    pub tries_without_answer: u64,
    /// Tries that found nobody to connect to.
    pub tries_not_sent: u64,
    /// Calls that ended with outcome unknown.
    pub calls_unknown: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) calls: AtomicU64,
    pub(super) tries: AtomicU64,
    pub(super) hints_followed: AtomicU64,
    pub(super) tries_without_answer: AtomicU64,
    pub(super) tries_not_sent: AtomicU64,
    pub(super) calls_unknown: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            calls: read(&self.calls),
            tries: read(&self.tries),
            hints_followed: read(&self.hints_followed),
            tries_without_answer: read(&self.tries_without_answer),
            tries_not_sent: read(&self.tries_not_sent),
            calls_unknown: read(&self.calls_unknown),
        }
    }
}
