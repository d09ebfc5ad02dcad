//! What a node knows of its Raft, at one moment.

use std::time::Instant;

use openraft::{RaftMetrics, ServerState};

use super::acks::Acks;
use super::types::{Addresses, LogId, NodeId, TypeConfig};
use super::view::Position;

/// The part that a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It was elected. Whether it still has a quorum says [`RaftStatus::quorum_acked`], and nothing else does.
    Leader,
    /// It votes, and follows a leader.
    Replica,
    /// It receives the log and does not vote.
    Learner,
    /// It votes, and knows no leader.
    Candidate,
    /// Its Raft has stopped.
    Stopped,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub node_id: NodeId,
    /// Where it is reached.
    pub addresses: Addresses,
    /// Whether it votes.
    pub voter: bool,
    /// Last log index known to be on its disk. Only a leader knows.
    pub matched: Option<u64>,
    /// When it last answered. Only a leader knows, and only of others.
    pub last_contact: Option<Instant>,
}

/// What a node knows. Indexes are `None` while there is nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub node_id: NodeId,
    /// Its part.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// On a leader: when the latest message was sent that a quorum answered. Its age is what says whether it still leads.
    pub quorum_acked: Option<Instant>,
    /// Whether an entry of the present term is applied here: then the state holds all that was committed before.
    pub own_term_applied: bool,
    /// Last index in its log.
    pub last_log: Option<u64>,
    /// Last index that it knows to be committed.
    pub committed: Option<u64>,
    /// Last index in its state.
    pub applied: Option<u64>,
    /// Index of its latest snapshot.
    pub snapshot: Option<u64>,
    /// Last index that was purged from its log.
    pub purged: Option<u64>,
    /// Whether a change of the voters is half done: until it is finished, most of the old voters and most of the new ones
    /// are needed.
    pub joint: bool,
    /// The members, by id.
    pub members: Vec<MemberStatus>,
}

impl RaftStatus {
    /// The ids of the voters.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().filter(|member| member.voter).map(|member| member.node_id)
    }

    /// Who should lead next: of the other voters (or of `only`) that have answered after `since`, the one that has caught up
    /// best, the lowest id of equals. Only a leader knows.
    pub fn successor(&self, only: Option<NodeId>, since: Instant) -> Option<&MemberStatus> {
        let others = self.members.iter().filter(|member| member.voter && member.node_id != self.node_id);
        others
            .filter(|member| only.is_none_or(|only| only == member.node_id))
            .filter(|member| member.last_contact.is_some_and(|at| at >= since))
            .max_by_key(|member| (member.matched, u64::MAX - member.node_id))
    }

    /// All members but this node.
    pub fn others(&self) -> Vec<MemberStatus> {
        self.members.iter().filter(|member| member.node_id != self.node_id).cloned().collect()
    }

    /// `position` is newer than what the metrics say of the state: they follow a moment later.
    pub(crate) fn of(metrics: &RaftMetrics<TypeConfig>, position: Position, acks: &Acks) -> Self {
        let index = |id: &Option<LogId>| id.map(|id| id.index);
        let applied = index(&metrics.last_applied).max(Some(position.index.0).filter(|index| *index > 0));
        Self {
            node_id: metrics.id,
            role: role(metrics),
            term: metrics.current_term,
            leader: metrics.current_leader,
            quorum_acked: quorum_acked(metrics, acks),
            own_term_applied: metrics.current_term > 0 && position.term == metrics.current_term,
            last_log: metrics.last_log_index,
            committed: index(&metrics.local_committed).max(index(&metrics.cluster_committed)).max(applied),
            applied,
            snapshot: index(&metrics.snapshot),
            purged: index(&metrics.purged),
            joint: metrics.membership_config.get_joint_config().len() > 1,
            members: members(metrics, acks),
        }
    }
}

/// When a quorum last acknowledged this node as leader.
pub(crate) fn quorum_acked(metrics: &RaftMetrics<TypeConfig>, acks: &Acks) -> Option<Instant> {
    if metrics.state != ServerState::Leader {
        return None;
    }
    acks.quorum(metrics.id, metrics.current_term, metrics.membership_config.get_joint_config())
}

fn role(metrics: &RaftMetrics<TypeConfig>) -> Role {
    if metrics.running_state.is_err() {
        return Role::Stopped;
    }
    match metrics.state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower if metrics.current_leader.is_some() => Role::Replica,
        ServerState::Follower | ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn members(metrics: &RaftMetrics<TypeConfig>, acks: &Acks) -> Vec<MemberStatus> {
    let membership = &metrics.membership_config;
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    let matched = |id: &NodeId| metrics.replication.as_ref()?.get(id)?.map(|matched| matched.index);
    let leads = metrics.state == ServerState::Leader;
    let contact = |id: &NodeId| acks.of(*id, metrics.current_term).filter(|_| leads);
    let member = |(id, addresses): (&NodeId, &Addresses)| MemberStatus {
        node_id: *id,
        addresses: addresses.clone(),
        voter: voters.contains(id),
        matched: matched(id),
        last_contact: contact(id).filter(|_| *id != metrics.id),
    };
    membership.nodes().map(member).collect()
}
