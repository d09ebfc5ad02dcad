//! DrainNode and UndrainNode: planned work on one node without a failed request. They run on the node itself, whoever
//! leads, and are no entries of the log: the node remembers it until it restarts.

use std::sync::Arc;

use onespend_proto::v1;
use tonic::Status;
use tracing::info;

use super::api::{Api, Call};
use super::membership::{parse_node, warnings_of_leader};
use super::status;
use crate::handover;

pub(super) async fn drain_node(
    api: Arc<Api>,
    call: Call,
    message: v1::DrainNodeRequest,
) -> Result<v1::DrainNodeResponse, Status> {
    here(&api, parse_drain(&message)?)?;
    let drained = handover::drain(&api.replica, &api.peers, call.deadline).await;
    let handed_to = drained.map_err(|error| status::transfer_refused(&error.to_string()))?;
    info!(by = %call.caller, "drained: out of rotation until it is undrained or restarted");
    let warnings = match handed_to {
        Some(leader) => warnings_of_leader(&api, leader, call.deadline).await,
        None => Vec::new(),
    };
    let (leader_id, applied_index, term) = place(&api);
    Ok(v1::DrainNodeResponse { leader_id, applied_index, term, warnings })
}

pub(super) async fn undrain_node(
    api: Arc<Api>,
    call: Call,
    message: v1::UndrainNodeRequest,
) -> Result<v1::UndrainNodeResponse, Status> {
    here(&api, parse_undrain(&message)?)?;
    api.replica.set_drained(false);
    info!(by = %call.caller, "undrained: in rotation again");
    let (leader_id, applied_index, term) = place(&api);
    Ok(v1::UndrainNodeResponse { leader_id, applied_index, term })
}

pub(super) fn parse_drain(message: &v1::DrainNodeRequest) -> Result<u64, Status> {
    parse_node(&message.request_id, message.node_id)
}

pub(super) fn parse_undrain(message: &v1::UndrainNodeRequest) -> Result<u64, Status> {
    parse_node(&message.request_id, message.node_id)
}

/// A request for a member was passed on to it, so one for another node is for none.
fn here(api: &Api, node: u64) -> Result<(), Status> {
    if node == api.settings.node_id { Ok(()) } else { Err(status::node_unknown(node)) }
}

fn place(api: &Api) -> (u64, u64, u64) {
    let raft = api.replica.status();
    (raft.leader.unwrap_or(0), api.replica.read(|state| state.applied().0), raft.term)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use onespend_adapters::chain::fake::FakeChain;
    use onespend_proto::v1::ErrorReason;

    use super::*;
    use crate::specimen;

    /// Nobody could lead in its place, so it goes on.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_last_node_that_can_lead_is_not_drained() {
        let folder = tempfile::TempDir::new().unwrap();
        let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
        let refused = handover::drain(&api.replica, &api.peers, Instant::now() + Duration::from_secs(5)).await;
        refused.unwrap_err();
        assert!(!api.replica.is_draining() && api.replica.raft().leads());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_is_no_member_is_unknown() {
        let folder = tempfile::TempDir::new().unwrap();
        let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
        let refused = here(&api, 9).unwrap_err();
        assert!(status::is_for(&refused, ErrorReason::NodeUnknown), "{refused:?}");
        assert!(here(&api, 1).is_ok());
        let nameless = v1::DrainNodeRequest { request_id: "q".to_owned(), node_id: 0 };
        assert!(status::is_for(&parse_drain(&nameless).unwrap_err(), ErrorReason::FieldInvalid));
    }
}
