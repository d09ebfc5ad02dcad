//! RegisterOutpoints: a wallet without descriptors follows single coins, as the leader's bitcoind has them.

use std::sync::Arc;

use bitcoin::OutPoint;
use onespend_core::command::{Command, RegisterOutpoints};
use onespend_core::ids::{RequestId, WalletId};
use onespend_core::outcome::Rejection;
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::fields::Fields;
use super::{reservation_view, status};
use crate::bitcoind::LookupError;

pub(super) async fn register_outpoints(
    api: Arc<Api>,
    call: Call,
    message: v1::RegisterOutpointsRequest,
) -> Result<v1::RegisterOutpointsResponse, Status> {
    let (request, (wallet, outpoints)) = parse(&message)?;
    let applied = api.decide(&call, call.request(request), || draft(&api, &wallet, &outpoints)).await?;
    let utxos = api.replica.read(|state| reservation_view::coins(state, &outpoints));
    Ok(v1::RegisterOutpointsResponse { utxos, applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::RegisterOutpointsRequest) -> Result<(RequestId, (WalletId, Vec<OutPoint>)), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let wallet = fields.wallet_id(&message.wallet_id);
    let outpoints = fields.outpoints("outpoints", &message.outpoints);
    fields.finish(request.zip(wallet.zip(outpoints)))
}

async fn draft(api: &Arc<Api>, wallet: &WalletId, outpoints: &[OutPoint]) -> Result<Draft, Status> {
    api.demand_synced_chain()?;
    check_wallet(api, wallet, outpoints).map_err(|rejection| status::rejected(&rejection))?;
    let found = api.bitcoind.look_up(wallet, outpoints).await.map_err(|error| match error {
        LookupError::Missing { outpoints } => status::rejected(&Rejection::OutpointUnknown { outpoints }),
        other => status::chain_not_synced(&other.to_string()),
    })?;
    let (basis, found) = (found.basis, found.coins);
    Ok(Draft::of(Command::RegisterOutpoints(RegisterOutpoints { wallet: wallet.clone(), basis, found })))
}

/// What is known without asking bitcoind: an outpoint has one owner (safety 1).
fn check_wallet(api: &Api, wallet: &WalletId, outpoints: &[OutPoint]) -> Result<(), Rejection> {
    api.replica.read(|state| {
        if !state.wallet(wallet)?.descriptor.is_none() {
            return Err(Rejection::WalletHasDescriptors);
        }
        let others = outpoints.iter().filter(|at| state.utxo(at).is_some_and(|utxo| utxo.wallet != *wallet));
        let outpoints: Vec<OutPoint> = others.copied().collect();
        if outpoints.is_empty() { Ok(()) } else { Err(Rejection::OutpointUnknown { outpoints }) }
    })
}

#[cfg(test)]
#[path = "register_outpoints_tests.rs"]
mod tests;
