//! Change of this service's own transactions that is in no block yet (safety 24).
//!
//! Such a coin is a row like any other, without a height. It is there from the moment that a mempool took its
//! transaction, or that a child spends it, until its transaction is dead.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Transaction};

use crate::ids::{AttemptNo, PaymentId, PaymentKey, WalletId};
use crate::limits::{MAX_UNCONFIRMED_CLUSTER, MAX_UNCONFIRMED_CLUSTER_VBYTES};
use crate::outcome::Rejection;
use crate::payment::{Attempt, Payment};
use crate::settlement::{AttemptState, attempt_state};
use crate::state::State;
use crate::transaction::signed_weight;
use crate::utxo::{Claim, Utxo};

/// The outpoint of an attempt's change.
pub fn change_of(attempt: &Attempt) -> Option<OutPoint> {
    attempt.change.as_ref().map(|change| OutPoint { txid: attempt.txid(), vout: change.vout })
}

/// Makes the row of an attempt's change, where there is none yet. The wallet's keys are those of the attempt.
pub(crate) fn note_change(state: &mut State, key: &PaymentKey, number: AttemptNo) {
    let Some(attempt) = state.payment(key).and_then(|payment| payment.attempt(number)) else { return };
    let (Some(change), Some(outpoint)) = (&attempt.change, change_of(attempt)) else { return };
    let Some(output) = attempt.transaction.output.get(change.vout as usize) else { return };
    if state.utxo(&outpoint).is_some() {
        return;
    }
    let utxo = Utxo {
        wallet: key.wallet.clone(),
        value_sat: output.value.to_sat(),
        script: output.script_pubkey.clone(),
        keychain: change.keychain,
        index: change.index,
        height: None,
        coinbase: false,
        claim: Claim::Free,
        spent: None,
    };
    state.put_utxo(outpoint, utxo);
}

/// Makes the rows of change that mempools took before the wallet opted in.
pub(crate) fn note_earlier_change(state: &mut State, wallet: &WalletId) {
    if !has_opted_in(state, wallet) {
        return;
    }
    let open = state.open_payments().into_iter().filter(|key| key.wallet == *wallet);
    let relayed = open.filter_map(|key| {
        let (number, attempt) = state.payment(&key)?.live_attempt()?;
        (attempt_state(state, attempt) == AttemptState::Broadcast).then_some((key, number))
    });
    let relayed: Vec<_> = relayed.collect();
    for (key, number) in relayed {
        note_change(state, &key, number);
    }
}

/// Whether the wallet lets unconfirmed change be spent.
pub(crate) fn has_opted_in(state: &State, wallet: &WalletId) -> bool {
    state.wallet(wallet).is_ok_and(|wallet| wallet.limits.spend_unconfirmed_change == Some(true))
}

/// Whether a coin that is in no block may be reserved: the wallet opted in, it is change of the newest live attempt of
/// its payment, and a mempool has that transaction. Selection takes none of them: they are reserved by name.
pub fn is_spendable(state: &State, outpoint: &OutPoint, utxo: &Utxo) -> bool {
    has_opted_in(state, &utxo.wallet)
        && utxo.height.is_none()
        && utxo.spent.is_none()
        && is_newest_change(state, outpoint)
}

fn is_newest_change(state: &State, outpoint: &OutPoint) -> bool {
    let Some((key, number, attempt)) = state.attempt_of(outpoint.txid) else { return false };
    let Some(payment) = state.payment(key) else { return false };
    // Whoever spends it pays for its transaction, and that may not be one of two that may both confirm.
    payment.live_attempt().is_some_and(|(newest, _)| newest == number)
        && !payment.has_rival(attempt)
        && change_of(attempt) == Some(*outpoint)
        && attempt_state(state, attempt) == AttemptState::Broadcast
}

/// Another payment that may be signed and spends an output of a live attempt: its change, or, where a block that had the
/// attempt was taken away, whatever it paid to a wallet here.
pub(crate) fn descendant(state: &State, payment: &Payment) -> Option<(OutPoint, PaymentId)> {
    let live = payment.attempts.iter().filter(|attempt| attempt.end.is_none());
    live.flat_map(outputs).find_map(|outpoint| match &state.utxo(&outpoint)?.claim {
        Claim::Exposed(child) => Some((outpoint, child.clone())),
        Claim::Free | Claim::Reserved(_) | Claim::Quarantined => None,
    })
}

/// The outpoints that an attempt makes.
pub(crate) fn outputs(attempt: &Attempt) -> impl Iterator<Item = OutPoint> + use<> {
    let (txid, outputs) = (attempt.txid(), attempt.transaction.output.len());
    (0..outputs).filter_map(move |vout| Some(OutPoint { txid, vout: u32::try_from(vout).ok()? }))
}

/// Checks that a transaction does not make the transactions that hang together in a mempool too many or too large.
pub(crate) fn check_cluster(state: &State, wallet: &WalletId, transaction: &Transaction) -> Result<(), Rejection> {
    let satisfaction = state.wallet(wallet)?.descriptor.satisfaction_weight();
    let vbytes = |transaction: &Transaction| signed_weight(transaction, satisfaction).div_ceil(4);
    let mut waiting: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
    let mut seen = BTreeSet::new();
    let (mut count, mut size) = (1_u64, vbytes(transaction));
    while let Some(outpoint) = waiting.pop() {
        if state.utxo(&outpoint).is_none_or(|utxo| utxo.height.is_some()) {
            continue;
        }
        let Some((_, _, parent)) = state.attempt_of(outpoint.txid) else { continue };
        if !seen.insert(outpoint.txid) {
            continue;
        }
        count += 1;
        size = size.saturating_add(vbytes(&parent.transaction));
        waiting.extend(parent.inputs());
        if count > MAX_UNCONFIRMED_CLUSTER || size > MAX_UNCONFIRMED_CLUSTER_VBYTES {
            break;
        }
    }
    let too_long = |what: &str, got, bound| Err(Rejection::ChainTooLong { what: what.to_owned(), got, bound });
    if count > MAX_UNCONFIRMED_CLUSTER {
        return too_long("number", count, MAX_UNCONFIRMED_CLUSTER);
    }
    if size > MAX_UNCONFIRMED_CLUSTER_VBYTES {
        return too_long("size in vB", size, MAX_UNCONFIRMED_CLUSTER_VBYTES);
    }
    Ok(())
}
