//! This node's replica, as requests and duties use it: reading the state, proposing changes, and who leads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onespend_core::command::{Command, Request};
use onespend_core::ids::Millis;
use onespend_core::outcome::Outcome;
use onespend_core::state::State;
use tokio::sync::watch;

use crate::history::History;
use crate::raft::{
    Abstention, Addresses, Applied, Draft, HashAt, LeaderHint, LeaderTerm, Leadership, Position, ProposeError,
    RaftFatal, RaftNode, RaftStatus, ReadError, TransferError,
};
use crate::runtime;

/// How long a duty waits for one of its proposals.
const DUTY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether the lead has moved.
const LEADER_POLL: Duration = Duration::from_millis(5);

/// The replica.
pub struct Replica {
    raft: RaftNode,
    own: LeaderHint,
    /// It is about to stop.
    draining: AtomicBool,
    /// An operator took it out of rotation.
    drained: AtomicBool,
    history: History,
}

impl Replica {
    /// Over a running Raft node. `own` is how others reach this one.
    pub fn new(raft: RaftNode, own: LeaderHint) -> Self {
        Self {
            raft,
            own,
            draining: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            history: History::default(),
        }
    }

    /// Raft itself.
    pub fn raft(&self) -> &RaftNode {
        &self.raft
    }

    /// Reads the state; keep it short.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        self.raft.view().read(look)
    }

    /// Logical time: as leader what a proposal would carry, else the state's.
    pub fn now(&self) -> Millis {
        self.leader_term().map_or_else(|| self.raft.view().now(), |term| term.now())
    }

    /// The term that this node leads, once it has applied an entry of its own term: then it knows all that was
    /// acknowledged before.
    pub fn leader_term(&self) -> Option<LeaderTerm> {
        self.raft.leadership().borrow().leader_term().cloned()
    }

    /// The terms that this node leads, as they come and go.
    pub fn leaderships(&self) -> watch::Receiver<Leadership> {
        self.raft.leadership()
    }

    /// Whether this node leads and may answer for what earlier leaders acknowledged. While no leader is known, waits
    /// for one.
    pub async fn leads_ready(&self, wait: Duration) -> bool {
        let mut leadership = self.raft.leadership();
        let settled = leadership.wait_for(|now| !matches!(now, Leadership::Unknown));
        let leads = runtime::timeout(wait, settled).await;
        matches!(leads, Ok(Ok(now)) if now.leader_term().is_some())
    }

    /// Who leads, as far as this node knows.
    pub fn leader_hint(&self) -> Option<LeaderHint> {
        match &*self.raft.leadership().borrow() {
            Leadership::Leader(term) => Some(LeaderHint { term: term.term(), ..self.own.clone() }),
            Leadership::Follower(hint) => Some(hint.clone()),
            Leadership::Unknown => None,
        }
    }

    /// Waits until this node no longer takes that one for the leader of its term.
    pub async fn lost(&self, leader: &LeaderHint) {
        let mut leadership = self.raft.leadership();
        let is_other = |hint: &LeaderHint| (hint.node_id, hint.term) != (leader.node_id, leader.term);
        // An error says that Raft has stopped, so nobody leads as far as this node will ever know.
        let _ = leadership.wait_for(|now| now.hint().is_none_or(is_other)).await;
    }

    /// Proposes what a caller asks.
    ///
    /// # Errors
    /// [`ProposeError`] says whether it may have been applied.
    pub async fn propose(
        &self,
        request: Option<Request>,
        command: Command,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        self.raft.proposer().propose(Draft { request, command }, deadline.into()).await
    }

    /// Proposes as a duty of a term: once the term is over, nothing is committed.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose_as(&self, term: &LeaderTerm, command: Command) -> Result<Applied, ProposeError> {
        term.propose(Draft::duty(command), runtime::now() + DUTY_TIMEOUT).await
    }

    /// An outcome that was decided earlier, as of now.
    pub fn applied(&self, outcome: Outcome) -> Applied {
        let Position { index, term } = self.raft.view().position();
        Applied { outcome, index, term }
    }

    /// Waits until this node, as leader, may answer a read that sees everything acknowledged before.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn linearizable(&self, deadline: Instant) -> Result<(), ReadError> {
        self.raft.linearizable(deadline.into()).await
    }

    /// Waits, as leader, until every entry that was handed to the log before the call is applied or can never be.
    ///
    /// # Errors
    /// [`ReadError`]: some may still come.
    pub async fn all_decided(&self, deadline: Instant) -> Result<(), ReadError> {
        self.raft.all_decided(deadline.into()).await
    }

    /// How old this node's state may be: the time since [`Self::fresh_at`]; `None` if that is not known.
    pub fn staleness(&self) -> Option<Duration> {
        self.fresh_at().map(|at| runtime::now().into_std().saturating_duration_since(at))
    }

    /// When a quorum last acknowledged this node as leader, or when it last had everything that its leader knew to be
    /// committed; `None` if it has not been so yet.
    pub fn fresh_at(&self) -> Option<Instant> {
        if self.leader_term().is_some() { self.raft.status().quorum_acked } else { self.raft.caught_up_at() }
    }

    /// The applied index, as it moves.
    pub fn positions(&self) -> watch::Receiver<Position> {
        self.raft.view().watch_position()
    }

    /// Everything that Raft knows at this moment.
    pub fn status(&self) -> RaftStatus {
        self.raft.status()
    }

    /// Whether this node is out of rotation: it is about to stop, or an operator has drained it.
    pub fn is_draining(&self) -> bool {
        self.stops() || self.is_drained()
    }

    /// Whether an operator has drained it.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Takes this node out of rotation, or back into it. Meanwhile it stands for no election.
    pub fn set_drained(&self, drained: bool) {
        if drained {
            self.raft.abstain(Abstention::Drained);
        } else {
            self.raft.abstain_no_more(Abstention::Drained);
        }
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// Who led, as far as the health feed has noted it.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How others should reach this node, by its own configuration.
    pub fn advertised(&self) -> &Addresses {
        &self.own.addresses
    }

    /// From now on nobody should send requests here, and this node takes the lead from nobody: it is about to stop. It
    /// votes, and stores the log, to the end.
    pub fn drain(&self) {
        self.raft.abstain(Abstention::Stopping);
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is about to stop.
    pub fn stops(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// State hashes, newest first: of the state as it is now, and at earlier indexes.
    pub fn hashes(&self) -> Vec<HashAt> {
        self.raft.view().hashes()
    }

    /// The hash at the last index at which every node notes one, if this node has come there since its start.
    pub fn noted_hash(&self) -> Option<HashAt> {
        self.raft.view().noted_hashes().into_iter().next()
    }

    /// Hands the lead to a voter, or to the one that is furthest, if it has caught up by `ready_by`.
    ///
    /// # Errors
    /// [`TransferError`]; the lead may still move after a timeout.
    pub async fn transfer(
        &self,
        to: Option<u64>,
        ready_by: Instant,
        deadline: Instant,
    ) -> Result<LeaderHint, TransferError> {
        let node_id = self.raft.transfer_if_ready(to, ready_by.into(), deadline.into()).await?;
        loop {
            if let Some(leader) = self.leader_hint().filter(|leader| leader.node_id == node_id) {
                return Ok(leader);
            }
            if runtime::now().into_std() >= deadline {
                return Err(TransferError::NotTaken { node_id });
            }
            runtime::sleep(LEADER_POLL).await;
        }
    }

    /// Waits for a fault that only a restart can mend.
    pub async fn wait_fatal(&self) -> RaftFatal {
        self.raft.wait_fatal().await
    }
}
