//! ConfirmRecovery: an operator has checked what no chain can show, and signing is allowed again (safety 30).

use std::sync::Arc;

use onespend_core::command::Command;
use onespend_core::ids::RequestId;
use onespend_core::state::State;
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::fields::Fields;
use super::get_recovery::recovery;

pub(super) async fn confirm_recovery(
    api: Arc<Api>,
    call: Call,
    message: v1::ConfirmRecoveryRequest,
) -> Result<v1::ConfirmRecoveryResponse, Status> {
    let request = parse(&message)?;
    let gather = || {
        // Above every fence that this state has granted, and that this node's signers remember.
        let epoch = api.replica.read(State::epoch).max(api.signing.epoch()).saturating_add(1);
        std::future::ready(Ok(Draft::of(Command::ConfirmRecovery { epoch, note: message.note.clone() })))
    };
    let applied = api.decide(&call, call.request(request), gather).await?;
    let recovery = Some(api.replica.read(recovery));
    Ok(v1::ConfirmRecoveryResponse { recovery, applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::ConfirmRecoveryRequest) -> Result<RequestId, Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    fields.checked(&message.note, message.i_have_checked);
    fields.finish(request)
}
