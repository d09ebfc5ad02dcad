//! What must hold in every state, whatever happened (safety, Invariants). Numbers in the texts are those of the
//! design's list; rules about more than one state are the harness's to check.

use std::collections::BTreeSet;

use bitcoin::OutPoint;

use crate::chain::BlockRecord;
use crate::command::Change;
use crate::ids::{Height, PaymentKey, ReservationId};
use crate::index::Index;
use crate::limits::{MAX_AUDIT_RECORDS, MAX_CACHED_RESULTS, MAX_ENDED_RESERVATIONS, MAX_RESERVATION_LIFE, UNDO_BLOCKS};
use crate::payment::{Attempt, AttemptEnd, Payment, binding_digest};
use crate::state::State;
use crate::utxo::{Claim, Spend, depth};
use crate::wallet::Keychain;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant {rule} is broken: {what}")]
pub struct Violation {
    /// Its number in the design.
    pub rule: u8,
    /// What was found.
    pub what: String,
}

/// Checks every invariant that can be seen in one state.
///
/// # Errors
/// The first [`Violation`] found.
pub fn check(state: &State) -> Result<(), Violation> {
    check_claims(state)?;
    check_reservations(state)?;
    for (key, payment) in state.payments() {
        check_payment(state, key, payment)?;
    }
    check_unconfirmed(state)?;
    check_fences(state)?;
    check_blocks(state)?;
    check_bounds(state)
}

fn broken(rule: u8, what: String) -> Result<(), Violation> {
    Err(Violation { rule, what })
}

/// 1: an outpoint has at most one owner. A claim is one field; here: its owner knows of it.
fn check_claims(state: &State) -> Result<(), Violation> {
    let mut spenders: BTreeSet<(OutPoint, &PaymentKey)> = BTreeSet::new();
    for (key, payment) in state.payments() {
        spenders.extend(payment.attempts.iter().flat_map(Attempt::inputs).map(|outpoint| (outpoint, key)));
    }
    for (outpoint, utxo) in state.utxos() {
        let owned = match &utxo.claim {
            Claim::Free | Claim::Quarantined => true,
            Claim::Reserved(id) => state.reservation(*id).is_some_and(|r| r.outpoints.contains(outpoint)),
            Claim::Exposed(payment) => {
                let key = PaymentKey { wallet: utxo.wallet.clone(), payment: payment.clone() };
                spenders.contains(&(*outpoint, &key))
            }
        };
        if !owned {
            return broken(1, format!("{outpoint} has the claim {:?}, whose owner does not know it", utxo.claim));
        }
        let Ok(wallet) = state.wallet(&utxo.wallet) else {
            return broken(1, format!("{outpoint} belongs to a wallet that is not there"));
        };
        if wallet.next_index(utxo.keychain) <= utxo.index {
            return broken(21, format!("the address of {outpoint} could be given out again"));
        }
    }
    Ok(())
}

/// 2: a reservation holds all of its coins.
fn check_reservations(state: &State) -> Result<(), Violation> {
    for (id, reservation) in state.reservations_from(ReservationId(0)) {
        for outpoint in &reservation.outpoints {
            if state.utxo(outpoint).is_none_or(|utxo| utxo.claim != Claim::Reserved(*id)) {
                return broken(2, format!("{id} does not hold {outpoint}"));
            }
        }
        if id.fence() > state.fence() {
            return broken(12, format!("{id} is granted by an entry of the future"));
        }
        if reservation.expires > reservation.granted.plus(MAX_RESERVATION_LIFE) {
            return broken(2, format!("{id} outlives the longest life of a reservation"));
        }
        if state.ended_reservation(*id).is_some() {
            return broken(2, format!("{id} is active and ended"));
        }
    }
    Ok(())
}

fn check_payment(state: &State, key: &PaymentKey, payment: &Payment) -> Result<(), Violation> {
    let Ok(network) = state.network() else { return broken(7, format!("{key} exists before the chain")) };
    if payment.digest != binding_digest(network, &payment.recipients) {
        return broken(7, format!("{key} is not bound to its recipients"));
    }
    // What the chain undid, nobody can promise any more.
    let undone = payment.undone.is_some();
    let settled = payment.attempts.iter().filter(|a| matches!(a.end, Some(AttemptEnd::Settled(_)))).count();
    if settled > 1 && !undone {
        return broken(8, format!("{settled} attempts of {key} are settled"));
    }
    let live: Vec<_> = payment.numbered().filter(|(_, attempt)| attempt.is_live()).collect();
    if live.is_empty() != payment.anchor.is_none() && !undone {
        return broken(9, format!("{key} has {} live attempts and the anchor {:?}", live.len(), payment.anchor));
    }
    for (number, attempt) in live {
        if !attempt.inputs().any(|outpoint| Some(outpoint) == payment.anchor) && !undone {
            return broken(8, format!("attempt {number} of {key} does not spend the anchor"));
        }
        for outpoint in attempt.inputs() {
            let exposed = |claim: &Claim| match claim {
                Claim::Exposed(owner) => *owner == key.payment || undone,
                Claim::Quarantined => undone,
                Claim::Free | Claim::Reserved(_) => false,
            };
            if attempt.end.is_none() && state.utxo(&outpoint).is_none_or(|utxo| !exposed(&utxo.claim)) {
                return broken(5, format!("{outpoint} of attempt {number} of {key} is not exposed"));
            }
        }
        let next_internal = state.wallet(&key.wallet).map_or(0, |wallet| wallet.next_internal);
        let is_internal = |change: &&Change| change.keychain == Keychain::Internal;
        if attempt.change.as_ref().filter(is_internal).is_some_and(|change| change.index >= next_internal) {
            return broken(21, format!("the change address of attempt {number} of {key} could be given out again"));
        }
        let distinct: BTreeSet<OutPoint> = attempt.inputs().collect();
        if distinct.len() != attempt.transaction.input.len() {
            return broken(19, format!("attempt {number} of {key} spends a coin twice"));
        }
        if attempt.signed.as_ref().is_some_and(|signed| signed.compute_txid() != attempt.txid()) {
            return broken(14, format!("the signature of attempt {number} of {key} is for another transaction"));
        }
    }
    Ok(())
}

/// 24: what a live attempt spends, and is in no block, is no output of a dead attempt of the same wallet: both end at once.
/// Another wallet's payment may be dead earlier, by a lesser finality depth.
fn check_unconfirmed(state: &State) -> Result<(), Violation> {
    for (key, payment) in state.payments() {
        for (number, attempt) in payment.numbered().filter(|(_, attempt)| attempt.end.is_none()) {
            let lost = attempt.inputs().find(|outpoint| {
                let in_no_block = state.utxo(outpoint).is_none_or(|utxo| utxo.height.is_none());
                let of_dead =
                    |(parent, _, made): (&PaymentKey, _, &Attempt)| parent.wallet == key.wallet && !made.is_live();
                in_no_block && state.attempt_of(outpoint.txid).is_some_and(of_dead)
            });
            if let Some(outpoint) = lost {
                return broken(24, format!("attempt {number} of {key} spends {outpoint} of a dead attempt"));
            }
        }
    }
    Ok(())
}

/// 12: fences strictly increase with the attempts of a payment, and no two attempts share one.
fn check_fences(state: &State) -> Result<(), Violation> {
    let mut seen = BTreeSet::new();
    for (key, payment) in state.payments() {
        let fences: Vec<_> = payment.attempts.iter().map(|attempt| attempt.fence).collect();
        if !fences.is_sorted() || fences.iter().any(|fence| !seen.insert(*fence) || *fence > state.fence()) {
            return broken(12, format!("the fences of {key} are {fences:?}"));
        }
    }
    Ok(())
}

/// 17: the chain that we follow is unbroken, and nothing is in a block above its tip.
fn check_blocks(state: &State) -> Result<(), Violation> {
    let Ok(tip) = state.tip() else { return Ok(()) };
    if state.block(tip.height).is_none_or(|record| record.hash != tip.hash) {
        return broken(17, "the tip has no record".to_owned());
    }
    let lowest = state.blocks.iter().next().map_or(Height(0), |(height, _)| *height);
    if state.blocks.len() as u64 != u64::from(depth(lowest, tip.height)) {
        return broken(17, format!("blocks are missing between {lowest} and {}", tip.height));
    }
    let made: BTreeSet<_> = in_blocks(state, |record| &record.received);
    let spent: BTreeSet<_> = in_blocks(state, |record| &record.spent);
    let (mut made_seen, mut spent_seen) = (0, 0);
    for (outpoint, utxo) in state.utxos() {
        let spent_at = utxo.spent.as_ref().map(|spend| spend.height);
        if [utxo.height, spent_at].into_iter().flatten().any(|height| height > tip.height) {
            return broken(17, format!("{outpoint} is in a block above the tip"));
        }
        // What was taken away before it was there is in no block as long as that stands.
        let is_possible = |spend: &Spend| match utxo.height {
            Some(height) => !spend.is_loss() && height <= spend.height,
            None => spend.is_loss(),
        };
        if utxo.spent.as_ref().is_some_and(|spend| !is_possible(spend)) {
            return broken(17, format!("{outpoint} is spent before it is there"));
        }
        // What a block did is in its record as long as the block can be taken back. The first record may be that of
        // the block where the cluster started, which holds only what later scans found.
        for (at, undo, seen) in [(utxo.height, &made, &mut made_seen), (spent_at, &spent, &mut spent_seen)] {
            let Some(at) = at.filter(|at| *at >= lowest) else { continue };
            if !undo.contains(&(at, *outpoint)) {
                return broken(17, format!("the block at height {at} does not know what it did to {outpoint}"));
            }
            *seen += 1;
        }
    }
    if (made_seen, spent_seen) != (made.len(), spent.len()) {
        return broken(17, "a block's record names coins that it did not make or spend".to_owned());
    }
    Ok(())
}

fn in_blocks(state: &State, outpoints: fn(&BlockRecord) -> &Vec<OutPoint>) -> BTreeSet<(Height, OutPoint)> {
    state.blocks.iter().flat_map(|(height, record)| outpoints(record).iter().map(|o| (*height, *o))).collect()
}

/// 15: hashes and indexes are those of the rows. Bounds are kept.
fn check_bounds(state: &State) -> Result<(), Violation> {
    if !state.hashes_are_true() {
        return broken(15, "a table's running hash is not that of its rows".to_owned());
    }
    if state.index != Index::of(state) {
        return broken(15, "an index differs from its tables".to_owned());
    }
    let within = state.requests.len() <= MAX_CACHED_RESULTS
        && state.ended.len() <= MAX_ENDED_RESERVATIONS
        && state.blocks.len() <= UNDO_BLOCKS as usize + 1
        && state.audit.len() <= MAX_AUDIT_RECORDS;
    if !within {
        return broken(25, "a bounded table is above its bound".to_owned());
    }
    Ok(())
}
