//! When the other nodes were sent what they answered: whether a leader still has a quorum rests on it.
//!
//! openraft keeps such times too. There an answer counts also for later appends that end with the same entry and are still
//! on their way; so a leader that was frozen while an append was unanswered takes the old answer, once it goes on, for one to
//! what it sends then, and seems to have a quorum that has long elected another. Here an answer counts for the append
//! that it answers: answers come in the order of the appends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};

use super::types::{NodeId, TypeConfig};
use crate::runtime;

/// An append that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The term of its leader.
    term: u64,
    at: Instant,
}

impl Sent {
    /// To be taken before it is sent: a node that stands still in between must not seem to have sent it later.
    pub(crate) fn now(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Self { term: request.vote.leader_id.term, at: runtime::now().into_std() }
    }
}

/// The latest append that each node has answered. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Acks(Arc<Mutex<BTreeMap<NodeId, Answered>>>);

#[derive(Debug, Clone, Copy)]
struct Answered {
    sent: Sent,
    /// What the node's clock showed in its answer; see [`super::contact::MomentClock`].
    moment: u64,
}

impl Acks {
    /// Takes note of an answer. One that says that there is a higher term is none to a leader.
    pub(crate) fn note(&self, node: NodeId, sent: Sent, answer: &StreamAppendResult<TypeConfig>, moment: u64) {
        if matches!(answer, Err(StreamAppendError::HigherVote(_))) {
            return;
        }
        let answered = Answered { sent, moment };
        let mut acks = self.lock();
        let known = acks.entry(node).or_insert(answered);
        if (sent.term, sent.at) > (known.sent.term, known.sent.at) {
            *known = answered;
        }
    }

    /// When the latest append of the leader of that term was sent that the node has answered.
    pub(crate) fn of(&self, node: NodeId, term: u64) -> Option<Instant> {
        self.lock().get(&node).filter(|known| known.sent.term == term).map(|known| known.sent.at)
    }

    /// What the node's clock showed in its latest answer; 0 if there was none.
    pub(crate) fn moment(&self, node: NodeId) -> u64 {
        self.lock().get(&node).map_or(0, |known| known.moment)
    }

    /// The latest moment such that a majority of each of the sets of voters has answered what was sent then or later, by the
    /// leader of that term, which is `own` and answers itself at once.
    pub(crate) fn quorum(&self, own: NodeId, term: u64, sets: &[BTreeSet<NodeId>]) -> Option<Instant> {
        let now = runtime::now().into_std();
        let majority = |voters: &BTreeSet<NodeId>| {
            let answered = |node: &NodeId| if *node == own { Some(now) } else { self.of(*node, term) };
            let mut times: Vec<Instant> = voters.iter().filter_map(answered).collect();
            times.sort_unstable_by(|one, other| other.cmp(one));
            times.get(voters.len() / 2).copied()
        };
        sets.iter().map(majority).min().flatten()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Answered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The appends of one stream that are not answered yet. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Unanswered(Arc<Mutex<VecDeque<Sent>>>);

impl Unanswered {
    /// One is about to be sent.
    pub(crate) fn push(&self, sent: Sent) {
        self.lock().push_back(sent);
    }

    /// The one that the next answer answers.
    pub(crate) fn pop(&self) -> Option<Sent> {
        self.lock().pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::raft::types::Vote;

    /// The leader itself answers now, which is after all that the tests speak of.
    fn a_while_ago() -> Instant {
        Instant::now().checked_sub(Duration::from_secs(20)).unwrap()
    }

    fn sets(of: &[&[NodeId]]) -> Vec<BTreeSet<NodeId>> {
        of.iter().map(|set| set.iter().copied().collect()).collect()
    }

    #[test]
    fn a_quorum_is_as_old_as_the_oldest_answer_that_it_needs() {
        let (acks, first) = (Acks::default(), a_while_ago());
        let at = |ms| first + Duration::from_millis(ms);
        let note = |node, ms| acks.note(node, Sent { term: 2, at: at(ms) }, &Ok(None), 0);
        assert_eq!(acks.quorum(1, 2, &sets(&[&[1, 2, 3]])), None);
        note(2, 10);
        assert_eq!(acks.quorum(1, 2, &sets(&[&[1, 2, 3]])), Some(at(10)));
        note(3, 30);
        note(2, 5);
        assert_eq!(acks.quorum(1, 2, &sets(&[&[1, 2, 3]])), Some(at(30)), "either of two is enough");
        assert_eq!(acks.quorum(1, 2, &sets(&[&[1, 2, 3, 4, 5]])), Some(at(10)), "both are needed");
        assert_eq!(acks.quorum(1, 2, &sets(&[&[1, 2, 3], &[1, 2, 4]])), Some(at(10)), "joint: of both sets");
        assert_eq!(acks.quorum(1, 2, &sets(&[&[1, 2, 3], &[1, 4, 5]])), None);
        assert_eq!(acks.quorum(1, 2, &sets(&[&[2, 3, 4]])), Some(at(10)), "a leader that is no voter any more");
        assert!(acks.quorum(1, 2, &sets(&[&[1]])).unwrap() >= first, "a single voter is its own quorum");
    }

    #[test]
    fn answers_to_the_leader_of_another_term_count_for_nothing() {
        let (acks, at) = (Acks::default(), Instant::now());
        let later = at + Duration::from_secs(1);
        acks.note(2, Sent { term: 2, at }, &Ok(None), 0);
        assert_eq!(acks.quorum(1, 3, &sets(&[&[1, 2, 3]])), None);
        acks.note(2, Sent { term: 3, at }, &Err(StreamAppendError::HigherVote(Vote::new(4, 2))), 0);
        assert_eq!(acks.of(2, 3), None, "it has another leader");
        acks.note(2, Sent { term: 3, at }, &Ok(None), 0);
        acks.note(2, Sent { term: 2, at: later }, &Ok(None), 0);
        assert_eq!((acks.of(2, 3), acks.of(2, 2)), (Some(at), None));
    }

    /// The leader is frozen with one append unanswered, and sends another when it goes on: the answer is to the first.
    #[test]
    fn an_answer_counts_for_the_append_that_it_answers() {
        let (acks, unanswered, before) = (Acks::default(), Unanswered::default(), a_while_ago());
        let after = before + Duration::from_secs(9);
        unanswered.push(Sent { term: 2, at: before });
        unanswered.push(Sent { term: 2, at: after });
        acks.note(2, unanswered.pop().unwrap(), &Ok(None), 0);
        assert_eq!(acks.quorum(1, 2, &sets(&[&[1, 2, 3]])), Some(before));
        assert!(!unanswered.is_empty());
        acks.note(2, unanswered.pop().unwrap(), &Ok(None), 0);
        assert_eq!(acks.quorum(1, 2, &sets(&[&[1, 2, 3]])), Some(after));
        assert!(unanswered.is_empty() && unanswered.pop().is_none());
    }
}
