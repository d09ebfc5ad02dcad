//! Payments: what is owed to whom, and the attempts that would settle it.

use std::collections::BTreeSet;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{Network, OutPoint, Transaction, Txid};
use minicbor::{Decode, Encode};

use crate::apply::Context;
use crate::codec;
use crate::command::{Change, CreatePayment, PayReserved, Recipient, Relay};
use crate::ids::{AttemptNo, CallerId, Fence, Height, LogIndex, Millis, PaymentKey};
use crate::outcome::{Outcome, Rejection};
use crate::reservation::{self, Ended};
use crate::signing::{self, Proposal};
use crate::state::State;
use crate::transaction;
use crate::utxo::{Claim, depth};
use crate::wallet::{Keychain, SignerRef, Wallet};

/// An immutable order and everything that was done to fulfil it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Payment {
    /// Who ordered it.
    #[n(0)]
    pub owner: CallerId,
    /// Binds the payment's name to its content, for ever (safety 7).
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// Who gets how much.
    #[n(2)]
    pub recipients: Vec<Recipient>,
    /// The outpoint that every attempt spends; none when all attempts are dead (safety 8 and 9).
    #[n(3)]
    #[cbor(with = "codec::maybe")]
    pub anchor: Option<OutPoint>,
    /// What was permitted, oldest first; number `n` is at position `n - 1`.
    #[n(4)]
    pub attempts: Vec<Attempt>,
    /// Logical time of the order.
    #[n(5)]
    pub created: Millis,
    /// The leader's wall clock at the order, for people to read.
    #[n(6)]
    pub created_wall_ms: u64,
    /// The last entry that changed what a caller sees of it.
    #[n(7)]
    pub changed_at: LogIndex,
}

/// One unsigned transaction, for ever (safety 11).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attempt {
    /// The log index of the intent.
    #[n(0)]
    pub fence: Fence,
    /// The unsigned transaction.
    #[n(1)]
    #[cbor(with = "codec::one")]
    pub transaction: Transaction,
    /// What it pays in fees.
    #[n(2)]
    pub fee_sat: u64,
    /// Its change output, if any.
    #[n(3)]
    pub change: Option<Change>,
    /// The signed transaction, once recorded (safety 13).
    #[n(4)]
    #[cbor(with = "codec::maybe")]
    pub signed: Option<Transaction>,
    /// What bitcoind last said to it.
    #[n(5)]
    pub relay: Option<Relay>,
    /// How it ended, if it did.
    #[n(6)]
    pub end: Option<AttemptEnd>,
}

/// The two ends of an attempt. Both are final.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum AttemptEnd {
    /// Confirmed at finality depth, in the block of this height.
    #[n(0)]
    Settled(#[n(0)] Height),
    /// This transaction conflicts with it and is at finality depth.
    #[n(1)]
    Dead(
        #[n(0)]
        #[cbor(with = "codec::one")]
        Txid,
    ),
}

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
}

impl Attempt {
    /// Its txid, which signatures do not change (safety 14).
    pub fn txid(&self) -> Txid {
        self.transaction.compute_txid()
    }

    /// The coins it spends.
    pub fn inputs(&self) -> impl Iterator<Item = OutPoint> + '_ {
        self.transaction.input.iter().map(|input| input.previous_output)
    }

    /// Whether it may still confirm or already has.
    pub fn is_live(&self) -> bool {
        !matches!(self.end, Some(AttemptEnd::Dead(_)))
    }
}

impl Payment {
    /// The attempt of that number.
    pub fn attempt(&self, number: AttemptNo) -> Option<&Attempt> {
        self.attempts.get(number.0.checked_sub(1)? as usize)
    }

    pub(crate) fn attempt_mut(&mut self, number: AttemptNo) -> Option<&mut Attempt> {
        self.attempts.get_mut(number.0.checked_sub(1)? as usize)
    }

    /// Attempts with their numbers.
    pub fn numbered(&self) -> impl DoubleEndedIterator<Item = (AttemptNo, &Attempt)> {
        self.attempts.iter().enumerate().map(|(position, attempt)| (number_at(position), attempt))
    }

    /// The newest attempt that is not dead.
    pub fn live_attempt(&self) -> Option<(AttemptNo, &Attempt)> {
        self.numbered().rev().find(|(_, attempt)| attempt.is_live())
    }

    /// Whether one of its attempts is at finality depth.
    pub fn is_settled(&self) -> bool {
        self.attempts.iter().any(|attempt| matches!(attempt.end, Some(AttemptEnd::Settled(_))))
    }
}

/// The number of the attempt at a position of the list. There are never as many attempts as numbers.
pub(crate) fn number_at(position: usize) -> AttemptNo {
    AttemptNo(u32::try_from(position).map_or(u32::MAX, |position| position.saturating_add(1)))
}

/// The digest that binds a payment's name to network, scripts and amounts, in any order (safety 7).
pub fn binding_digest(network: Network, recipients: &[Recipient]) -> [u8; 32] {
    let mut sorted: Vec<&Recipient> = recipients.iter().collect();
    sorted.sort();
    let mut engine = sha256::Hash::engine();
    engine.input(&network.magic().to_bytes());
    for recipient in sorted {
        engine.input(&(recipient.script.len() as u64).to_be_bytes());
        engine.input(recipient.script.as_bytes());
        engine.input(&recipient.amount_sat.to_be_bytes());
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

pub(crate) fn create(state: &mut State, ctx: &Context, command: &CreatePayment) -> Result<Outcome, Rejection> {
    let paid_sat = transaction::check_recipients(&command.recipients)?;
    let digest = binding_digest(state.network()?, &command.recipients);
    if let Some(known) = known_payment(state, ctx, &command.key, &digest)? {
        return Ok(known);
    }
    let wallet = signable_wallet(state, &command.key)?;
    if command.outpoints.is_empty() {
        // The leader saw a payment that needed no coins; its attempt died before this entry.
        return Err(Rejection::StaleBasis { what: "no coins were chosen".to_owned() });
    }
    reservation::check_available(state, &command.key.wallet, &command.outpoints).map_err(reservation::choose_again)?;
    let input_sat = state.value_of(&command.outpoints);
    let needed_sat = paid_sat.saturating_add(command.fee_sat);
    let Some(change_sat) = input_sat.checked_sub(needed_sat) else {
        return Err(Rejection::InsufficientFunds { needed_sat, available_sat: input_sat });
    };
    let change_index = wallet.next_internal;
    let change = change_output(wallet, change_sat, change_index)?;
    let (transaction, change_vout) = transaction::build(&command.outpoints, &command.recipients, change);
    let fee_sat = transaction::check_amounts(&transaction, input_sat, wallet, paid_sat)?;
    let change = change_vout.map(|vout| Change { vout, keychain: Keychain::Internal, index: change_index });
    let uses_change = change.is_some();
    let proposal = Proposal { transaction, fee_sat, change, recipients: &command.recipients, digest };
    let granted = signing::grant(state, ctx, &command.key, proposal)?;
    if uses_change {
        state.use_index(&command.key.wallet, Keychain::Internal, change_index);
    }
    Ok(granted)
}

fn change_output(wallet: &Wallet, change_sat: u64, index: u32) -> Result<Option<(bitcoin::ScriptBuf, u64)>, Rejection> {
    if change_sat == 0 {
        return Ok(None);
    }
    let script = wallet.descriptor.script(Keychain::Internal, index).ok_or_else(|| Rejection::OutOfBounds {
        what: "change address index".to_owned(),
        got: u64::from(index),
        min: 0,
        max: (1 << 31) - 1,
    })?;
    let dust = script.minimal_non_dust().to_sat();
    if change_sat < dust {
        let rule = format!("change of {change_sat} sat is dust: leave it to the fee, or at least {dust} sat");
        return Err(Rejection::TransactionInvalid { rule });
    }
    Ok(Some((script, change_sat)))
}

pub(crate) fn pay_reserved(state: &mut State, ctx: &Context, command: &PayReserved) -> Result<Outcome, Rejection> {
    let paid_sat = transaction::check_recipients(&command.recipients)?;
    let digest = binding_digest(state.network()?, &command.recipients);
    if let Some(known) = same_attempt(state, ctx, command, &digest)? {
        return Ok(known);
    }
    let wallet = signable_wallet(state, &command.key)?;
    let reserved = reservation::fenced(state, ctx, command.reservation, command.fence)?;
    if reserved.wallet != command.key.wallet {
        return Err(Rejection::ReservationUnknown);
    }
    if let Some(payment) = reserved.payment.as_ref().filter(|payment| **payment != command.key.payment) {
        return Err(Rejection::ReservedForOther { payment: payment.clone() });
    }
    let outpoints = reserved.outpoints.clone();
    let tip = state.tip()?.height;
    transaction::check(&command.transaction, &outpoints, &command.recipients, command.change.as_ref(), wallet, tip)?;
    check_unspent(state, &outpoints)?;
    let fee_sat = transaction::check_amounts(&command.transaction, state.value_of(&outpoints), wallet, paid_sat)?;
    let proposal = Proposal {
        transaction: command.transaction.clone(),
        fee_sat,
        change: command.change.clone(),
        recipients: &command.recipients,
        digest,
    };
    let granted = signing::grant(state, ctx, &command.key, proposal)?;
    state.end_reservation(command.reservation, Ended::Used(command.key.payment.clone()));
    Ok(granted)
}

/// A reserved coin may have been spent by somebody with the same keys, or its block disconnected.
fn check_unspent(state: &State, outpoints: &[OutPoint]) -> Result<(), Rejection> {
    let tip = state.tip()?.height;
    let (mut spent, mut immature) = (vec![], vec![]);
    for outpoint in outpoints {
        match state.utxo(outpoint) {
            Some(utxo) if utxo.spent.is_some() => spent.push(*outpoint),
            Some(utxo) if utxo.height.is_none() || !utxo.is_mature(tip) => immature.push(*outpoint),
            Some(_) => {}
            None => spent.push(*outpoint),
        }
    }
    if !spent.is_empty() {
        return Err(Rejection::OutpointSpent { outpoints: spent });
    }
    if !immature.is_empty() {
        return Err(Rejection::OutpointImmature { outpoints: immature });
    }
    Ok(())
}

fn signable_wallet<'a>(state: &'a State, key: &PaymentKey) -> Result<&'a Wallet, Rejection> {
    let wallet = state.active_wallet(&key.wallet)?;
    match wallet.signer {
        SignerRef::Named(_) => Ok(wallet),
        SignerRef::WatchOnly => Err(Rejection::WalletWatchOnly),
        SignerRef::External => Err(Rejection::WalletSignsOutside),
    }
}

/// The answer for a payment that is there already: its live attempt, or `None` where a new one may be made because
/// all are dead (safety 9).
fn known_payment(
    state: &State,
    ctx: &Context,
    key: &PaymentKey,
    digest: &[u8; 32],
) -> Result<Option<Outcome>, Rejection> {
    let Some(payment) = state.payment(key) else {
        state.wallet(&key.wallet)?;
        return Ok(None);
    };
    check_binding(ctx, payment, digest)?;
    Ok(payment.live_attempt().map(|(attempt, _)| Outcome::Permitted { payment: key.clone(), attempt }))
}

/// For a caller's own transaction: the same bytes are the same attempt; others have to wait (safety 8, 11).
fn same_attempt(
    state: &State,
    ctx: &Context,
    command: &PayReserved,
    digest: &[u8; 32],
) -> Result<Option<Outcome>, Rejection> {
    let Some(payment) = state.payment(&command.key) else { return Ok(None) };
    check_binding(ctx, payment, digest)?;
    let same = payment.numbered().find(|(_, attempt)| attempt.transaction == command.transaction);
    if let Some((attempt, _)) = same {
        return Ok(Some(Outcome::Permitted { payment: command.key.clone(), attempt }));
    }
    match payment.live_attempt() {
        Some((attempt, live)) => Err(Rejection::PaymentUnresolved { attempt, txid: live.txid().to_string() }),
        None => Ok(None),
    }
}

fn check_binding(ctx: &Context, payment: &Payment, digest: &[u8; 32]) -> Result<(), Rejection> {
    if payment.digest != *digest {
        return Err(Rejection::PaymentIdReused);
    }
    if !ctx.may_act_for(&payment.owner) {
        return Err(Rejection::NotOwner { owner: payment.owner.clone() });
    }
    Ok(())
}

pub(crate) fn record_relay(
    state: &mut State,
    key: &PaymentKey,
    number: AttemptNo,
    relay: &Relay,
) -> Result<Outcome, Rejection> {
    let attempt = state.payment(key).and_then(|payment| payment.attempt(number)).ok_or(Rejection::PaymentUnknown)?;
    if attempt.signed.is_none() {
        return Err(Rejection::StaleBasis { what: "the attempt has no signature to relay".to_owned() });
    }
    if attempt.relay.as_ref() != Some(relay) {
        state.change_payment(key, |payment| {
            if let Some(attempt) = payment.attempt_mut(number) {
                attempt.relay = Some(relay.clone());
            }
        });
    }
    Ok(Outcome::Recorded)
}

/// Where an attempt stands, derived from the coins it spends.
pub fn attempt_state(state: &State, attempt: &Attempt) -> AttemptState {
    match attempt.end {
        Some(AttemptEnd::Settled(height)) => return AttemptState::Settled(height),
        Some(AttemptEnd::Dead(_)) => return AttemptState::Dead,
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

/// After a block: settles what reached finality depth, and frees what only dead attempts would spend (safety 6).
pub(crate) fn settle(state: &mut State, key: &PaymentKey) {
    let (Some(payment), Ok(wallet), Ok(tip)) = (state.payment(key), state.wallet(&key.wallet), state.tip()) else {
        return;
    };
    let final_depth = wallet.limits.finality_depth;
    let ends: Vec<(AttemptNo, AttemptEnd)> = payment
        .numbered()
        .filter(|(_, attempt)| attempt.end.is_none())
        .filter_map(|(number, attempt)| {
            let (txid, height, own) = input_spend(state, attempt)?;
            let is_final = depth(height, tip.height) >= final_depth;
            is_final.then_some((number, if own { AttemptEnd::Settled(height) } else { AttemptEnd::Dead(txid) }))
        })
        .collect();
    if ends.is_empty() {
        return;
    }
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
    }
}
