//! SubmitSignedTransaction: what an external signer made of a permit is checked against our own view, recorded, and
//! broadcast (safety 13, 18, 20).

use std::sync::Arc;

use bitcoin::consensus::deserialize;
use bitcoin::{Amount, Transaction, TxOut, Txid};
use onespend_adapters::signer::outside;
use onespend_core::command::Command;
use onespend_core::ids::{AttemptNo, PaymentKey, RequestId};
use onespend_core::outcome::Rejection;
use onespend_core::payment::{Attempt, Payment};
use onespend_core::state::State;
use onespend_core::wallet::WalletDescriptor;
use onespend_proto::v1::{self, ErrorReason};
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::fields::Fields;
use super::{sign_payment, status};

/// The largest standard transaction in bytes: its weight is at least its size.
const MAX_TRANSACTION_BYTES: usize = 400_000;

pub(super) struct Parsed {
    request: RequestId,
    key: PaymentKey,
    transaction: Transaction,
}

/// What a signed transaction is checked against.
struct Permitted {
    attempt: AttemptNo,
    descriptor: WalletDescriptor,
    txid: Txid,
    prevouts: Vec<TxOut>,
}

pub(super) async fn submit_signed_transaction(
    api: Arc<Api>,
    call: Call,
    message: v1::SubmitSignedTransactionRequest,
) -> Result<v1::SubmitSignedTransactionResponse, Status> {
    let parsed = parse(&message)?;
    let request = call.request(parsed.request.clone());
    let applied = api.decide(&call, request, || std::future::ready(draft(&api, &parsed))).await?;
    let txid = parsed.transaction.compute_txid();
    let attempt = api.replica.read(|state| number(state, &parsed.key, txid));
    let attempt = attempt.ok_or_else(status::payment_unknown)?;
    api.outbox.put(parsed.key.clone(), attempt);
    Ok(v1::SubmitSignedTransactionResponse {
        payment: Some(sign_payment::show(&api, &parsed.key)?),
        attempt_number: attempt.0,
        applied_index: applied.index.0,
        term: applied.term,
    })
}

pub(super) fn parse(message: &v1::SubmitSignedTransactionRequest) -> Result<Parsed, Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let key = fields.payment_key(&message.wallet_id, &message.payment_id);
    let bytes = &message.raw_transaction;
    let transaction = if (1..=MAX_TRANSACTION_BYTES).contains(&bytes.len()) {
        deserialize::<Transaction>(bytes).map_err(|error| error.to_string())
    } else {
        Err(format!("{} bytes: must be 1 to {MAX_TRANSACTION_BYTES}", bytes.len()))
    };
    let transaction = transaction.map_err(|why| fields.fault("raw_transaction", why)).ok();
    let ((request, key), transaction) = fields.finish(request.zip(key).zip(transaction))?;
    Ok(Parsed { request, key, transaction })
}

fn draft(api: &Api, parsed: &Parsed) -> Result<Draft, Status> {
    let Parsed { key, transaction, .. } = parsed;
    let permitted = api.replica.read(|state| permitted(state, key, transaction.compute_txid()))?;
    outside::check_signed(&permitted.descriptor, transaction, permitted.txid, &permitted.prevouts)
        .map_err(|error| mismatch(&error.to_string()))?;
    let (key, attempt, transaction) = (key.clone(), permitted.attempt, transaction.clone());
    Ok(Draft::of(Command::RecordSignature { key, attempt, transaction }))
}

fn number(state: &State, key: &PaymentKey, txid: Txid) -> Option<AttemptNo> {
    Some(attempt_of(state.payment(key)?, txid)?.0)
}

/// The attempt of a payment that has this txid: the one that may still confirm, should the same bytes have been permitted
/// again after their signer had given them up.
fn attempt_of(payment: &Payment, txid: Txid) -> Option<(AttemptNo, &Attempt)> {
    let same = payment.numbered().filter(|(_, attempt)| attempt.txid() == txid);
    same.max_by_key(|(number, attempt)| (attempt.is_live(), *number))
}

/// The attempt that has this txid, with the coins that it spends as we know them.
fn permitted(state: &State, key: &PaymentKey, txid: Txid) -> Result<Permitted, Status> {
    let refused = |rejection: &Rejection| status::rejected(rejection);
    let wallet = state.wallet(&key.wallet).map_err(|rejection| refused(&rejection))?;
    let payment = state.payment(key).ok_or_else(|| refused(&Rejection::PaymentUnknown))?;
    if let Some(recovery) = state.recovery() {
        return Err(refused(&Rejection::RecoveryMode { why: recovery.why.clone() }));
    }
    let (attempt, permitted) =
        attempt_of(payment, txid).ok_or_else(|| mismatch(&format!("no attempt of this payment is {txid}")))?;
    let prevouts = permitted.inputs().map(|outpoint| {
        let utxo = state.utxo(&outpoint)?;
        Some(TxOut { value: Amount::from_sat(utxo.value_sat), script_pubkey: utxo.script.clone() })
    });
    let prevouts = prevouts.collect::<Option<Vec<TxOut>>>();
    let prevouts = prevouts.ok_or_else(|| mismatch("its coins were spent so long ago that they are forgotten"))?;
    Ok(Permitted { attempt, descriptor: wallet.descriptor.clone(), txid, prevouts })
}

fn mismatch(rule: &str) -> Status {
    status::invalid(ErrorReason::SignatureMismatch, "raw_transaction", rule, vec![("rule", rule.to_owned())])
}
