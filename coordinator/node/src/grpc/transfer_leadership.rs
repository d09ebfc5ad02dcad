//! TransferLeadership: planned work hands the lead over without a failed request. It is no entry of the log, so the
//! request id is not remembered: naming the node is what makes a retry harmless.

use std::sync::Arc;

use onespend_core::ids::RequestId;
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::fields::Fields;
use super::status;
use crate::handover::{self, HandOverReason};
use crate::metrics;

pub(super) async fn transfer_leadership(
    api: Arc<Api>,
    call: Call,
    message: v1::TransferLeadershipRequest,
) -> Result<v1::TransferLeadershipResponse, Status> {
    parse(&message)?;
    let hint = api.replica.leader_hint();
    if hint.as_ref().is_none_or(|leader| leader.node_id != api.settings.node_id) {
        return Err(status::not_leader(hint.as_ref()));
    }
    let to = (message.node_id != 0).then_some(message.node_id);
    let members = api.replica.status().members;
    if let Some(stranger) = to.filter(|to| members.iter().all(|member| member.node_id != *to)) {
        return Err(status::node_unknown(stranger));
    }
    if let Some(drained) = to.filter(|to| *to != api.settings.node_id)
        && handover::abstains(&api.replica, &api.peers, drained).await
    {
        return Err(status::transfer_refused(&format!(
            "node {drained} stands for no election: it is drained, stops, or differs"
        )));
    }
    let to = match to {
        None => handover::preferred(&api.replica, &api.peers).await,
        Some(named) => vec![named],
    };
    // Raft by itself would hand over to one that is drained, which refuses.
    let transferred = handover::hand_to(&api.replica, &to, call.deadline).await;
    let leader = transferred.map_err(|error| status::transfer_refused(&error.to_string()))?;
    if leader.node_id != api.settings.node_id {
        metrics::handed_over(HandOverReason::Operator);
    }
    let applied_index = api.replica.read(|state| state.applied().0);
    Ok(v1::TransferLeadershipResponse { leader_id: leader.node_id, applied_index, term: leader.term })
}

pub(super) fn parse(message: &v1::TransferLeadershipRequest) -> Result<RequestId, Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    fields.finish(request)
}
