//! Handing leadership over.

use std::time::Duration;

use tokio::time::Instant as Deadline;

use super::node::RaftNode;
use super::status::{RaftStatus, Role};
use super::types::NodeId;
use crate::runtime;

/// A voter that is this many entries behind has caught up: the rest takes it a few milliseconds.
const MAX_TRANSFER_LAG: u64 = 1_000;
/// How often the status is looked at while waiting.
const POLL: Duration = Duration::from_millis(2);

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// There is no such voter, or no other voter at all.
    #[error("there is no voter to hand over to")]
    NoSuchVoter,
    /// None that may take over answers; nothing was changed.
    #[error("no voter that may take over answers")]
    Silent,
    /// It did not catch up in time; nothing was changed.
    #[error("node {node_id} did not catch up in time")]
    NotCaughtUp {
        /// Which voter.
        node_id: NodeId,
    },
    /// It did not take over in time. This node refuses writes until the next election, which the others hold by themselves.
    #[error("node {node_id} did not take over in time")]
    NotTaken {
        /// Which voter.
        node_id: NodeId,
    },
    /// This node stops.
    #[error("this node stops")]
    Stopped,
}

impl TransferError {
    /// Whether this node leads on as if nothing had been asked, so that another voter can be tried.
    pub fn changed_nothing(&self) -> bool {
        match self {
            Self::NoSuchVoter | Self::Silent | Self::NotCaughtUp { .. } => true,
            Self::NotLeader | Self::NotTaken { .. } | Self::Stopped => false,
        }
    }
}

impl RaftNode {
    /// Hands leadership to `to`, or to the voter that has caught up best, and waits until somebody else leads; that is who
    /// is given back. Naming this node while it leads changes nothing.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer_leadership(&self, to: Option<NodeId>, deadline: Deadline) -> Result<NodeId, TransferError> {
        self.transfer_if_ready(to, deadline, deadline).await
    }

    /// The same, but nothing is tried with a voter that has not caught up by `ready_by`: so there is time for another one.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer_if_ready(
        &self,
        to: Option<NodeId>,
        ready_by: Deadline,
        deadline: Deadline,
    ) -> Result<NodeId, TransferError> {
        let term = self.status().term;
        if to == Some(self.status().node_id) && self.leads() {
            return Ok(self.status().node_id);
        }
        let target = self.caught_up(to, ready_by).await?;
        self.raft().trigger().transfer_leader(target).await.map_err(|_| TransferError::Stopped)?;
        let taken = |status: &RaftStatus| status.term > term && status.leader.is_some_and(|id| id != status.node_id);
        match self.until(taken, deadline).await? {
            Some(status) => Ok(status.leader.unwrap_or(target)),
            None => Err(TransferError::NotTaken { node_id: target }),
        }
    }

    /// Waits for the target to come close, so that the time without a leader is short. It must answer once more from now
    /// on, which takes one heartbeat: handed to one that has just died, writes would be refused until the next election.
    async fn caught_up(&self, to: Option<NodeId>, deadline: Deadline) -> Result<NodeId, TransferError> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(TransferError::NotLeader);
        }
        if !status.voters().any(|id| id != status.node_id && to.is_none_or(|to| to == id)) {
            return Err(TransferError::NoSuchVoter);
        }
        let asked = runtime::now().into_std();
        let hears_by = runtime::now() + 2 * self.election_timeout();
        let decided = |status: &RaftStatus| match status.successor(to, asked) {
            _ if status.role != Role::Leader => true,
            Some(next) => {
                let lag = next.matched.map(|at| status.last_log.unwrap_or(0).saturating_sub(at));
                lag.is_some_and(|lag| lag <= MAX_TRANSFER_LAG)
            }
            None => runtime::now() >= hears_by,
        };
        let Some(status) = self.until(decided, deadline).await? else {
            let late = self.status().successor(to, asked).map(|next| next.node_id);
            return Err(late.map_or(TransferError::Silent, |node_id| TransferError::NotCaughtUp { node_id }));
        };
        if status.role != Role::Leader {
            return Err(TransferError::NotLeader);
        }
        status.successor(to, asked).map(|next| next.node_id).ok_or(TransferError::Silent)
    }

    /// The longest that a voter which is there stays silent: a leader's heartbeats are several times more frequent.
    pub(crate) fn election_timeout(&self) -> Duration {
        Duration::from_millis(self.raft().config().election_timeout_max)
    }

    /// Waits for a condition; `None` at the deadline.
    async fn until(
        &self,
        done: impl Fn(&RaftStatus) -> bool,
        deadline: Deadline,
    ) -> Result<Option<RaftStatus>, TransferError> {
        loop {
            let status = self.status();
            if done(&status) {
                return Ok(Some(status));
            }
            if status.role == Role::Stopped {
                return Err(TransferError::Stopped);
            }
            if runtime::now() >= deadline {
                return Ok(None);
            }
            runtime::sleep(POLL).await;
        }
    }
}
