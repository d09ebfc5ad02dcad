//! How attempts end: at finality depth, and not before (safety 6, 9, 17). And where they stand until then.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Txid};

use crate::command::Relay;
use crate::ids::{AttemptNo, Height, PaymentKey, WalletId};
use crate::payment::{Attempt, AttemptEnd, Payment};
use crate::reservation::{self, Ended};
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

/// Where an attempt stands: how it ended, or what the coins it spends say.
pub fn attempt_state(state: &State, attempt: &Attempt) -> AttemptState {
    match (&attempt.end, input_spend(state, attempt)) {
        (Some(AttemptEnd::Settled(height)), _) => AttemptState::Settled(*height),
        (Some(AttemptEnd::Dead(_)), _) => AttemptState::Dead,
        (Some(AttemptEnd::Aborted), _) => AttemptState::Aborted,
        (None, Some((_, height, true))) => AttemptState::Confirming(height),
        (None, Some((_, _, false))) => AttemptState::Conflicted,
        (None, None) if attempt.signed.is_none() => AttemptState::Signing,
        (None, None) if attempt.relay == Some(Relay::Accepted) => AttemptState::Broadcast,
        (None, None) => AttemptState::Signed,
    }
}

/// Whether a block of that height has the finality depth of the attempt's wallet.
fn is_final(state: &State, attempt: &Attempt, height: Height) -> bool {
    let wallet = attempt.inputs().find_map(|outpoint| state.wallet(&state.utxo(&outpoint)?.wallet).ok());
    let (Some(wallet), Ok(tip)) = (wallet, state.tip()) else { return false };
    depth(height, tip.height) >= wallet.limits.finality_depth
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

/// The transaction that killed one of this attempt's parents, an output of which it spends: then its coin never will be. The
/// parent may be of a wallet with a lesser finality depth, whose word does not count for this one.
fn killed_parent(state: &State, attempt: &Attempt) -> Option<Txid> {
    parents(state, attempt).find_map(|parent| {
        let Some(AttemptEnd::Dead(by)) = parent.end else { return None };
        // A spend that is not there any more is deeper than any finality depth.
        killed_at(state, parent, by).is_none_or(|height| is_final(state, attempt, height)).then_some(by)
    })
}

/// The attempts that made coins which this one spends, and which are in no block.
fn parents<'a>(state: &'a State, attempt: &'a Attempt) -> impl Iterator<Item = &'a Attempt> {
    let waits = |outpoint: &OutPoint| state.utxo(outpoint).is_none_or(|utxo| utxo.height.is_none());
    attempt.inputs().filter(waits).filter_map(|outpoint| Some(state.attempt_of(outpoint.txid)?.2))
}

/// The height of the transaction that killed an attempt: it spends one of its coins, or of a parent's.
fn killed_at(state: &State, attempt: &Attempt, by: Txid) -> Option<Height> {
    let spends = attempt.inputs().filter_map(|outpoint| state.utxo(&outpoint)?.spent.as_ref());
    let own = spends.filter(|spend| spend.txid == by).map(|spend| spend.height).next();
    own.or_else(|| parents(state, attempt).find_map(|parent| killed_at(state, parent, by)))
}

/// After a block: settles what reached finality depth, and frees what only dead attempts would spend (safety 6).
pub(crate) fn settle(state: &mut State, key: &PaymentKey) {
    let ends = ends_of(state, key);
    if !ends.is_empty() {
        end_attempts(state, key, ends);
    }
}

fn ends_of(state: &State, key: &PaymentKey) -> Vec<(AttemptNo, AttemptEnd)> {
    let running =
        state.payment(key).into_iter().flat_map(Payment::numbered).filter(|(_, attempt)| attempt.end.is_none());
    running.filter_map(|(number, attempt)| Some((number, end_by_now(state, attempt)?))).collect()
}

/// How the chain ends an attempt.
fn end_by_now(state: &State, attempt: &Attempt) -> Option<AttemptEnd> {
    if let Some((txid, height, own)) = input_spend(state, attempt)
        && is_final(state, attempt, height)
    {
        return Some(if own { AttemptEnd::Settled(height) } else { AttemptEnd::Dead(txid) });
    }
    killed_parent(state, attempt).map(AttemptEnd::Dead)
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
        settle(state, &child);
    }
}

fn free_unneeded(state: &mut State, key: &PaymentKey) {
    let Some(payment) = state.payment(key) else { return };
    let inputs = |needed: bool| -> BTreeSet<OutPoint> {
        let attempts = payment.attempts.iter().filter(|attempt| attempt.is_live() == needed);
        attempts.flat_map(Attempt::inputs).collect()
    };
    let unneeded: Vec<OutPoint> = inputs(false).difference(&inputs(true)).copied().collect();
    for outpoint in unneeded {
        let heir = heir(state, &key.wallet, &outpoint);
        state.update_utxo(&outpoint, |utxo| {
            if utxo.claim == Claim::Exposed(key.payment.clone()) && utxo.spent.is_none() {
                utxo.claim = heir.clone();
            }
        });
        forget_if_dead(state, &outpoint);
    }
}

/// Whose a coin is once nobody has it any more: a payment's whose end was undone, if an attempt of it spends the coin and
/// may confirm again, else nobody's. Such an attempt could not have it while another payment did.
pub(crate) fn heir(state: &State, wallet: &WalletId, outpoint: &OutPoint) -> Claim {
    let mut undone = state.undone_payments().filter(|key| key.wallet == *wallet);
    let spends = |attempt: &Attempt| attempt.is_live() && attempt.inputs().any(|input| input == *outpoint);
    let heir = undone.find(|key| state.payment(key).is_some_and(|payment| payment.attempts.iter().any(spends)));
    heir.map_or(Claim::Free, |key| Claim::Exposed(key.payment.clone()))
}

/// Takes back ends that the chain does not bear out any more: a reorganisation removed the block that they rest on, or a
/// block has an attempt that its signer had given up (safety 6, 9, 17). From now on these attempts may confirm again, so
/// they get their coins again, as far as no other payment has signed for them since.
pub(crate) fn revive(state: &mut State, key: &PaymentKey, numbers: &[AttemptNo], height: Height) {
    let revived = state.change_payment(key, |payment| {
        payment.undone = Some(height);
        let mut inputs = Vec::new();
        for number in numbers {
            if let Some(attempt) = payment.attempt_mut(*number) {
                attempt.end = None;
                inputs.extend(attempt.inputs());
            }
        }
        inputs
    });
    for outpoint in revived.unwrap_or_default() {
        expose_again(state, key, &outpoint);
    }
}

fn expose_again(state: &mut State, key: &PaymentKey, outpoint: &OutPoint) {
    if state.utxo(outpoint).is_none() {
        // Change that went with its transaction's death, which is undone as well.
        let parent = state.attempt_of(outpoint.txid).map(|(parent, number, _)| (parent.clone(), number));
        if let Some((parent, number)) = parent {
            unconfirmed::note_change(state, &parent, number);
        }
    }
    let claim = state.utxo(outpoint).map(|utxo| utxo.claim.clone());
    if let Some(Claim::Reserved(id)) = claim {
        // Whoever has it would sign for what another transaction may spend.
        reservation::end(state, id, Ended::Expired);
    }
    state.update_utxo(outpoint, |utxo| {
        if utxo.claim == Claim::Free {
            utxo.claim = Claim::Exposed(key.payment.clone());
        }
    });
}

/// Drops the change of dead attempts that nobody holds, and names the payments that spend what those would have made, in
/// whichever wallet it is.
fn forget_dead_change(state: &mut State, key: &PaymentKey) -> BTreeSet<PaymentKey> {
    let Some(payment) = state.payment(key) else { return BTreeSet::new() };
    let dead = payment.attempts.iter().filter(|attempt| !attempt.is_live());
    let dead: Vec<OutPoint> = dead.flat_map(unconfirmed::outputs).collect();
    let mut children = BTreeSet::new();
    for outpoint in dead {
        forget_if_dead(state, &outpoint);
        let Some(utxo) = state.utxo(&outpoint) else { continue };
        if let Claim::Exposed(child) = &utxo.claim {
            children.insert(PaymentKey { wallet: utxo.wallet.clone(), payment: child.clone() });
        }
    }
    children
}

/// Drops change that is in no block, that nobody claims, and whose transaction is dead: it can be made up again from the
/// attempt, should its death be undone. Any other output of it stays as it is.
pub(crate) fn forget_if_dead(state: &mut State, outpoint: &OutPoint) {
    let is_change = |attempt: &Attempt| unconfirmed::change_of(attempt) == Some(*outpoint);
    if state.attempt_of(outpoint.txid).is_some_and(|(_, _, attempt)| !attempt.is_live() && is_change(attempt)) {
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
