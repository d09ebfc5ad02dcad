//! What a replacement, or a child, pays and spends: facts that the leader decides on its view of the state, and that
//! `apply` checks again.
//!
//! A replacement keeps the inputs of the attempt that it replaces, so that the mempool drops that one for it, and with
//! them the anchor (safety 8). Its change pays the higher fee; further coins come in only where that does not suffice.

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use onespend_core::command::Recipient;
use onespend_core::ids::{AttemptNo, PaymentKey};
use onespend_core::limits::{MAX_ATTEMPTS, MAX_OUTPOINTS, MIN_FEERATE_SAT_KVB};
use onespend_core::outcome::{FeeLimit, Rejection};
use onespend_core::payment::{Attempt, AttemptEnd, Payment, binding_digest};
use onespend_core::replacement::{least_fee, replaced};
use onespend_core::state::State;
use onespend_core::transaction::{build, signed_weight};
use onespend_core::unconfirmed::change_of;
use onespend_core::wallet::{Keychain, Wallet};

/// What the replacement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To pay, or to cancel, as the attempt before, for more fees.
    Bump,
    /// To give the coins back.
    Cancel,
}

/// A replacement as `apply` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The newest live attempt, which it replaces.
    pub previous: AttemptNo,
    /// Coins to spend besides those of that attempt.
    pub more: Vec<OutPoint>,
    /// The fee.
    pub fee_sat: u64,
}

/// Plans a replacement of the newest live attempt at a feerate in sat per 1000 vB, or what a replacement has to pay at
/// least where that is more.
///
/// # Errors
/// [`Rejection::PaymentUnknown`]; [`Rejection::NotReplaceable`] where no attempt lives, and for a bump where there are
/// [`MAX_ATTEMPTS`]; [`Rejection::FeeLimit`] for a bump to a feerate that is not above the newest attempt's;
/// [`Rejection::InsufficientFunds`].
pub fn plan(state: &State, key: &PaymentKey, feerate_sat_kvb: u64, purpose: Purpose) -> Result<Plan, Rejection> {
    let wallet = state.wallet(&key.wallet)?;
    let payment = state.payment(key).ok_or(Rejection::PaymentUnknown)?;
    let (previous, newest) = newest(payment)?;
    match purpose {
        // The same attempt again: `apply` answers with it.
        Purpose::Cancel if newest.is_cancel() => return Ok(Plan { previous, more: Vec::new(), fee_sat: 0 }),
        Purpose::Cancel => {}
        Purpose::Bump => {
            check_above(newest, wallet, feerate_sat_kvb)?;
            check_number(payment)?;
        }
    }
    let cancels = purpose == Purpose::Cancel || newest.is_cancel();
    let recipients = if cancels { &[][..] } else { &payment.recipients };
    let (script, dust_sat) = change_script(wallet, newest)?;
    let paid_sat = recipients.iter().fold(0_u64, |sum, one| sum.saturating_add(one.amount_sat));
    let fee = |inputs: &[OutPoint], change: bool| {
        let weight = weight(wallet, inputs, recipients, change.then(|| (script.clone(), dust_sat)));
        let satisfaction = wallet.descriptor.satisfaction_weight();
        at_feerate(weight, feerate_sat_kvb).max(least_fee(payment, weight, satisfaction))
    };
    let mut inputs: Vec<OutPoint> = newest.inputs().collect();
    let own = inputs.len();
    let mut others = spare_coins(state, key);
    loop {
        let left_sat = state.value_of(&inputs).checked_sub(paid_sat);
        let with_change = fee(&inputs, true);
        let found = left_sat.and_then(|left_sat| {
            if left_sat >= with_change.saturating_add(dust_sat) {
                return Some(with_change);
            }
            // What is not worth an output goes to the fee. What is given back needs its output.
            (!cancels && left_sat >= fee(&inputs, false)).then_some(left_sat)
        });
        if let Some(fee_sat) = found {
            return Ok(Plan { previous, more: inputs.split_off(own), fee_sat });
        }
        let Some(coin) = others.next().filter(|_| inputs.len() < MAX_OUTPOINTS) else {
            let needed_sat = paid_sat.saturating_add(with_change);
            return Err(Rejection::InsufficientFunds { needed_sat, available_sat: state.value_of(&inputs) });
        };
        inputs.push(coin);
    }
}

/// What the leader refuses of a caller's own transaction as a further attempt of a payment, beside all that `apply` refuses.
/// The same bytes again are the same attempt (safety 11), and an order of other content is left to `apply` (safety 7).
///
/// # Errors
/// [`Rejection::NotReplaceable`] where there are [`MAX_ATTEMPTS`], and while the payment is being cancelled (safety 10);
/// [`Rejection::TransactionInvalid`] for one that spends an output of what it would replace.
pub fn check_own(
    state: &State,
    key: &PaymentKey,
    recipients: &[Recipient],
    transaction: &Transaction,
) -> Result<(), Rejection> {
    let digest = binding_digest(state.network()?, recipients);
    let Some(payment) = state.payment(key).filter(|payment| payment.digest == digest) else { return Ok(()) };
    let is_same = |attempt: &Attempt| attempt.transaction == *transaction && attempt.end != Some(AttemptEnd::Aborted);
    if payment.attempts.iter().any(is_same) {
        return Ok(());
    }
    // Of what is in a block, and of what others depend on, `apply` tells.
    let Ok(replaced) = replaced(state, key) else { return Ok(()) };
    check_number(payment)?;
    let Some(payment) = replaced else { return Ok(()) };
    if payment.live_attempt().is_some_and(|(_, newest)| newest.is_cancel()) {
        let why = "the payment is being cancelled: BumpFee raises the fee of that".to_owned();
        return Err(Rejection::NotReplaceable { why });
    }
    check_parents(payment, transaction)
}

/// Whether a payment may have a further attempt beside those that it has, the ended ones included.
fn check_number(payment: &Payment) -> Result<(), Rejection> {
    let number = payment.attempts.len();
    if number < MAX_ATTEMPTS {
        return Ok(());
    }
    let why =
        format!("the payment has {number} attempts, and gets no more: cancel it, or pay for the newest by a child");
    Err(Rejection::NotReplaceable { why })
}

/// A transaction is never mined beside one that it replaces, so nor is it where it spends what that one makes. And then no
/// further attempt would be granted: each would take away the coin of this one.
fn check_parents(payment: &Payment, transaction: &Transaction) -> Result<(), Rejection> {
    let spends =
        |txid: Txid| transaction.input.iter().map(|input| input.previous_output).find(|coin| coin.txid == txid);
    let found = payment.numbered().find_map(|(number, attempt)| Some((number, spends(attempt.txid())?)));
    let Some((number, coin)) = found else { return Ok(()) };
    let rule = format!("{coin} is an output of attempt {number} of this payment, beside which it can never confirm");
    Err(Rejection::TransactionInvalid { rule })
}

/// The fee of a child that spends the change of the newest attempt, so that both together have a feerate in sat per
/// 1000 vB; and the number of that attempt.
///
/// # Errors
/// [`Rejection::PaymentUnknown`]; [`Rejection::NotReplaceable`] where no attempt lives or it has no change;
/// [`Rejection::FeeLimit`] where the feerate is not above the parent's.
pub fn child_fee(state: &State, key: &PaymentKey, feerate_sat_kvb: u64) -> Result<(AttemptNo, u64), Rejection> {
    let wallet = state.wallet(&key.wallet)?;
    let payment = state.payment(key).ok_or(Rejection::PaymentUnknown)?;
    let (number, parent) = newest(payment)?;
    let Some(change) = change_of(parent) else {
        return Err(Rejection::NotReplaceable { why: "the attempt has no change that a child could spend".to_owned() });
    };
    check_above(parent, wallet, feerate_sat_kvb)?;
    let (script, amount_sat) = change_script(wallet, parent)?;
    let weight = weight(wallet, &[change], &[Recipient { script, amount_sat }], None);
    let parent_weight = signed_weight(&parent.transaction, wallet.descriptor.satisfaction_weight());
    let both_sat = at_feerate(vbytes(weight).saturating_add(vbytes(parent_weight)).saturating_mul(4), feerate_sat_kvb);
    let fee_sat = both_sat.saturating_sub(parent.fee_sat).max(at_feerate(weight, MIN_FEERATE_SAT_KVB));
    Ok((number, fee_sat))
}

fn newest(payment: &Payment) -> Result<(AttemptNo, &Attempt), Rejection> {
    payment.live_attempt().ok_or_else(|| Rejection::NotReplaceable {
        why: "every attempt is dead: order the payment again under its id".to_owned(),
    })
}

/// A feerate that is not above what is paid already would change nothing.
fn check_above(attempt: &Attempt, wallet: &Wallet, feerate_sat_kvb: u64) -> Result<(), Rejection> {
    let vsize = vbytes(signed_weight(&attempt.transaction, wallet.descriptor.satisfaction_weight()));
    let paid_sat_kvb = attempt.fee_sat.saturating_mul(1000) / vsize.max(1);
    if feerate_sat_kvb > paid_sat_kvb {
        return Ok(());
    }
    let bound = paid_sat_kvb.saturating_add(1);
    Err(Rejection::FeeLimit { limit: FeeLimit::ReplacementFeerate, got: feerate_sat_kvb, bound })
}

/// Where the change goes: where it went before, or to the next change address.
fn change_script(wallet: &Wallet, newest: &Attempt) -> Result<(ScriptBuf, u64), Rejection> {
    let (keychain, index) = match &newest.change {
        Some(change) => (change.keychain, change.index),
        None => (Keychain::Internal, wallet.next_internal),
    };
    let script = wallet.descriptor.script(keychain, index).ok_or(Rejection::WalletWatchOnly)?;
    let dust_sat = script.minimal_non_dust().to_sat();
    Ok((script, dust_sat))
}

/// Coins that anybody might reserve now, the most valuable first: so the replacement stays small.
fn spare_coins(state: &State, key: &PaymentKey) -> impl Iterator<Item = OutPoint> {
    let tip = state.tip().ok();
    state.free_coins(&key.wallet).map(|(_, outpoint)| outpoint).filter(move |outpoint| {
        let mature = |tip| state.utxo(outpoint).is_some_and(|utxo| utxo.is_mature(tip));
        tip.is_some_and(|tip| mature(tip.height))
    })
}

fn weight(wallet: &Wallet, inputs: &[OutPoint], recipients: &[Recipient], change: Option<(ScriptBuf, u64)>) -> u64 {
    let (transaction, _) = build(inputs, recipients, change);
    signed_weight(&transaction, wallet.descriptor.satisfaction_weight())
}

fn vbytes(weight: u64) -> u64 {
    weight.div_ceil(4)
}

fn at_feerate(weight: u64, sat_kvb: u64) -> u64 {
    vbytes(weight).saturating_mul(sat_kvb).div_ceil(1000)
}

#[cfg(test)]
#[path = "replacement_tests.rs"]
mod tests;
