//! GetRecovery: whether the state may be older than what the cluster did.

use onespend_core::state::State;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;

/// Recovery mode as callers see it.
pub(super) fn recovery(state: &State) -> v1::Recovery {
    let recovery = state.recovery();
    let reconciled = recovery.and_then(|recovery| recovery.reconciled);
    v1::Recovery {
        active: recovery.is_some(),
        why: recovery.map(|recovery| recovery.why.clone()).unwrap_or_default(),
        reconciled: reconciled.map(|at| v1::BlockRef { height: at.height.0, hash: at.hash.to_string(), time: None }),
        epoch: state.epoch(),
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As every read.
#[allow(clippy::unnecessary_wraps)] // As every read.
pub(super) fn get_recovery(
    api: &Api,
    info: v1::ReadInfo,
    _: &v1::GetRecoveryRequest,
) -> Result<v1::GetRecoveryResponse, Status> {
    Ok(v1::GetRecoveryResponse { recovery: Some(api.replica.read(recovery)), read_info: Some(info) })
}
