//! GetTip, EstimateFee, GetNodeViews: what the log and the nodes know of the chain.

use std::sync::Arc;

use onespend_core::state::State;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::{DEFAULT_TARGET_BLOCKS, Fields};
use super::{reads, status};

/// The tip that the replicated state stands on.
pub(super) fn tip(state: &State) -> Option<v1::BlockRef> {
    let tip = state.tip().ok()?;
    Some(v1::BlockRef { height: tip.height.0, hash: tip.hash.to_string(), time: None })
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As every read.
pub(super) fn get_tip(api: &Api, info: v1::ReadInfo, _: &v1::GetTipRequest) -> Result<v1::GetTipResponse, Status> {
    let tip = api.replica.read(tip).ok_or_else(|| status::chain_not_synced("not_started"))?;
    Ok(v1::GetTipResponse { tip: Some(tip), read_info: Some(info) })
}

#[allow(clippy::cast_precision_loss)] // Feerates are far below 2^53 sat per 1000 vB.
#[allow(clippy::trivially_copy_pass_by_ref)] // As every read.
pub(super) fn estimate_fee(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::EstimateFeeRequest,
) -> Result<v1::EstimateFeeResponse, Status> {
    let blocks = parse_target(message)?;
    let sat_kvb = api.bitcoind.feerate_sat_kvb(blocks).map_err(status::no_estimate)?;
    Ok(v1::EstimateFeeResponse {
        feerate_sat_vb: sat_kvb as f64 / 1000.0,
        confirm_target_blocks: u32::from(blocks),
        read_info: Some(info),
    })
}

/// Blocks within which a transaction should confirm.
#[allow(clippy::trivially_copy_pass_by_ref)] // as the readers of all messages
pub(super) fn parse_target(message: &v1::EstimateFeeRequest) -> Result<u16, Status> {
    let mut fields = Fields::default();
    let blocks = match message.confirm_target_blocks {
        0 => Some(DEFAULT_TARGET_BLOCKS),
        blocks => fields.target_blocks(blocks),
    };
    fields.finish(blocks)
}

/// Every node's view of its own bitcoind; a node that does not answer is shown as such.
pub(super) async fn get_node_views(api: Arc<Api>) -> Result<v1::GetNodeViewsResponse, Status> {
    let mut views = api.peers.views(&api.replica.status().others()).await;
    views.push(own_view(&api));
    views.sort_by_key(|view| view.node_id);
    Ok(v1::GetNodeViewsResponse { views, read_info: Some(reads::unconfirmed(&api)) })
}

/// This node's view of its own bitcoind.
pub(crate) fn own_view(api: &Api) -> v1::NodeView {
    v1::NodeView {
        node_id: api.settings.node_id,
        reachable: true,
        bitcoind: Some(api.bitcoind.view()),
        applied_index: api.replica.read(|state| state.applied().0),
        error: String::new(),
    }
}
