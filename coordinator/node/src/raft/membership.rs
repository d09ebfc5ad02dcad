//! Changing who belongs to the cluster, by joint consensus (Raft, section 6). A node comes in as a learner, which receives
//! the log and does not vote, and gets its vote once it has caught up.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Instant;

use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::raft::ClientWriteResponse;
use tokio::time::Instant as Deadline;

use super::node::RaftNode;
use super::status::{MemberStatus, RaftStatus, Role};
use super::types::{Addresses, NodeId, TypeConfig};

/// A learner that is this many entries behind has caught up: the rest takes it a few milliseconds.
const MAX_LAG: u64 = 1_000;
/// And it has to have this share of the leader's log, in per cent: a short log is not caught up by being short.
const MIN_SHARE_PERCENT: u64 = 90;

type Written = Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;
type Change = ChangeMembers<NodeId, Addresses>;

/// Why the members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// This node does not lead; nothing was changed.
    #[error("this node does not lead")]
    NotLeader,
    /// There is no such member; nothing was changed.
    #[error("there is no node {0}")]
    NoSuchMember(NodeId),
    /// Another change is under way, or this one would do harm; nothing was changed.
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
    /// Lets a new node receive the log without a vote; it catches up by a snapshot if need be. A node whose disk was lost
    /// comes back this way, under an id that was never used. Adding a member again where it is changes nothing.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add_learner(&self, node_id: NodeId, at: Addresses, deadline: Deadline) -> Result<(), MembershipError> {
        let status = self.leading()?;
        if let Some(member) = status.members.iter().find(|member| member.node_id == node_id) {
            let already = member.addresses == at;
            return if already { Ok(()) } else { Err(elsewhere(member)) };
        }
        let shares = |member: &&MemberStatus| {
            let theirs = [&member.addresses.control, &member.addresses.data];
            [&at.control, &at.data].iter().any(|own| !own.is_empty() && theirs.contains(own))
        };
        if let Some(member) = status.members.iter().find(shares) {
            let (other, at) = (member.node_id, &member.addresses);
            let why = format!("node {other} is reached at {} and {}: remove it before", at.control, at.data);
            return Err(MembershipError::Refused(why));
        }
        written(self.raft().add_learner(node_id, at, false), deadline).await
    }

    /// Gives a learner that has caught up a vote. A voter keeps the one it has.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn promote_learner(&self, node_id: NodeId, deadline: Deadline) -> Result<(), MembershipError> {
        let status = self.leading()?;
        let member = find(&status, node_id)?;
        if member.voter {
            return Ok(());
        }
        self.check_caught_up(&status, member)?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node_id])), deadline).await
    }

    /// Removes a member, whether or not it is there. The rest must be able to go on, so most of the voters that are left
    /// have to answer.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn remove_node(&self, node_id: NodeId, deadline: Deadline) -> Result<(), MembershipError> {
        let status = self.leading()?;
        let member = find(&status, node_id)?;
        if !member.voter {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node_id])), deadline).await;
        }
        if node_id == status.node_id {
            return Err(MembershipError::Refused("it leads: hand the lead to another voter before".to_owned()));
        }
        let left: Vec<&MemberStatus> =
            status.members.iter().filter(|member| member.voter && member.node_id != node_id).collect();
        let answering = left.iter().filter(|member| member.node_id == status.node_id || self.answers(member)).count();
        if answering * 2 <= left.len() {
            let why = format!("only {answering} of the {} voters that would be left answer", left.len());
            return Err(MembershipError::Refused(why));
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node_id])), deadline).await
    }

    async fn change(&self, change: Change, deadline: Deadline) -> Result<(), MembershipError> {
        written(self.raft().change_membership(change, false), deadline).await
    }

    fn leading(&self) -> Result<RaftStatus, MembershipError> {
        let status = self.status();
        match status.role {
            Role::Leader => Ok(status),
            Role::Stopped => Err(MembershipError::Stopped),
            Role::Replica | Role::Learner | Role::Candidate => Err(MembershipError::NotLeader),
        }
    }

    /// Whether a member has answered within the longest time that one which is there stays silent.
    fn answers(&self, member: &MemberStatus) -> bool {
        let since = Instant::now().checked_sub(2 * self.election_timeout());
        member.last_contact.is_some_and(|at| since.is_none_or(|since| at >= since))
    }

    fn check_caught_up(&self, status: &RaftStatus, learner: &MemberStatus) -> Result<(), MembershipError> {
        let refuse = |why: String| Err(MembershipError::Refused(why));
        if !self.answers(learner) {
            return refuse("it does not answer: as a voter it would count and not help".to_owned());
        }
        let (last, has) = (status.last_log.unwrap_or(0), learner.matched.unwrap_or(0));
        let enough = has.saturating_mul(100) >= last.saturating_mul(MIN_SHARE_PERCENT);
        if enough && last.saturating_sub(has) <= MAX_LAG {
            return Ok(());
        }
        refuse(format!(
            "it has entries up to {has} of {last}: it must have {MIN_SHARE_PERCENT} % and lack at most {MAX_LAG}; ask \
             again when it has caught up"
        ))
    }
}

fn find(status: &RaftStatus, node_id: NodeId) -> Result<&MemberStatus, MembershipError> {
    let member = status.members.iter().find(|member| member.node_id == node_id);
    member.ok_or(MembershipError::NoSuchMember(node_id))
}

fn elsewhere(member: &MemberStatus) -> MembershipError {
    let (id, at) = (member.node_id, &member.addresses);
    let why = format!("node {id} is a member already, reached at {} and {}: remove it before", at.control, at.data);
    MembershipError::Refused(why)
}

/// Waits for a change, at most until the deadline: it may still come about after that.
async fn written(change: impl Future<Output = Written>, deadline: Deadline) -> Result<(), MembershipError> {
    match tokio::time::timeout_at(deadline, change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(refusal(error)),
        Err(_) => Err(MembershipError::Unknown),
    }
}

fn refusal(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
    match error {
        RaftError::Fatal(Fatal::Stopped | Fatal::Panicked | Fatal::StorageError(_)) => MembershipError::Stopped,
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => MembershipError::NotLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => MembershipError::Unknown,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            MembershipError::Refused(error.to_string())
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => MembershipError::Refused(error.to_string()),
    }
}
