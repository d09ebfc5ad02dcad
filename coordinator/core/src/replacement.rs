//! Fee bumps and cancellation: further attempts of a payment, all of which spend its anchor (safety 8 to 10).
//!
//! A mempool takes a replacement that pays more than what it replaces (BIP-125, rules 3 and 4) at a higher feerate
//! (Bitcoin Core 31 compares feerate diagrams, which for one transaction against another comes to that). Which of the
//! earlier attempts a mempool holds is not known here, so a replacement has to beat them all.

use bitcoin::{OutPoint, Transaction, Txid};

use crate::apply::Context;
use crate::command::{BumpByChild, Change, Recipient, Replace};
use crate::ids::{AttemptNo, PaymentKey};
use crate::limits::INCREMENTAL_FEERATE_SAT_KVB;
use crate::outcome::{FeeLimit, Outcome, Rejection};
use crate::payment::{
    Attempt, AttemptEnd, AttemptKind, Payment, binding_digest, change_output, check_owner, signable_wallet,
};
use crate::reservation;
use crate::settlement::{AttemptState, attempt_state};
use crate::signing::{self, Proposal};
use crate::state::State;
use crate::transaction::{self, signed_weight};
use crate::unconfirmed;
use crate::wallet::{Keychain, Wallet};

/// The payment, if it has attempts that a further one would replace; `None` where it is new or all its attempts are
/// dead, so that a new anchor may be taken (safety 9).
///
/// # Errors
/// [`Rejection::PaymentUnresolved`] where a block has an attempt, or what conflicts with one;
/// [`Rejection::HasDescendants`].
pub fn replaced<'a>(state: &'a State, key: &PaymentKey) -> Result<Option<&'a Payment>, Rejection> {
    let Some(payment) = state.payment(key).filter(|payment| payment.live_attempt().is_some()) else { return Ok(None) };
    // The one in a block, if it is one of ours, else one that somebody else's transaction stands against.
    let at = |attempt: &Attempt| match attempt_state(state, attempt) {
        AttemptState::Confirming(_) | AttemptState::Settled(_) => 2,
        AttemptState::Conflicted => 1,
        AttemptState::Signing
        | AttemptState::Signed
        | AttemptState::Broadcast
        | AttemptState::Dead
        | AttemptState::Aborted => 0,
    };
    let in_block = payment.numbered().max_by_key(|(_, attempt)| at(attempt)).filter(|(_, attempt)| at(attempt) > 0);
    if let Some((attempt, found)) = in_block {
        return Err(unresolved(attempt, found.txid()));
    }
    if let Some((outpoint, payment)) = unconfirmed::descendant(state, payment) {
        return Err(Rejection::HasDescendants { outpoint, payment });
    }
    Ok(Some(payment))
}

/// A further attempt only where no end of an earlier one was undone, and a new anchor only when every earlier attempt is
/// dead (safety 9, 17). And a backup that was put back may lack what was done for the payment after it: a replacement,
/// which then is the very transaction that conflicts with the older attempts, or an attempt with another anchor. So an
/// attempt of an earlier epoch that ended allows no new anchor (safety 30).
///
/// # Errors
/// [`Rejection::PaymentUnresolved`] with the transaction to look at.
pub fn check_ends(state: &State, payment: &Payment) -> Result<(), Rejection> {
    let live = payment.live_attempt();
    if payment.undone.is_some()
        && let Some((number, attempt)) = live.or_else(|| payment.numbered().next_back())
    {
        return Err(unresolved(number, attempt.txid()));
    }
    if live.is_some() { Ok(()) } else { check_epoch(state, payment) }
}

/// The same, and no further attempt where all that still live may have been given up after the backup, without a trace, and
/// the payment been ordered anew with another anchor: they are not signed, and their signer can give up such (safety 30).
pub(crate) fn check_further(state: &State, key: &PaymentKey, payment: &Payment) -> Result<(), Rejection> {
    check_ends(state, payment)?;
    let is_signed = |attempt: &Attempt| attempt.is_live() && attempt.signed.is_some();
    let fenced = state.wallet(&key.wallet)?.fence_key.is_some();
    if fenced && !payment.attempts.iter().any(is_signed) { check_epoch(state, payment) } else { Ok(()) }
}

/// Whether all attempts are of this epoch.
fn check_epoch(state: &State, payment: &Payment) -> Result<(), Rejection> {
    match payment.numbered().find(|(_, attempt)| attempt.fence.epoch() < state.epoch()) {
        Some((number, Attempt { end: Some(AttemptEnd::Dead(by)), .. })) => Err(unresolved(number, *by)),
        Some((number, attempt)) => Err(unresolved(number, attempt.txid())),
        None => Ok(()),
    }
}

fn unresolved(attempt: AttemptNo, txid: Txid) -> Rejection {
    Rejection::PaymentUnresolved { attempt, txid: txid.to_string() }
}

/// safety 8.
pub(crate) fn check_anchor(payment: &Payment, transaction: &Transaction) -> Result<(), Rejection> {
    let Some(anchor) = payment.anchor else { return Ok(()) };
    #[cfg(feature = "sabotage")]
    if crate::sabotage::Rule::Anchor.is_broken() {
        return Ok(());
    }
    if transaction.input.iter().any(|input| input.previous_output == anchor) {
        return Ok(());
    }
    Err(Rejection::ReplacementMissingAnchor { anchor })
}

/// What a replacement must pay at least, in sat: more than every live attempt, and more per byte.
pub fn least_fee(payment: &Payment, weight: u64, satisfaction_weight: u64) -> u64 {
    let vsize = weight.div_ceil(4).max(1);
    let live = || payment.attempts.iter().filter(|attempt| attempt.is_live());
    let highest = live().map(|attempt| attempt.fee_sat).max().unwrap_or(0);
    let above_fees = highest.saturating_add(vsize.saturating_mul(INCREMENTAL_FEERATE_SAT_KVB).div_ceil(1000));
    let above_feerates = live().map(|attempt| {
        let replaced = signed_weight(&attempt.transaction, satisfaction_weight).div_ceil(4).max(1);
        // fee / vsize > attempt.fee / replaced, in whole sat.
        attempt.fee_sat.saturating_mul(vsize) / replaced + 1
    });
    above_feerates.max().unwrap_or(0).max(above_fees)
}

pub(crate) fn check_fee(
    payment: &Payment,
    transaction: &Transaction,
    fee_sat: u64,
    wallet: &Wallet,
) -> Result<(), Rejection> {
    let satisfaction = wallet.descriptor.satisfaction_weight();
    let weight = signed_weight(transaction, satisfaction);
    let vsize = weight.div_ceil(4).max(1);
    let live = payment.attempts.iter().filter(|attempt| attempt.is_live());
    let highest = live.map(|attempt| attempt.fee_sat).max().unwrap_or(0);
    let above_fees = highest.saturating_add(vsize.saturating_mul(INCREMENTAL_FEERATE_SAT_KVB).div_ceil(1000));
    if fee_sat < above_fees {
        return Err(Rejection::FeeLimit { limit: FeeLimit::ReplacementFee, got: fee_sat, bound: above_fees });
    }
    let least = least_fee(payment, weight, satisfaction);
    if fee_sat < least {
        // Rounded apart, so that the two differ also where the fees do by one satoshi.
        let (got, bound) = (fee_sat.saturating_mul(1000) / vsize, least.saturating_mul(1000).div_ceil(vsize));
        return Err(Rejection::FeeLimit { limit: FeeLimit::ReplacementFeerate, got, bound });
    }
    Ok(())
}

/// What a replacement is built from.
struct Plan {
    inputs: Vec<OutPoint>,
    recipients: Vec<Recipient>,
    kind: Option<AttemptKind>,
    /// Where the change of the attempt before went; it goes there again.
    change: Option<Change>,
}

/// BumpFee: the newest live attempt again, for more fees.
pub(crate) fn bump(state: &mut State, ctx: &Context, command: &Replace) -> Result<Outcome, Rejection> {
    let (payment, previous) = newest(state, ctx, command)?;
    let cancels = previous.is_cancel();
    let plan = Plan {
        inputs: inputs(previous, &command.more),
        recipients: if cancels { Vec::new() } else { payment.recipients.clone() },
        kind: previous.kind,
        change: previous.change.clone(),
    };
    replace(state, ctx, command, &plan)
}

/// CancelPayment: the coins of the newest live attempt go back to the wallet. The same attempt again where the newest
/// one cancels already.
pub(crate) fn cancel(state: &mut State, ctx: &Context, command: &Replace) -> Result<Outcome, Rejection> {
    if let Some(payment) = state.payment(&command.key)
        && let Some((attempt, newest)) = payment.live_attempt()
        && newest.is_cancel()
    {
        check_owner(ctx, payment)?;
        return Ok(Outcome::Permitted { payment: command.key.clone(), attempt });
    }
    let (_, previous) = newest(state, ctx, command)?;
    let plan = Plan {
        inputs: inputs(previous, &command.more),
        recipients: Vec::new(),
        kind: Some(AttemptKind::Cancel),
        change: previous.change.clone(),
    };
    replace(state, ctx, command, &plan)
}

fn inputs(previous: &Attempt, more: &[OutPoint]) -> Vec<OutPoint> {
    previous.inputs().chain(more.iter().copied()).collect()
}

/// The newest live attempt, if it is the one that the leader decided on and may be replaced by this caller.
fn newest<'a>(state: &'a State, ctx: &Context, command: &Replace) -> Result<(&'a Payment, &'a Attempt), Rejection> {
    state.wallet(&command.key.wallet)?;
    let payment = state.payment(&command.key).ok_or(Rejection::PaymentUnknown)?;
    check_owner(ctx, payment)?;
    check_further(state, &command.key, payment)?;
    let Some(payment) = replaced(state, &command.key)? else {
        let why = "every attempt is dead: order the payment again under its id".to_owned();
        return Err(Rejection::NotReplaceable { why });
    };
    match payment.live_attempt() {
        Some((number, attempt)) if number == command.previous => Ok((payment, attempt)),
        _ => Err(Rejection::StaleBasis { what: "the payment has a newer attempt".to_owned() }),
    }
}

fn replace(state: &mut State, ctx: &Context, command: &Replace, plan: &Plan) -> Result<Outcome, Rejection> {
    let key = &command.key;
    let wallet = signable_wallet(state, key)?;
    let payment = state.payment(key).ok_or(Rejection::PaymentUnknown)?;
    if !command.more.is_empty() {
        reservation::check_available(state, &key.wallet, &command.more).map_err(reservation::choose_again)?;
    }
    let paid_sat = plan.recipients.iter().fold(0_u64, |sum, one| sum.saturating_add(one.amount_sat));
    let input_sat = state.value_of(&plan.inputs);
    let needed_sat = paid_sat.saturating_add(command.fee_sat);
    let Some(change_sat) = input_sat.checked_sub(needed_sat) else {
        return Err(Rejection::InsufficientFunds { needed_sat, available_sat: input_sat });
    };
    let (keychain, index) = match &plan.change {
        Some(change) => (change.keychain, change.index),
        None => (Keychain::Internal, wallet.next_internal),
    };
    let change = change_output(wallet, change_sat, keychain, index)?;
    if plan.recipients.is_empty() && change.is_none() {
        let rule = "nothing would be left for the wallet: the fee takes all".to_owned();
        return Err(Rejection::TransactionInvalid { rule });
    }
    let (transaction, vout) = transaction::build(&plan.inputs, &plan.recipients, change);
    // What is given back counts as paid: the share that the fee takes of it is capped as well.
    let worth_sat = if plan.recipients.is_empty() { change_sat } else { paid_sat };
    let fee_sat = transaction::check_amounts(&transaction, input_sat, wallet, worth_sat)?;
    check_anchor(payment, &transaction)?;
    check_fee(payment, &transaction, fee_sat, wallet)?;
    unconfirmed::check_cluster(state, &key.wallet, &transaction)?;
    let change = vout.map(|vout| Change { vout, keychain, index });
    let uses_change = change.is_some();
    let (recipients, digest) = (payment.recipients.clone(), payment.digest);
    let proposal = Proposal { change, kind: plan.kind, ..Proposal::paying(transaction, fee_sat, &recipients, digest) };
    let granted = signing::grant(state, ctx, key, proposal)?;
    if uses_change {
        state.use_index(&key.wallet, keychain, index);
    }
    Ok(granted)
}

/// BumpFeeCpfp: a child payment to an own address that spends the change of the parent, and pays for both.
pub(crate) fn by_child(state: &mut State, ctx: &Context, command: &BumpByChild) -> Result<Outcome, Rejection> {
    let key = PaymentKey { wallet: command.key.wallet.clone(), payment: command.child.clone() };
    let parent_payment = state.payment(&command.key).ok_or(Rejection::PaymentUnknown)?;
    check_owner(ctx, parent_payment)?;
    if let Some(known) = known_child(state, ctx, &key, command)? {
        return Ok(known);
    }
    let wallet = signable_wallet(state, &key)?;
    let parent = parent(state, parent_payment, command.parent)?;
    if parent_payment.has_rival(parent) {
        // It would pay for one of two transactions that may both confirm.
        return Err(unresolved(command.parent, parent.txid()));
    }
    let (Some(outpoint), Some(change)) = (unconfirmed::change_of(parent), &parent.change) else {
        return Err(Rejection::NotReplaceable { why: "the attempt has no change that a child could spend".to_owned() });
    };
    check_unclaimed(state, outpoint)?;
    let value_sat = parent.transaction.output.get(change.vout as usize).map_or(0, |output| output.value.to_sat());
    let index = wallet.next_internal;
    let left_sat = value_sat.checked_sub(command.fee_sat).filter(|left| *left > 0);
    let Some((script, amount_sat)) =
        left_sat.map(|left| change_output(wallet, left, Keychain::Internal, index)).transpose()?.flatten()
    else {
        return Err(Rejection::InsufficientFunds { needed_sat: command.fee_sat, available_sat: value_sat });
    };
    let recipients = vec![Recipient { script, amount_sat }];
    let (transaction, _) = transaction::build(&[outpoint], &recipients, None);
    check_package(wallet, parent_payment, parent, &transaction, command.fee_sat)?;
    let digest = binding_digest(state.network()?, &recipients);
    let bumps = Some(command.key.payment.clone());
    let was_there = state.utxo(&outpoint).is_some();
    unconfirmed::note_change(state, &command.key, command.parent);
    let forget = |state: &mut State| {
        if !was_there {
            crate::settlement::forget_unclaimed(state, &outpoint);
        }
    };
    if let Err(refusal) = unconfirmed::check_cluster(state, &key.wallet, &transaction) {
        forget(state);
        return Err(refusal);
    }
    let proposal = Proposal { bumps, ..Proposal::paying(transaction, command.fee_sat, &recipients, digest) };
    let granted = signing::grant(state, ctx, &key, proposal);
    if granted.is_ok() {
        state.use_index(&key.wallet, Keychain::Internal, index);
    } else {
        forget(state);
    }
    granted
}

/// The child that has this name already: the same, or somebody else's.
fn known_child(
    state: &State,
    ctx: &Context,
    key: &PaymentKey,
    command: &BumpByChild,
) -> Result<Option<Outcome>, Rejection> {
    let Some(child) = state.payment(key) else { return Ok(None) };
    if child.bumps.as_ref() != Some(&command.key.payment) {
        return Err(Rejection::PaymentIdReused);
    }
    check_owner(ctx, child)?;
    match child.live_attempt() {
        Some((attempt, _)) => Ok(Some(Outcome::Permitted { payment: key.clone(), attempt })),
        None => Err(Rejection::NotReplaceable { why: "this child is dead: choose another name".to_owned() }),
    }
}

fn parent<'a>(state: &State, payment: &'a Payment, number: AttemptNo) -> Result<&'a Attempt, Rejection> {
    let not = |why: &str| Rejection::NotReplaceable { why: why.to_owned() };
    let (newest, attempt) = payment.live_attempt().ok_or_else(|| not("every attempt is dead"))?;
    if newest != number {
        return Err(Rejection::StaleBasis { what: "the payment has a newer attempt".to_owned() });
    }
    match attempt_state(state, attempt) {
        AttemptState::Signed | AttemptState::Broadcast => Ok(attempt),
        AttemptState::Signing => Err(not("the attempt is not signed yet")),
        AttemptState::Confirming(_) | AttemptState::Settled(_) => Err(not("the attempt is in a block")),
        AttemptState::Conflicted | AttemptState::Dead | AttemptState::Aborted => Err(not("the attempt is conflicted")),
    }
}

fn check_unclaimed(state: &State, outpoint: OutPoint) -> Result<(), Rejection> {
    use crate::outcome::{Conflict, Holder};
    use crate::utxo::Claim;
    let holder = match state.utxo(&outpoint).map(|utxo| &utxo.claim) {
        None | Some(Claim::Free) => return Ok(()),
        Some(Claim::Reserved(id)) => Holder::Reservation(*id),
        Some(Claim::Exposed(payment)) => Holder::Payment(payment.clone()),
        Some(Claim::Quarantined) => Holder::Quarantine,
    };
    Err(Rejection::OutpointReserved { conflicts: vec![Conflict { outpoint, holder }] })
}

/// Caps for both together: the child pays for its parent.
fn check_package(
    wallet: &Wallet,
    payment: &Payment,
    parent: &Attempt,
    child: &Transaction,
    fee_sat: u64,
) -> Result<(), Rejection> {
    let satisfaction = wallet.descriptor.satisfaction_weight();
    let weight = signed_weight(child, satisfaction).saturating_add(signed_weight(&parent.transaction, satisfaction));
    let paid_sat = payment.recipients.iter().fold(0_u64, |sum, one| sum.saturating_add(one.amount_sat));
    wallet.limits.check_fee(fee_sat.saturating_add(parent.fee_sat), weight, paid_sat)
}
