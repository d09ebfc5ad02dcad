//! DeclareLost: a deposit that a payment spends was reorganised away and cannot come back. Nobody is believed: the deposit
//! is told by its txid, and the leader reads the block that has what took it away (safety 6).

use std::sync::Arc;

use bitcoin::consensus::deserialize;
use bitcoin::{BlockHash, OutPoint, Transaction, Txid};
use onespend_core::command::{Command, DeclareLost};
use onespend_core::ids::{RequestId, WalletId};
use onespend_core::lost;
use onespend_core::outcome::Rejection;
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::fields::Fields;
use super::{reservation_view, status};
use crate::bitcoind::ConflictError;

/// A transaction without its witnesses is never larger in a block.
const MAX_DEPOSIT_BYTES: usize = 1_000_000;

pub(super) struct Parsed {
    request: RequestId,
    wallet: WalletId,
    outpoint: OutPoint,
    /// What made the coin.
    deposit: Transaction,
    by: Txid,
    block: BlockHash,
    note: String,
}

pub(super) async fn declare_lost(
    api: Arc<Api>,
    call: Call,
    message: v1::DeclareLostRequest,
) -> Result<v1::DeclareLostResponse, Status> {
    let parsed = parse(&message)?;
    let request = call.request(parsed.request.clone());
    let applied = api.decide(&call, request, || draft(&api, &parsed)).await?;
    let utxos = api.replica.read(|state| reservation_view::coins(state, &[parsed.outpoint]));
    Ok(v1::DeclareLostResponse { utxos, applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::DeclareLostRequest) -> Result<Parsed, Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let wallet = fields.wallet_id(&message.wallet_id);
    let outpoint = fields.outpoint("outpoint", message.outpoint.as_ref());
    let deposit = deposit(&mut fields, &message.raw_deposit, outpoint);
    let by = fields.hash::<Txid>("conflicting_txid", &message.conflicting_txid);
    let block = fields.hash::<BlockHash>("block_hash", &message.block_hash);
    // The leader checks; the note is for those who read the audit.
    fields.checked(&message.note, true);
    let named = request.zip(wallet).zip(outpoint.zip(deposit));
    let (((request, wallet), (outpoint, deposit)), (by, block)) = fields.finish(named.zip(by.zip(block)))?;
    Ok(Parsed { request, wallet, outpoint, deposit, by, block, note: message.note.trim().to_owned() })
}

/// The transaction that made the coin: no other one has its txid.
fn deposit(fields: &mut Fields, bytes: &[u8], outpoint: Option<OutPoint>) -> Option<Transaction> {
    let read = if (1..=MAX_DEPOSIT_BYTES).contains(&bytes.len()) {
        deserialize::<Transaction>(bytes).map_err(|error| error.to_string())
    } else {
        Err(format!("{} bytes: must be 1 to {MAX_DEPOSIT_BYTES}", bytes.len()))
    };
    let deposit = read.map_err(|why| fields.fault("raw_deposit", why)).ok()?;
    let (got, wanted) = (deposit.compute_txid(), outpoint?.txid);
    if got != wanted {
        fields.fault("raw_deposit", format!("is transaction {got}, which does not make the coin"));
        return None;
    }
    Some(deposit)
}

async fn draft(api: &Arc<Api>, parsed: &Parsed) -> Result<Draft, Status> {
    api.demand_synced_chain()?;
    let Parsed { wallet, outpoint, by, .. } = parsed;
    let checked = api.replica.read(|state| lost::check_coin(state, wallet, outpoint));
    checked.map_err(|rejection| status::rejected(&rejection))?;
    let found = api.bitcoind.find_conflict(&parsed.deposit, *by, parsed.block).await;
    let block = found.map_err(|error| match error {
        ConflictError::Unproven(why) => status::rejected(&Rejection::NotLost { why: why.to_owned() }),
        other => status::chain_not_synced(&other.to_string()),
    })?;
    let (wallet, note) = (wallet.clone(), parsed.note.clone());
    Ok(Draft::of(Command::DeclareLost(DeclareLost { wallet, outpoint: *outpoint, by: *by, block, note })))
}

#[cfg(test)]
#[path = "declare_lost_tests.rs"]
mod tests;
