//! How long entries take from this node's log to its state.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Appends that are remembered at most; beyond that the oldest are forgotten, and only a metric loses.
const MAX_REMEMBERED: usize = 4_096;

/// When entries were appended on this node, until they are applied.
#[derive(Clone, Default)]
pub(crate) struct AppendTimes(Arc<Mutex<VecDeque<(u64, Instant)>>>);

impl AppendTimes {
    /// Entries up to `last` were handed to the log just now.
    pub(crate) fn note(&self, last: u64) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A new leader may have cut off what was appended before.
        while times.back().is_some_and(|(index, _)| *index >= last) {
            times.pop_back();
        }
        if times.len() == MAX_REMEMBERED {
            times.pop_front();
        }
        times.push_back((last, Instant::now()));
    }

    /// Entries up to `applied` are in the state: how long the one that waited longest took. `None` for entries of an
    /// earlier life of this process.
    pub(crate) fn take(&self, applied: u64) -> Option<Duration> {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut oldest = None;
        while let Some((_, at)) = times.pop_front_if(|(last, _)| *last <= applied) {
            oldest.get_or_insert(at);
        }
        oldest.map(|at| at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_once_it_is_applied_whole() {
        let times = AppendTimes::default();
        times.note(5);
        times.note(9);
        assert_eq!(times.take(4), None);
        assert!(times.take(5).is_some());
        assert_eq!(times.take(5), None);
        assert!(times.take(20).is_some());
    }

    #[test]
    fn what_was_cut_off_is_forgotten_and_the_memory_is_bounded() {
        let times = AppendTimes::default();
        for index in 0..2 * MAX_REMEMBERED as u64 {
            times.note(index);
        }
        assert_eq!(times.0.lock().unwrap_or_else(PoisonError::into_inner).len(), MAX_REMEMBERED);
        times.note(3);
        assert_eq!(times.0.lock().unwrap_or_else(PoisonError::into_inner).len(), 1);
    }
}
