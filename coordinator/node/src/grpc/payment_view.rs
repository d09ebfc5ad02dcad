//! Payments as callers see them. States are derived from the coins that the attempts spend.

use std::time::{Duration, UNIX_EPOCH};

use bitcoin::consensus::serialize;
use bitcoin::{Address, Network};
use onespend_adapters::signer::outside;
use onespend_core::command::{Recipient, Relay};
use onespend_core::ids::{AttemptNo, PaymentKey};
use onespend_core::payment::{Attempt, Payment};
use onespend_core::replacement::check_ends;
use onespend_core::settlement::{AttemptState, attempt_state};
use onespend_core::signing::{SigningPermit, abort_message};
use onespend_core::state::State;
use onespend_core::transaction::signed_weight;
use onespend_core::utxo::depth;
use onespend_core::wallet::SignerRef;
use onespend_proto::v1;

use super::utxo_view::{keychain, outpoint, sat, tip};
use crate::alarms::Alarms;

/// One payment, with what an external signer needs of its attempts. Deriving keys takes a while, so lists go without.
/// So does a node whose folder came out of a copy, until the cluster knows of that (safety 30), and one whose state as
/// many contradict as share (safety 31).
pub(crate) fn payment_with_permits(alarms: &Alarms, state: &State, key: &PaymentKey, shown: &Payment) -> v1::Payment {
    let mut view = payment(state, key, shown);
    if alarms.stop_signing() {
        return view;
    }
    for ((number, attempt), view) in shown.numbered().zip(&mut view.attempts) {
        show_permit(state, key, number, attempt, view);
    }
    view
}

fn show_permit(state: &State, key: &PaymentKey, number: AttemptNo, attempt: &Attempt, view: &mut v1::Attempt) {
    let Ok(wallet) = state.wallet(&key.wallet) else { return };
    if wallet.signer != SignerRef::External || attempt_state(state, attempt) != AttemptState::Signing {
        return;
    }
    // A frozen wallet has no permits, nor has a state that is not confirmed (safety 30).
    let permit = SigningPermit::for_attempt(state, key, number);
    let psbt = permit.and_then(|permit| outside::permit_psbt(&permit).ok());
    view.psbt = psbt.map(|psbt| psbt.serialize()).unwrap_or_default().into();
    if let (Some(_), Ok(network)) = (wallet.fence_key, state.network()) {
        view.abort_message = abort_message(network, key, number, attempt).to_vec().into();
    }
}

/// One payment.
pub(crate) fn payment(state: &State, key: &PaymentKey, payment: &Payment) -> v1::Payment {
    let network = state.network().unwrap_or(Network::Bitcoin);
    let leading = leading_attempt(state, payment);
    let created = UNIX_EPOCH.checked_add(Duration::from_millis(payment.created_wall_ms)).unwrap_or(UNIX_EPOCH);
    v1::Payment {
        payment_id: key.payment.to_string(),
        wallet_id: key.wallet.to_string(),
        owner: payment.owner.to_string(),
        recipients: payment.recipients.iter().map(|recipient| recipient_view(recipient, network)).collect(),
        state: payment_state(state, payment).into(),
        anchor: payment.anchor.as_ref().map(outpoint),
        attempts: payment.numbered().map(|(number, attempt)| attempt_view(state, key, number, attempt)).collect(),
        txid: leading.map(|attempt| attempt.txid().to_string()).unwrap_or_default(),
        create_time: Some(prost_types::Timestamp::from(created)),
        update_index: payment.changed_at.0,
        amount_sat: sat(payment.recipients.iter().fold(0, |sum, one| sum.saturating_add(one.amount_sat))),
        bumps_payment_id: payment.bumps.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Where a payment stands: where its furthest attempt stands. Dead is one that may be ordered again.
pub(crate) fn payment_state(state: &State, payment: &Payment) -> v1::PaymentState {
    let leading = leading_attempt(state, payment);
    let rivalled = leading.is_some_and(|attempt| payment.has_rival(attempt));
    match leading.map(|attempt| attempt_state(state, attempt)) {
        // Two attempts could confirm, both of them: a human has to look.
        Some(AttemptState::Signing | AttemptState::Signed | AttemptState::Broadcast) if rivalled => {
            v1::PaymentState::Conflicted
        }
        None | Some(AttemptState::Dead | AttemptState::Aborted) if check_ends(state, payment).is_err() => {
            v1::PaymentState::Conflicted
        }
        None | Some(AttemptState::Dead | AttemptState::Aborted) => v1::PaymentState::Dead,
        Some(AttemptState::Settled(_)) if leading.is_some_and(Attempt::is_cancel) => v1::PaymentState::Cancelled,
        Some(AttemptState::Signing) => v1::PaymentState::Signing,
        Some(AttemptState::Signed) => v1::PaymentState::Signed,
        Some(AttemptState::Broadcast) => v1::PaymentState::Broadcast,
        Some(AttemptState::Confirming(_)) => v1::PaymentState::Confirming,
        Some(AttemptState::Settled(_)) => v1::PaymentState::Settled,
        Some(AttemptState::Conflicted) => v1::PaymentState::Conflicted,
    }
}

/// A state's name in metrics and in health answers.
pub(crate) fn word(state: v1::PaymentState) -> &'static str {
    match state {
        v1::PaymentState::Unspecified => "unspecified",
        v1::PaymentState::Signing => "signing",
        v1::PaymentState::Signed => "signed",
        v1::PaymentState::Broadcast => "broadcast",
        v1::PaymentState::Confirming => "confirming",
        v1::PaymentState::Settled => "settled",
        v1::PaymentState::Conflicted => "conflicted",
        v1::PaymentState::Cancelled => "cancelled",
        v1::PaymentState::Dead => "dead",
    }
}

/// The attempt that counts: one in a block before all others, else the newest that may still confirm.
fn leading_attempt<'a>(state: &State, payment: &'a Payment) -> Option<&'a Attempt> {
    let mined = payment.attempts.iter().find(|attempt| {
        matches!(attempt_state(state, attempt), AttemptState::Settled(_) | AttemptState::Confirming(_))
    });
    mined.or_else(|| payment.live_attempt().map(|(_, attempt)| attempt))
}

fn recipient_view(recipient: &Recipient, network: Network) -> v1::Recipient {
    use v1::recipient::Destination;
    let destination = Address::from_script(&recipient.script, network).map_or_else(
        |_| Destination::Script(recipient.script.to_bytes().into()),
        |address| Destination::Address(address.to_string()),
    );
    v1::Recipient { destination: Some(destination), amount_sat: sat(recipient.amount_sat) }
}

#[allow(clippy::cast_precision_loss)] // Fees and sizes are far below 2^53.
fn attempt_view(state: &State, key: &PaymentKey, number: AttemptNo, attempt: &Attempt) -> v1::Attempt {
    let (shown, height) = shown_state(attempt_state(state, attempt));
    let satisfaction = state.wallet(&key.wallet).map_or(0, |wallet| wallet.descriptor.satisfaction_weight());
    let vsize = match &attempt.signed {
        Some(signed) => signed.vsize() as u64,
        None => signed_weight(&attempt.transaction, satisfaction).div_ceil(4),
    };
    let change = attempt.change.as_ref().map(|change| v1::Change {
        vout: change.vout,
        value_sat: attempt.transaction.output.get(change.vout as usize).map_or(0, |output| sat(output.value.to_sat())),
        keychain: keychain(change.keychain).into(),
        index: change.index,
    });
    v1::Attempt {
        number: number.0,
        fence: attempt.fence.0,
        txid: attempt.txid().to_string(),
        state: shown.into(),
        inputs: attempt.inputs().map(|input| outpoint(&input)).collect(),
        fee_sat: sat(attempt.fee_sat),
        vsize,
        feerate_sat_vb: attempt.fee_sat as f64 / vsize.max(1) as f64,
        raw_transaction: attempt.signed.as_ref().map(serialize).unwrap_or_default().into(),
        change,
        confirmed_height: height,
        depth: if height == 0 { 0 } else { depth(onespend_core::ids::Height(height), tip(state)) },
        last_broadcast_error: match &attempt.relay {
            Some(Relay::Refused(why)) => why.clone(),
            Some(Relay::Accepted) | None => String::new(),
        },
        unsigned_transaction: serialize(&attempt.transaction).into(),
        purpose: purpose(attempt).into(),
        // The permit is shown of one payment alone: `payment_with_permits`.
        ..v1::Attempt::default()
    }
}

fn purpose(attempt: &Attempt) -> v1::AttemptPurpose {
    if attempt.is_cancel() { v1::AttemptPurpose::Cancel } else { v1::AttemptPurpose::Pay }
}

fn shown_state(state: AttemptState) -> (v1::AttemptState, u32) {
    match state {
        AttemptState::Signing => (v1::AttemptState::Signing, 0),
        AttemptState::Signed => (v1::AttemptState::Signed, 0),
        AttemptState::Broadcast => (v1::AttemptState::Broadcast, 0),
        AttemptState::Confirming(height) => (v1::AttemptState::Confirming, height.0),
        AttemptState::Settled(height) => (v1::AttemptState::Settled, height.0),
        AttemptState::Conflicted => (v1::AttemptState::Conflicted, 0),
        AttemptState::Dead => (v1::AttemptState::Dead, 0),
        AttemptState::Aborted => (v1::AttemptState::Aborted, 0),
    }
}
