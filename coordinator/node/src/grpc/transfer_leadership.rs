//! TransferLeadership: planned work hands the lead over without a failed request. It is no entry of the log, so the
//! request id is not remembered: naming the node is what makes a retry harmless.

use std::sync::Arc;

use onespend_core::ids::RequestId;
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::fields::Fields;
use super::membership::warnings_of_leader;
use super::status;
use crate::handover::{self, HandOverReason};
use crate::metrics;
use crate::raft::TransferError;

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
    let leader = transferred.map_err(|error| not_transferred(&api, &error))?;
    if leader.node_id != api.settings.node_id {
        metrics::handed_over(HandOverReason::Operator);
    }
    let applied_index = api.replica.read(|state| state.applied().0);
    // Whom the operator named gets the lead, fit or not.
    let warnings = warnings_of_leader(&api, leader.node_id, call.deadline).await;
    Ok(v1::TransferLeadershipResponse { leader_id: leader.node_id, applied_index, term: leader.term, warnings })
}

/// Why the lead has not moved, or is not known to have moved. Once a voter has been told to take over it may do so later
/// than this node waits.
fn not_transferred(api: &Api, error: &TransferError) -> Status {
    match error {
        TransferError::NotLeader => status::not_leader(api.replica.leader_hint().as_ref()),
        TransferError::NotTaken { .. } | TransferError::Stopped => status::unknown(&error.to_string()),
        TransferError::NoSuchVoter | TransferError::Silent | TransferError::NotCaughtUp { .. } => {
            status::transfer_refused(&error.to_string())
        }
    }
}

pub(super) fn parse(message: &v1::TransferLeadershipRequest) -> Result<RequestId, Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    fields.finish(request)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_adapters::chain::fake::FakeChain;
    use onespend_proto::v1::ErrorReason;
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::specimen;

    /// safety 27: only where nobody was told to take over is it certain that the lead stays.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_transfer_is_refused_only_where_the_lead_cannot_move_any_more() {
        let folder = tempfile::TempDir::new().unwrap();
        let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
        for unchanged in [TransferError::NoSuchVoter, TransferError::Silent, TransferError::NotCaughtUp { node_id: 2 }]
        {
            assert!(unchanged.changed_nothing());
            let told = not_transferred(&api, &unchanged);
            assert!(status::is_for(&told, ErrorReason::TransferRefused), "{told:?}");
        }
        for open in [TransferError::NotTaken { node_id: 2 }, TransferError::Stopped] {
            let told = not_transferred(&api, &open);
            assert_eq!(told.code(), Code::Unavailable);
            assert!(status::is_for(&told, ErrorReason::ResultUnknown), "{told:?}");
        }
        let told = not_transferred(&api, &TransferError::NotLeader);
        assert!(status::is_for(&told, ErrorReason::NotLeader), "{told:?}");
        let info = told.get_details_error_info().unwrap();
        assert_eq!(info.metadata.get("leader_id").map(String::as_str), Some("1"), "who leads is told");
    }
}
