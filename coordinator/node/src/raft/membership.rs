//! Changing who belongs to the cluster, by joint consensus (Raft, section 6). A node comes in as a learner, which receives
//! the log and does not vote, and gets its vote once it has caught up.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::raft::{ClientWriteResponse, Precondition};
use tokio::time::Instant as Deadline;

use super::node::RaftNode;
use super::status::{MemberStatus, RaftStatus, Role};
use super::types::{Addresses, NodeId, TypeConfig};
use crate::runtime;

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
    /// comes back this way, under an id above those of all nodes that were removed. Adding a member again where it is changes
    /// nothing.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add_learner(&self, node_id: NodeId, at: Addresses, deadline: Deadline) -> Result<(), MembershipError> {
        let used = self.view().used_ids();
        let status = self.leading()?;
        if let Some(member) = status.members.iter().find(|member| member.node_id == node_id) {
            let already = member.addresses == at;
            return if already { Ok(()) } else { Err(elsewhere(member)) };
        }
        check_unused(node_id, used.highest_removed)?;
        check_free(status.members.iter(), &at)?;
        // A removal that is in the log and not applied here yet would not be known.
        let unchanged = Precondition::LastMembershipLogId { last_membership_log_id: used.as_of };
        let added = ChangeMembers::AddNodes(BTreeMap::from([(node_id, at)]));
        written(self.raft().change_membership_if(added, true, [unchanged]), deadline).await
    }

    /// Gives a learner that has caught up a vote. A voter keeps the one it has.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn promote_learner(&self, node_id: NodeId, deadline: Deadline) -> Result<(), MembershipError> {
        let status = self.leading()?;
        let member = find(&status, node_id)?;
        if member.voter {
            return self.finish_change(deadline).await;
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

    /// Changes where a member is reached. A member that is reached there already stays as it is. The name of the node that
    /// a message is meant for travels with it, so a wrong address reaches nobody else in its place.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn move_node(&self, node_id: NodeId, to: Addresses, deadline: Deadline) -> Result<(), MembershipError> {
        let status = self.leading()?;
        if find(&status, node_id)?.addresses == to {
            return Ok(());
        }
        check_free(status.members.iter().filter(|member| member.node_id != node_id), &to)?;
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(node_id, to)])), deadline).await
    }

    /// As leader, finishes a change of the voters that an earlier leader left half done, if there is one: the cluster would
    /// go on needing most of the old voters as well, one of which may be lost.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn finish_change(&self, deadline: Deadline) -> Result<(), MembershipError> {
        if !self.leading()?.joint {
            return Ok(());
        }
        let configs = self.raft().metrics().borrow_watched().membership_config.get_joint_config().clone();
        let Some(wanted) = configs.last() else { return Ok(()) };
        self.change(ChangeMembers::ReplaceAllVoters(wanted.clone()), deadline).await
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
        let since = runtime::now().into_std().checked_sub(2 * self.election_timeout());
        member.last_contact.is_some_and(|at| since.is_none_or(|since| at >= since))
    }

    fn check_caught_up(&self, status: &RaftStatus, learner: &MemberStatus) -> Result<(), MembershipError> {
        let refuse = |why: String| Err(MembershipError::Refused(why));
        if !self.answers(learner) {
            return refuse("it does not answer: as a voter it would count and not help".to_owned());
        }
        let (last, has) = (status.last_log.unwrap_or(0), learner.matched.unwrap_or(0));
        if caught_up(last, has) {
            return Ok(());
        }
        refuse(format!(
            "it has entries up to {has} of {last}: it must have {MIN_SHARE_PERCENT} % and lack at most {MAX_LAG}; ask \
             again when it has caught up"
        ))
    }
}

/// Whether a learner that has the entries up to `has` of a log that ends with `last` may get a vote.
fn caught_up(last: u64, has: u64) -> bool {
    let enough = has.saturating_mul(100) >= last.saturating_mul(MIN_SHARE_PERCENT);
    enough && last.saturating_sub(has) <= MAX_LAG
}

fn find(status: &RaftStatus, node_id: NodeId) -> Result<&MemberStatus, MembershipError> {
    let member = status.members.iter().find(|member| member.node_id == node_id);
    member.ok_or(MembershipError::NoSuchMember(node_id))
}

/// An id belongs to one disk for ever. Of the nodes that were removed every node knows the highest id, and new ones are above
/// it (ADR 0023).
fn check_unused(node_id: NodeId, highest_removed: NodeId) -> Result<(), MembershipError> {
    if node_id > highest_removed {
        return Ok(());
    }
    Err(MembershipError::Refused(format!(
        "ids up to {highest_removed} are used up in this cluster, and an id is never used again: give the node a higher one"
    )))
}

/// No two members are reached at one address.
fn check_free<'a>(mut members: impl Iterator<Item = &'a MemberStatus>, at: &Addresses) -> Result<(), MembershipError> {
    let shares = |member: &&MemberStatus| {
        let theirs = [&member.addresses.control, &member.addresses.data];
        [&at.control, &at.data].iter().any(|own| !own.is_empty() && theirs.contains(own))
    };
    let Some(member) = members.find(shares) else { return Ok(()) };
    let (other, at) = (member.node_id, &member.addresses);
    let why = format!("node {other} is reached at {} and {}: remove it before", at.control, at.data);
    Err(MembershipError::Refused(why))
}

fn elsewhere(member: &MemberStatus) -> MembershipError {
    let (id, at) = (member.node_id, &member.addresses);
    let why = format!("node {id} is a member already, reached at {} and {}: move it", at.control, at.data);
    MembershipError::Refused(why)
}

/// Waits for a change, at most until the deadline: it may still come about after that.
async fn written(change: impl Future<Output = Written>, deadline: Deadline) -> Result<(), MembershipError> {
    match runtime::timeout_at(deadline, change).await {
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
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => {
            MembershipError::Refused("the members have just been changed: look at them, and ask again".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_has_a_higher_id_than_any_that_was_removed() {
        for (node_id, highest_removed, may) in [(1, 0, true), (1, 1, false), (1, 4, false), (4, 4, false), (5, 4, true)]
        {
            assert_eq!(check_unused(node_id, highest_removed).is_ok(), may, "{node_id} after {highest_removed}");
        }
        let refused = check_unused(1, 4).map_err(|error| error.to_string());
        assert!(refused.is_err_and(|why| why.contains("up to 4") && why.contains("never used again")));
    }

    #[test]
    fn a_learner_has_caught_up_by_its_share_of_the_log_and_by_its_lag() {
        for (last, has, may) in [
            (0, 0, true),
            (10, 8, false),
            (10, 9, true),
            (10, 10, true),
            (5_000, 4_499, false),
            (5_000, 4_500, true),
            (10_000, 8_999, false),
            (10_000, 9_000, true),
            (20_000, 18_000, false),
            (20_000, 18_999, false),
            (20_000, 19_000, true),
            (1_000_000, 0, false),
            (1_000_000, 998_999, false),
            (1_000_000, 999_000, true),
        ] {
            assert_eq!(caught_up(last, has), may, "{has} of {last}");
        }
    }
}
