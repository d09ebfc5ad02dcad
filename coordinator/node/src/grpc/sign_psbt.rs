//! SignPsbt: the same path for callers that build their own transaction on a reservation.

use std::sync::Arc;

use bitcoin::{Network, OutPoint, Transaction, TxOut};
use onespend_adapters::psbt::{self, PsbtFaults, PsbtLimits, PsbtProposal};
use onespend_core::command::{Change, Command, PayReserved, Recipient};
use onespend_core::ids::{Fence, PaymentKey, RequestId, ReservationId};
use onespend_core::outcome::Rejection;
use onespend_core::state::State;
use onespend_core::transaction::check_recipients;
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::fields::Fields;
use super::{psbt_status, sign_payment, status};
use crate::replacement;

pub(super) struct Parsed {
    key: PaymentKey,
    recipients: Vec<Recipient>,
    reservation: Option<ReservationId>,
    fence: Fence,
    proposal: PsbtProposal,
}

pub(super) async fn sign_psbt(
    api: Arc<Api>,
    call: Call,
    message: v1::SignPsbtRequest,
) -> Result<v1::SignPsbtResponse, Status> {
    let (request, parsed) = parse(&message, api.settings.network)?;
    let applied = api.decide(&call, call.request(request), || draft(&api, &call, &parsed)).await?;
    let (payment, attempt) = sign_payment::finish(&api, &call, &applied).await?;
    Ok(v1::SignPsbtResponse {
        payment: Some(payment),
        attempt_number: attempt.0,
        applied_index: applied.index.0,
        term: applied.term,
    })
}

pub(super) fn parse(message: &v1::SignPsbtRequest, network: Network) -> Result<(RequestId, Parsed), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let wallet = fields.wallet_id(&message.wallet_id);
    let payment = fields.payment_id(&message.payment_id);
    let reservation = fields.optional_reservation_id(&message.reservation_id);
    let recipients = fields.recipients(&message.recipients, network)?;
    match (message.reservation_id.is_empty(), message.fence) {
        (false, 0) => fields.fault("fence", "must be the fence that ReserveUtxos returned"),
        (true, 1..) => fields.fault("fence", "there is no reservation that it could be of"),
        (true, 0) | (false, _) => {}
    }
    let names = wallet.zip(payment).map(|(wallet, payment)| PaymentKey { wallet, payment });
    let ((request, key), recipients) = fields.finish(request.zip(names).zip(recipients))?;
    check_recipients(&recipients).map_err(|rejection| status::order_refused(&rejection))?;
    let proposal = psbt::intake(&message.psbt, &PsbtLimits::default()).map_err(|fault| psbt_status::refused(&fault))?;
    Ok((request, Parsed { key, recipients, reservation, fence: Fence(message.fence), proposal }))
}

async fn draft(api: &Api, call: &Call, parsed: &Parsed) -> Result<Draft, Status> {
    api.demand_synced_chain()?;
    let transaction = parsed.proposal.transaction.clone();
    api.replica.read(|state| {
        state.wallet(&parsed.key.wallet).map_err(|rejection| status::rejected(&rejection))?;
        check_claims(state, parsed).map_err(|faults| psbt_status::refused(&faults))?;
        let further = replacement::check_own(state, &parsed.key, &parsed.recipients, &transaction);
        further.map_err(|rejection| status::rejected(&rejection))
    })?;
    let change = find_change(api, call, &transaction, parsed).await?;
    Ok(Draft::of(Command::PayReserved(PayReserved {
        key: parsed.key.clone(),
        recipients: parsed.recipients.clone(),
        reservation: parsed.reservation,
        fence: parsed.fence,
        transaction,
        change,
    })))
}

/// What the PSBT says of the coins against what our own chain view says (safety 18).
fn check_claims(state: &State, parsed: &Parsed) -> Result<(), PsbtFaults> {
    let view = |outpoint: &OutPoint| {
        let utxo = state.utxo(outpoint).filter(|utxo| utxo.wallet == parsed.key.wallet)?;
        Some(TxOut { value: bitcoin::Amount::from_sat(utxo.value_sat), script_pubkey: utxo.script.clone() })
    };
    psbt::check_claims(&parsed.proposal, view)
}

/// The output that is no recipient's, if it goes to an address of the wallet. `apply` checks that the address was
/// given out.
async fn find_change(
    api: &Api,
    call: &Call,
    transaction: &Transaction,
    parsed: &Parsed,
) -> Result<Option<Change>, Status> {
    let invalid = |vout: u32, rule: &str| status::rejected(&Rejection::OutputInvalid { vout, rule: rule.to_owned() });
    let mut owed: Vec<&Recipient> = parsed.recipients.iter().collect();
    let mut rest = Vec::new();
    for (vout, output) in (0_u32..).zip(&transaction.output) {
        let paid =
            owed.iter().position(|one| one.script == output.script_pubkey && one.amount_sat == output.value.to_sat());
        match paid {
            Some(position) => drop(owed.swap_remove(position)),
            None => rest.push((vout, output)),
        }
    }
    match rest.as_slice() {
        [] => Ok(None),
        [(vout, output)] => {
            let (view, wallet) = (api.replica.raft().view(), &parsed.key.wallet);
            let origin = api.scripts.find(view, wallet, &output.script_pubkey, call.deadline).await;
            let origin = origin.map_err(|_| status::overloaded("this node still derives the wallet's addresses"))?;
            let change = origin.map(|origin| Change { vout: *vout, keychain: origin.keychain, index: origin.index });
            change.map(Some).ok_or_else(|| {
                let rule = "is neither a recipient with its amount nor change to an address that NewAddress gave out";
                invalid(*vout, rule)
            })
        }
        [_, (vout, _), ..] => {
            Err(invalid(*vout, "is a second output that is no recipient's; one change output is allowed"))
        }
    }
}
