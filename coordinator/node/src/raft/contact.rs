//! When this node last heard a leader whose appends it accepts, and when it last had everything that the leader knew
//! to be committed. openraft keeps naming a leader long after contact is lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Accepted appends that wait until this node has applied up to their commit index, at most. While there are so many, later
/// ones are not noted: to forget the oldest instead would leave a node that is far behind without any that it reaches.
const MAX_PENDING: usize = 256;

/// What was heard. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Contact(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    last: Option<Instant>,
    pending: VecDeque<(Instant, u64)>,
    caught_up: Option<Instant>,
}

impl Contact {
    /// An append that arrived at `at`, when its leader had committed up to `commit`, was accepted.
    pub(crate) fn accepted(&self, at: Instant, commit: u64) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.last = heard.last.max(Some(at));
        if heard.pending.len() < MAX_PENDING {
            heard.pending.push_back((at, commit));
        }
    }

    /// When a leader was last heard.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// The latest moment of which it is known that a node that has applied up to `applied` had all that was committed.
    pub(crate) fn caught_up_at(&self, applied: u64) -> Option<Instant> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, _)) = heard.pending.front().copied().filter(|(_, commit)| *commit <= applied) {
            heard.caught_up = heard.caught_up.max(Some(at));
            heard.pending.pop_front();
        }
        heard.caught_up
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_node_has_caught_up_with_an_append_once_it_has_applied_its_commit_index() {
        let contact = Contact::default();
        let first = Instant::now();
        let second = first + Duration::from_millis(40);
        contact.accepted(first, 10);
        contact.accepted(second, 12);
        assert_eq!(contact.heard_at(), Some(second));
        assert_eq!(contact.caught_up_at(9), None);
        assert_eq!(contact.caught_up_at(11), Some(first));
        assert_eq!(contact.caught_up_at(12), Some(second));
        assert_eq!(contact.caught_up_at(12), Some(second));
    }

    #[test]
    fn a_node_that_is_behind_under_steady_load_still_learns_its_age() {
        let (contact, begun) = (Contact::default(), Instant::now());
        let at = |append: u64| begun + Duration::from_millis(append);
        // It applies what was committed 2000 appends ago, which is more than are remembered.
        let mut known = None;
        for append in 1..=10_000 {
            contact.accepted(at(append), append);
            known = contact.caught_up_at(append.saturating_sub(2000));
        }
        assert!(known.is_some_and(|known| known >= at(5000)), "{:?}", known.map(|known| known - begun));
    }
}
