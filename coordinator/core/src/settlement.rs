//! How attempts end: at finality depth, and not before (safety 6, 9, 17). And where they stand until then.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Txid};

use crate::command::Relay;
use crate::ids::{AttemptNo, Height, PaymentId, PaymentKey};
use crate::payment::{Attempt, AttemptEnd};
use crate::state::State;
use crate::unconfirmed;
use crate::utxo::{Claim, depth};

/// What a caller is told of an attempt; derived, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptState {
    /// The intent is committed; a signature may exist.
    Signing,
    /// The signature is recorded; no mempool has it yet.
    Signed,
    /// A mempool has it.
    Broadcast,
    /// In a block of this height, below finality depth.
    Confirming(Height),
    /// In a block of this height, at finality depth.
    Settled(Height),
    /// Another transaction that spends one of its inputs is in a block below finality depth.
    Conflicted,
    /// It can never confirm.
    Dead,
    /// Its signer proved that it had not signed it and never would.
    Aborted,
}

/// Where an attempt stands, derived from the coins it spends.
pub fn attempt_state(state: &State, attempt: &Attempt) -> AttemptState {
    match attempt.end {
        Some(AttemptEnd::Settled(height)) => return AttemptState::Settled(height),
        Some(AttemptEnd::Dead(_)) => return AttemptState::Dead,
        Some(AttemptEnd::Aborted) => return AttemptState::Aborted,
        None => {}
    }
    match input_spend(state, attempt) {
        Some((_, height, true)) => AttemptState::Confirming(height),
        Some((_, _, false)) => AttemptState::Conflicted,
        None if attempt.signed.is_none() => AttemptState::Signing,
        None if attempt.relay == Some(Relay::Accepted) => AttemptState::Broadcast,
        None => AttemptState::Signed,
    }
}

/// The deepest spend of any of the attempt's inputs, and whether the attempt itself made it.
fn input_spend(state: &State, attempt: &Attempt) -> Option<(Txid, Height, bool)> {
    let txid = attempt.txid();
    attempt
        .inputs()
        .filter_map(|outpoint| state.utxo(&outpoint)?.spent.as_ref())
        .map(|spend| (spend.txid, spend.height, spend.txid == txid))
        .min_by_key(|(_, height, own)| (*own, *height))
}

/// The transaction that killed one of this attempt's parents, whose change it spends: then its coin never will be.
fn killed_parent(state: &State, attempt: &Attempt) -> Option<Txid> {
    attempt.inputs().find_map(|outpoint| {
        if state.utxo(&outpoint).is_some_and(|utxo| utxo.height.is_some()) {
            return None;
        }
        match state.attempt_of(outpoint.txid)?.2.end {
            Some(AttemptEnd::Dead(by)) => Some(by),
            _ => None,
        }
    })
}

/// After a block: settles what reached finality depth, and frees what only dead attempts would spend (safety 6).
pub(crate) fn settle(state: &mut State, key: &PaymentKey) {
    let ends = ends_of(state, key);
    if ends.is_empty() {
        return;
    }
    end_attempts(state, key, ends);
}

fn ends_of(state: &State, key: &PaymentKey) -> Vec<(AttemptNo, AttemptEnd)> {
    let (Some(payment), Ok(wallet), Ok(tip)) = (state.payment(key), state.wallet(&key.wallet), state.tip()) else {
        return Vec::new();
    };
    let final_depth = wallet.limits.finality_depth;
    let end = |attempt: &Attempt| {
        if let Some((txid, height, own)) = input_spend(state, attempt)
            && depth(height, tip.height) >= final_depth
        {
            return Some(if own { AttemptEnd::Settled(height) } else { AttemptEnd::Dead(txid) });
        }
        killed_parent(state, attempt).map(AttemptEnd::Dead)
    };
    let running = payment.numbered().filter(|(_, attempt)| attempt.end.is_none());
    running.filter_map(|(number, attempt)| Some((number, end(attempt)?))).collect()
}

/// Ends attempts, frees what nobody needs any more, and ends what spends the change of a dead one.
pub(crate) fn end_attempts(state: &mut State, key: &PaymentKey, ends: Vec<(AttemptNo, AttemptEnd)>) {
    state.change_payment(key, |payment| {
        for (number, end) in ends {
            if let Some(attempt) = payment.attempt_mut(number) {
                attempt.end = Some(end);
            }
        }
        if payment.live_attempt().is_none() {
            payment.anchor = None;
        }
    });
    free_unneeded(state, key);
    for child in forget_dead_change(state, key) {
        settle(state, &PaymentKey { wallet: key.wallet.clone(), payment: child });
    }
}

fn free_unneeded(state: &mut State, key: &PaymentKey) {
    let Some(payment) = state.payment(key) else { return };
    let inputs = |live: bool| -> BTreeSet<OutPoint> {
        payment.attempts.iter().filter(|attempt| attempt.is_live() == live).flat_map(Attempt::inputs).collect()
    };
    let unneeded: Vec<OutPoint> = inputs(false).difference(&inputs(true)).copied().collect();
    for outpoint in unneeded {
        state.update_utxo(&outpoint, |utxo| {
            if utxo.claim == Claim::Exposed(key.payment.clone()) && utxo.spent.is_none() {
                utxo.claim = Claim::Free;
            }
        });
        forget_if_dead(state, &outpoint);
    }
}

/// Drops the change of dead attempts that nobody holds, and names the payments that spend it all the same.
fn forget_dead_change(state: &mut State, key: &PaymentKey) -> Vec<PaymentId> {
    let Some(payment) = state.payment(key) else { return Vec::new() };
    let dead: Vec<OutPoint> =
        payment.attempts.iter().filter(|attempt| !attempt.is_live()).filter_map(unconfirmed::change_of).collect();
    let mut children = Vec::new();
    for outpoint in dead {
        forget_if_dead(state, &outpoint);
        if let Some(Claim::Exposed(child)) = state.utxo(&outpoint).map(|utxo| &utxo.claim) {
            children.push(child.clone());
        }
    }
    children
}

/// Drops a coin that is in no block, that nobody claims, and whose transaction is dead.
pub(crate) fn forget_if_dead(state: &mut State, outpoint: &OutPoint) {
    if state.attempt_of(outpoint.txid).is_some_and(|(_, _, attempt)| !attempt.is_live()) {
        forget_unclaimed(state, outpoint);
    }
}

/// Drops a coin that is in no block and that nobody claims.
pub(crate) fn forget_unclaimed(state: &mut State, outpoint: &OutPoint) {
    let unclaimed = state
        .utxo(outpoint)
        .is_some_and(|utxo| utxo.height.is_none() && utxo.claim == Claim::Free && utxo.spent.is_none());
    if unclaimed {
        state.remove_utxo(outpoint);
    }
}
