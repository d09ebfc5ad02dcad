//! Who leads, as the rest of the node sees it, and the time that a leader gives.

use std::sync::Arc;

use onespend_core::ids::{LogIndex, Millis};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tokio::time::Instant;

use super::observer::RaftObserver;
use super::propose::{Draft, ProposeError, Proposer};
use super::types::{Addresses, Applied, NodeId, Raft};
use super::view::StateView;
use crate::runtime;

/// A node that leads, or did until just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// Which node.
    pub node_id: NodeId,
    /// Where it is reached.
    pub addresses: Addresses,
    /// The term in which it leads; 0 when not known.
    pub term: u64,
}

/// Who leads.
#[derive(Debug, Clone, Default)]
pub enum Leadership {
    /// This node, and it has applied everything that was committed before its term.
    Leader(LeaderTerm),
    /// Another node.
    Follower(LeaderHint),
    /// Nobody that this node knows of; or this node, but not ready yet.
    #[default]
    Unknown,
}

impl Leadership {
    /// The term, if this node leads.
    pub fn leader_term(&self) -> Option<&LeaderTerm> {
        match self {
            Self::Leader(term) => Some(term),
            Self::Follower(_) | Self::Unknown => None,
        }
    }

    /// The other node that leads, if known.
    pub fn hint(&self) -> Option<&LeaderHint> {
        match self {
            Self::Follower(hint) => Some(hint),
            Self::Leader(_) | Self::Unknown => None,
        }
    }
}

/// This node's time as a leader: from one election to the next. Duties hold it, and propose through it alone. Once another
/// node leads, or this one was elected again, nothing that is proposed through it is committed.
#[derive(Clone)]
pub struct LeaderTerm {
    clock: Arc<TermClock>,
    /// How far the state was when this node was found to lead: at the first entry of the term, or beyond it.
    began: LogIndex,
    view: StateView,
    proposer: Proposer,
}

impl LeaderTerm {
    /// Its number.
    pub fn term(&self) -> u64 {
        self.clock.term
    }

    /// Logical time: the state's own, or what has passed since this node became leader, whichever is later. It moves only
    /// while a leader lives, and no wall clock is asked (safety 16).
    pub fn now(&self) -> Millis {
        self.clock.now(self.view.now())
    }

    /// Whether the entry at an index, which is applied here, is of this term, so that this node put it into the log as
    /// its leader. Call it while the state is read: then nothing is applied meanwhile. Of the first entries of a term
    /// it may say no.
    pub fn wrote(&self, index: LogIndex) -> bool {
        // Terms only grow along the log: between two entries of one term there are none of another.
        index > self.began && self.view.position().term == self.clock.term
    }

    /// Proposes on behalf of this term; see [`Proposer::propose`].
    ///
    /// # Errors
    /// As there; [`ProposeError::NotLeader`] also when this node leads again in a later term.
    pub async fn propose(&self, draft: Draft, deadline: Instant) -> Result<Applied, ProposeError> {
        self.proposer.propose_in(self.clock.term, draft, deadline).await
    }
}

impl std::fmt::Debug for LeaderTerm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LeaderTerm").field(&self.clock.term).finish()
    }
}

/// Logical time since the state had all earlier entries: `base` is its time then.
struct TermClock {
    term: u64,
    base: Millis,
    since: Instant,
}

impl TermClock {
    fn now(&self, state: Millis) -> Millis {
        let passed = runtime::now().saturating_duration_since(self.since);
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        state.max(Millis(self.base.0.saturating_add(passed)))
    }
}

/// Follows Raft and tells who leads, until Raft stops.
pub(crate) async fn follow(
    raft: Raft,
    view: StateView,
    proposer: Proposer,
    told: watch::Sender<Leadership>,
    observer: Arc<dyn RaftObserver>,
) {
    let mut server = raft.server_metrics();
    let mut position = view.watch_position();
    let mut last_leader = (None, 0);
    loop {
        // Cloned at once: holding the borrow would hold up Raft itself.
        let now = server.borrow_and_update().clone();
        let (term, applied) = (now.vote.leader_id.term, *position.borrow_and_update());
        if last_leader != (now.current_leader, term) {
            last_leader = (now.current_leader, term);
            observer.leader_changed(now.current_leader, term);
        }
        let leads = now.state == ServerState::Leader;
        if leads && applied.term == term {
            if told.borrow().leader_term().is_none_or(|known| known.term() != term) {
                let clock = TermClock { term, base: view.now(), since: runtime::now() };
                let (clock, view, proposer) = (Arc::new(clock), view.clone(), proposer.clone());
                told.send_replace(Leadership::Leader(LeaderTerm { clock, began: applied.index, view, proposer }));
            }
        } else {
            let other = now.current_leader.filter(|_| !leads);
            let hint = other.and_then(|node_id| {
                let addresses = now.membership_config.get_node(&node_id)?.clone();
                Some(LeaderHint { node_id, addresses, term })
            });
            let hint = hint.map_or(Leadership::Unknown, Leadership::Follower);
            told.send_if_modified(|known| {
                let same = known.leader_term().is_none() && known.hint() == hint.hint();
                if !same {
                    *known = hint;
                }
                !same
            });
        }
        let waits_for_own_entry = leads && applied.term != term;
        tokio::select! {
            biased;
            changed = server.changed() => if changed.is_err() { break },
            changed = position.changed(), if waits_for_own_entry => if changed.is_err() { break },
        }
    }
    told.send_replace(Leadership::Unknown);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// safety 16: time in the log is what it was, plus what has passed since.
    #[test]
    fn a_leaders_time_never_goes_back_and_never_waits_for_a_wall_clock() {
        let since = Instant::now() - Duration::from_millis(500);
        let clock = TermClock { term: 1, base: Millis(10_000), since };
        let first = clock.now(Millis(0));
        assert!(first >= Millis(10_500));
        assert!(clock.now(Millis(0)) >= first);
        assert_eq!(clock.now(Millis(90_000)), Millis(90_000));
    }
}
