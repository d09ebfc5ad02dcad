//! ReleaseQuarantined: an operator has checked coins that were held back.

use std::sync::Arc;

use bitcoin::OutPoint;
use onespend_core::command::Command;
use onespend_core::ids::{RequestId, WalletId};
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::fields::Fields;
use super::reservation_view;

pub(super) async fn release_quarantined(
    api: Arc<Api>,
    call: Call,
    message: v1::ReleaseQuarantinedRequest,
) -> Result<v1::ReleaseQuarantinedResponse, Status> {
    let (request, (wallet, outpoints)) = parse(&message)?;
    let command =
        Command::ReleaseQuarantined { wallet, outpoints: outpoints.clone(), note: message.note.trim().to_owned() };
    let applied = api.decide_plain(&call, call.request(request), command).await?;
    let utxos = api.replica.read(|state| reservation_view::coins(state, &outpoints));
    Ok(v1::ReleaseQuarantinedResponse { utxos, applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::ReleaseQuarantinedRequest) -> Result<(RequestId, (WalletId, Vec<OutPoint>)), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let wallet = fields.wallet_id(&message.wallet_id);
    let outpoints = fields.outpoints("outpoints", &message.outpoints);
    fields.checked(&message.note, message.i_have_checked);
    fields.finish(request.zip(wallet.zip(outpoints)))
}
