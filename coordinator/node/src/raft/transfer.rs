//! Handing leadership over, and changing who belongs to the cluster.

use std::time::Duration;

use openraft::errors::{ClientWriteError, Fatal, RaftError};
use tokio::time::Instant as Deadline;

use super::node::RaftNode;
use super::status::{RaftStatus, Role};
use super::types::{Addresses, NodeId, TypeConfig};

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

/// Why a learner was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddLearnerError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// Another change is under way, or this one makes no sense.
    #[error("{0}")]
    Refused(String),
    /// Whether it was done is not known.
    #[error("whether it was done is not known")]
    Unknown,
    /// This node stops.
    #[error("this node stops")]
    Stopped,
}

impl RaftNode {
    /// Hands leadership to `to`, or to the voter that has caught up best, and waits until somebody else leads; that is who
    /// is given back. Naming this node while it leads changes nothing.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer_leadership(&self, to: Option<NodeId>, deadline: Deadline) -> Result<NodeId, TransferError> {
        let term = self.status().term;
        if to == Some(self.status().node_id) && self.leads() {
            return Ok(self.status().node_id);
        }
        let target = self.caught_up(to, deadline).await?;
        self.raft().trigger().transfer_leader(target).await.map_err(|_| TransferError::Stopped)?;
        let taken = |status: &RaftStatus| status.term > term && status.leader.is_some_and(|id| id != status.node_id);
        match self.until(taken, deadline).await? {
            Some(status) => Ok(status.leader.unwrap_or(target)),
            None => Err(TransferError::NotTaken { node_id: target }),
        }
    }

    /// Waits for the target to come close, so that the time without a leader is short.
    async fn caught_up(&self, to: Option<NodeId>, deadline: Deadline) -> Result<NodeId, TransferError> {
        let pick = |status: &RaftStatus| match to {
            None => status.most_caught_up_voter().map(|member| (member.node_id, member.matched)),
            Some(to) => {
                let voter = status.members.iter().find(|member| member.voter && member.node_id == to);
                voter.map(|member| (member.node_id, member.matched))
            }
        };
        let status = self.status();
        if status.role != Role::Leader {
            return Err(TransferError::NotLeader);
        }
        let Some((first, _)) = pick(&status) else { return Err(TransferError::NoSuchVoter) };
        let close = |status: &RaftStatus| {
            let last = status.last_log.unwrap_or(0);
            pick(status)
                .is_some_and(|(_, matched)| matched.is_some_and(|at| last.saturating_sub(at) <= MAX_TRANSFER_LAG))
        };
        match self.until(|status| status.role != Role::Leader || close(status), deadline).await? {
            Some(status) if status.role == Role::Leader => Ok(pick(&status).map_or(first, |(node_id, _)| node_id)),
            Some(_) => Err(TransferError::NotLeader),
            None => Err(TransferError::NotCaughtUp { node_id: first }),
        }
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
            if Deadline::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets a new node receive the log without a vote; it catches up by a snapshot if need be. A node whose disk was lost
    /// comes back this way, under an id that was never used.
    ///
    /// # Errors
    /// See [`AddLearnerError`].
    pub async fn add_learner(&self, node_id: NodeId, at: Addresses, deadline: Deadline) -> Result<(), AddLearnerError> {
        let added = tokio::time::timeout_at(deadline, self.raft().add_learner(node_id, at, false)).await;
        match added {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refusal(error)),
            Err(_) => Err(AddLearnerError::Unknown),
        }
    }
}

fn refusal(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> AddLearnerError {
    match error {
        RaftError::Fatal(Fatal::Stopped | Fatal::Panicked | Fatal::StorageError(_)) => AddLearnerError::Stopped,
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => AddLearnerError::NotLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => AddLearnerError::Unknown,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            AddLearnerError::Refused(error.to_string())
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => AddLearnerError::Refused(error.to_string()),
    }
}
