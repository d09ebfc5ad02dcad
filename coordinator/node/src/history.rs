//! Who led, as this node learnt of it since it started. For people: nothing is decided by it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::health::LeadershipChange;

/// Changes of leadership that are remembered; the oldest go first.
const MAX_CHANGES: usize = 100;

/// The changes.
#[derive(Default)]
pub struct History(Mutex<VecDeque<(LeadershipChange, Instant)>>);

impl History {
    /// A node leads a term. What was noted last is not noted again.
    pub fn note(&self, term: u64, leader_id: u64) {
        let mut changes = self.lock();
        if changes.back().is_some_and(|(last, _)| last.term == term && last.leader_id == leader_id) {
            return;
        }
        if changes.len() == MAX_CHANGES {
            changes.pop_front();
        }
        let clock = crate::clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_unix_ms = u64::try_from(clock.as_millis()).unwrap_or(u64::MAX);
        changes.push_back((LeadershipChange { term, leader_id, at_unix_ms }, Instant::now()));
    }

    /// The changes, oldest first.
    pub fn changes(&self) -> Vec<LeadershipChange> {
        self.lock().iter().map(|(change, _)| change.clone()).collect()
    }

    /// How long ago this node learnt that a node leads a term; `None` if it was not noted, or is not the last that was.
    pub fn age(&self, term: u64, leader_id: u64) -> Option<Duration> {
        let changes = self.lock();
        let (last, at) = changes.back()?;
        (last.term == term && last.leader_id == leader_id).then(|| at.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(LeadershipChange, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaders(history: &History) -> Vec<(u64, u64)> {
        history.changes().iter().map(|change| (change.term, change.leader_id)).collect()
    }

    #[test]
    fn each_leader_is_noted_once_and_only_the_present_one_has_an_age() {
        let history = History::default();
        for (term, leader) in [(1, 2), (1, 2), (3, 1), (3, 1), (3, 1)] {
            history.note(term, leader);
        }
        assert_eq!(leaders(&history), [(1, 2), (3, 1)]);
        assert!(history.age(3, 1).is_some());
        assert_eq!((history.age(1, 2), history.age(3, 2), History::default().age(0, 0)), (None, None, None));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let history = History::default();
        (0..=MAX_CHANGES as u64).for_each(|term| history.note(term, 1));
        assert_eq!(leaders(&history).len(), MAX_CHANGES);
        assert_eq!(leaders(&history).first(), Some(&(1, 1)));
    }
}
