//! When this node last heard a leader whose appends it accepts, and when it last had everything that was committed. openraft
//! keeps naming a leader long after contact is lost; and who is heard may have been deposed long ago, or its messages may
//! have been long on their way, so that one came says little of how new it is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use onespend_proto::peer::v1::AppendStreamRequest;

use crate::runtime;

/// Appends that wait until this node has applied up to their commit index, at most. While there are so many, later ones
/// are not noted: to forget the oldest instead would leave a node that is far behind without any that it reaches.
const MAX_PENDING: usize = 256;

/// What was heard. Clones share it.
#[derive(Clone)]
pub(crate) struct Contact {
    heard: Arc<Mutex<Heard>>,
    clock: MomentClock,
}

#[derive(Default)]
struct Heard {
    last: Option<Instant>,
    pending: VecDeque<(Instant, u64)>,
    caught_up: Option<Instant>,
}

impl Contact {
    /// Nobody was heard yet.
    pub(crate) fn new() -> Self {
        Self { heard: Arc::default(), clock: MomentClock::begin() }
    }

    /// The clock that this node's answers to appends carry.
    pub(crate) fn clock(&self) -> MomentClock {
        self.clock
    }

    /// An append that arrived at `at` was accepted. `fresh` is a moment up to which all that anybody had committed is within
    /// `commit`, where that is known.
    pub(crate) fn accepted(&self, at: Instant, fresh: Option<Instant>, commit: u64) {
        let mut heard = self.lock();
        heard.last = heard.last.max(Some(at));
        let Some(fresh) = fresh else { return };
        if heard.pending.len() < MAX_PENDING {
            heard.pending.push_back((fresh, commit));
        }
    }

    /// When a leader was last heard.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        self.lock().last
    }

    /// The latest moment of which it is known that a node that has applied up to `applied` had all that was committed.
    pub(crate) fn caught_up_at(&self, applied: u64) -> Option<Instant> {
        let mut heard = self.lock();
        while let Some((at, _)) = heard.pending.front().copied().filter(|(_, commit)| *commit <= applied) {
            heard.caught_up = heard.caught_up.max(Some(at));
            heard.pending.pop_front();
        }
        heard.caught_up
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock that only this process can read: what it shows travels to a leader and comes back, which says how old the
/// leader's message is at most, however long it was on its way. Microseconds from a beginning that no other process has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MomentClock {
    began: Instant,
    first: u64,
}

impl MomentClock {
    fn begin() -> Self {
        Self { began: runtime::now().into_std(), first: uuid::Uuid::new_v4().as_u64_pair().0 / 4 + 1 }
    }

    /// What it shows now.
    pub(crate) fn shows(self) -> u64 {
        let since = runtime::now().into_std().saturating_duration_since(self.began);
        self.first.saturating_add(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// The moment up to which an append's commit index is complete; `None` if it does not say, or speaks to a process
    /// before this one.
    pub(crate) fn fresh_at(self, append: &AppendStreamRequest) -> Option<Instant> {
        let since = append.heard_moment.checked_sub(self.first).filter(|_| append.heard_moment <= self.shows())?;
        let answered = self.began.checked_add(Duration::from_micros(since))?;
        answered.checked_sub(Duration::from_micros(append.quorum_age_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_caught_up_with_a_heartbeat_once_it_has_applied_its_commit_index() {
        let contact = Contact::new();
        let first = Instant::now();
        let second = first + Duration::from_millis(40);
        contact.accepted(first, Some(first), 10);
        contact.accepted(second, Some(second), 12);
        contact.accepted(second, None, 13);
        assert_eq!(contact.heard_at(), Some(second));
        assert_eq!(contact.caught_up_at(9), None);
        assert_eq!(contact.caught_up_at(11), Some(first));
        assert_eq!(contact.caught_up_at(12), Some(second));
        assert_eq!(contact.caught_up_at(12), Some(second));
    }

    #[test]
    fn a_node_that_is_behind_under_steady_load_still_learns_its_age() {
        let (contact, begun) = (Contact::new(), Instant::now());
        let at = |append: u64| begun + Duration::from_millis(append);
        // It applies what was committed 2000 heartbeats ago, which is more than are remembered.
        let mut known = None;
        for append in 1..=10_000 {
            contact.accepted(at(append), Some(at(append)), append);
            known = contact.caught_up_at(append.saturating_sub(2000));
        }
        assert!(known.is_some_and(|known| known >= at(5000)), "{:?}", known.map(|known| known - begun));
    }

    fn heartbeat(heard_moment: u64, quorum_age_us: u64) -> AppendStreamRequest {
        AppendStreamRequest { heard_moment, quorum_age_us, ..AppendStreamRequest::default() }
    }

    #[test]
    fn a_heartbeat_is_as_old_as_the_answer_that_it_knows_of_and_the_quorum_behind_it() {
        let began = Instant::now().checked_sub(Duration::from_mins(1)).expect("the machine is up for a minute");
        let clock = MomentClock { began, first: 500 };
        let second = 1_000_000;
        assert_eq!(clock.fresh_at(&heartbeat(500 + 7 * second, 0)), Some(began + Duration::from_secs(7)));
        // One that was deposed goes on sending, and being answered by who has not heard of it.
        let deposed = clock.fresh_at(&heartbeat(500 + 50 * second, 40 * second));
        assert_eq!(deposed, Some(began + Duration::from_secs(10)));
        for nothing in [0, 499, clock.shows() + second] {
            assert_eq!(clock.fresh_at(&heartbeat(nothing, 0)), None, "{nothing}");
        }
    }
}
