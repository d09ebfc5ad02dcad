//! AddLearner, PromoteLearner, RemoveNode and MoveNode: who belongs to the cluster, and where. The leader alone changes
//! that.

use std::sync::Arc;
use std::time::Instant;

use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::fields::Fields;
use super::{alarm_status, get_status, status};
use crate::agreement::{self, MISMATCH, UNDECIDED};
use crate::config::HostPort;
use crate::handover;
use crate::identity::MAX_NODE_ID;
use crate::peers::{self, Report};
use crate::raft::{Addresses, HashAt, MembershipError};

pub(super) async fn add_learner(
    api: Arc<Api>,
    call: Call,
    message: v1::AddLearnerRequest,
) -> Result<v1::AddLearnerResponse, Status> {
    let (node, addresses) = parse_add(&message)?;
    demand_state_beyond_doubt(&api)?;
    let changed = api.replica.raft().add_learner(node, addresses, call.deadline.into()).await;
    let (members, applied_index, term) = after(&api, changed)?;
    Ok(v1::AddLearnerResponse { members, applied_index, term })
}

pub(super) async fn promote_learner(
    api: Arc<Api>,
    call: Call,
    message: v1::PromoteLearnerRequest,
) -> Result<v1::PromoteLearnerResponse, Status> {
    let node = parse_promote(&message)?;
    demand_state_beyond_doubt(&api)?;
    let warnings = look_at_learner(&api, node).await?;
    let changed = api.replica.raft().promote_learner(node, call.deadline.into()).await;
    let (members, applied_index, term) = after(&api, changed)?;
    Ok(v1::PromoteLearnerResponse { members, applied_index, term, warnings })
}

/// What speaks against a learner that is to vote, by its own word: refusals, or warnings. Of what is no learner of this
/// leader's, Raft says what there is to say.
async fn look_at_learner(api: &Api, node: u64) -> Result<Vec<String>, Status> {
    let members = api.replica.status().members;
    let learner = members.into_iter().find(|member| member.node_id == node && !member.voter);
    let Some(learner) = learner.filter(|_| api.replica.raft().leads()) else { return Ok(Vec::new()) };
    let Some(report) = api.peers.reports(&[learner], peers::TIMEOUT).await.pop() else {
        return Err(status::membership_refused("it does not answer on its control port, so nobody knows how it is"));
    };
    objection(&api.replica.hashes(), &report).map_or(Ok(()), |why| Err(status::membership_refused(&why)))?;
    Ok(warnings(&report))
}

/// Why a learner must not vote: its vote would count for the entries that it stores, and its state for what is right
/// (safety 31).
fn objection(ours: &[HashAt], report: &Report) -> Option<String> {
    let doubt = report.alarms.iter().find(|code| [MISMATCH, UNDECIDED].contains(&code.as_str()));
    if let Some(code) = doubt {
        return Some(format!("its alarm {code} stands: its state differs from that of others, so replace it"));
    }
    let index = agreement::differing(ours, &report.hashes)?;
    Some(format!("its state at log index {index} differs from the leader's: replace it, and report that"))
}

/// What a node has against its own lead.
fn warnings(report: &Report) -> Vec<String> {
    let idle = report.abstains.then(|| "it is drained, or stops: it votes, and stands for no election".to_owned());
    let unfit = report.unfit.as_ref().filter(|_| !report.abstains);
    let unfit = unfit.map(|why| format!("it should not lead now: {why}"));
    let chain = report.in_sync_height.is_none();
    let chain = chain.then(|| "its bitcoind is not in sync: as leader it would take no spends".to_owned());
    idle.into_iter().chain(unfit).chain(chain).collect()
}

/// What speaks against the lead of a node that was handed it, by its own word; nothing where that is not heard at once.
pub(super) async fn warnings_of_leader(api: &Api, leader: u64, deadline: Instant) -> Vec<String> {
    // The answer has to be in time as well.
    let within = deadline.saturating_duration_since(Instant::now()) / 2;
    let report = handover::report_of(&api.replica, &api.peers, leader, within).await;
    report.map(|report| warnings(&report)).unwrap_or_default()
}

pub(super) async fn remove_node(
    api: Arc<Api>,
    call: Call,
    message: v1::RemoveNodeRequest,
) -> Result<v1::RemoveNodeResponse, Status> {
    let node = parse_remove(&message)?;
    let changed = api.replica.raft().remove_node(node, call.deadline.into()).await;
    let (members, applied_index, term) = after(&api, changed)?;
    Ok(v1::RemoveNodeResponse { members, applied_index, term })
}

pub(super) async fn move_node(
    api: Arc<Api>,
    call: Call,
    message: v1::MoveNodeRequest,
) -> Result<v1::MoveNodeResponse, Status> {
    let (node, addresses) = parse_move(&message)?;
    let changed = api.replica.raft().move_node(node, addresses, call.deadline.into()).await;
    let (members, applied_index, term) = after(&api, changed)?;
    Ok(v1::MoveNodeResponse { members, applied_index, term })
}

/// A node that comes in gets the state of this leader, right or wrong, and with its vote it would count as one more
/// that has it: the right side of two could be outvoted by that, for ever (safety 31).
fn demand_state_beyond_doubt(api: &Api) -> Result<(), Status> {
    // Another node may lead, and have no doubt.
    let doubt = api.alarms.doubt().filter(|_| api.replica.raft().leads());
    doubt.map_or(Ok(()), |alarm| Err(alarm_status::no_new_members(alarm)))
}

/// The members, the applied index and the term after a change, or why there was none.
fn after(api: &Api, changed: Result<(), MembershipError>) -> Result<(Vec<v1::Member>, u64, u64), Status> {
    changed.map_err(|error| match error {
        MembershipError::NotLeader => status::not_leader(api.replica.leader_hint().as_ref()),
        MembershipError::NoSuchMember(node) => status::node_unknown(node),
        MembershipError::Refused(why) => status::membership_refused(&why),
        MembershipError::Unknown | MembershipError::Stopped => status::unknown(&error.to_string()),
    })?;
    let raft = api.replica.status();
    let members = raft.members.iter().map(|one| get_status::member(one, &raft)).collect();
    Ok((members, api.replica.read(|state| state.applied().0), raft.term))
}

pub(super) fn parse_add(message: &v1::AddLearnerRequest) -> Result<(u64, Addresses), Status> {
    parse_place(&message.request_id, message.node_id, &message.control_address, &message.data_address)
}

pub(super) fn parse_move(message: &v1::MoveNodeRequest) -> Result<(u64, Addresses), Status> {
    parse_place(&message.request_id, message.node_id, &message.control_address, &message.data_address)
}

fn parse_place(request_id: &str, node: u64, control: &str, data: &str) -> Result<(u64, Addresses), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(request_id);
    let node = node_id(&mut fields, node);
    let control = address(&mut fields, "control_address", control);
    let data = address(&mut fields, "data_address", data);
    let (_, (node, (control, data))) = fields.finish(request.zip(node.zip(control.zip(data))))?;
    Ok((node, Addresses { control, data }))
}

pub(super) fn parse_promote(message: &v1::PromoteLearnerRequest) -> Result<u64, Status> {
    parse_node(&message.request_id, message.node_id)
}

pub(super) fn parse_remove(message: &v1::RemoveNodeRequest) -> Result<u64, Status> {
    parse_node(&message.request_id, message.node_id)
}

pub(super) fn parse_node(request_id: &str, node: u64) -> Result<u64, Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(request_id);
    let node = node_id(&mut fields, node);
    fields.finish(request.zip(node)).map(|(_, node)| node)
}

fn node_id(fields: &mut Fields, id: u64) -> Option<u64> {
    if (1..=MAX_NODE_ID).contains(&id) {
        return Some(id);
    }
    fields.fault("node_id", format!("must be 1 to {MAX_NODE_ID}"));
    None
}

fn address(fields: &mut Fields, field: &str, text: &str) -> Option<String> {
    text.parse::<HostPort>().map(|address| address.to_string()).map_err(|why| fields.fault(field, why)).ok()
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
