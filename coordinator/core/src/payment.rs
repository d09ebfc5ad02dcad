//! Payments: what is owed to whom, and the attempts that would settle it.

use std::collections::BTreeSet;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{Network, OutPoint, Transaction, Txid};
use minicbor::{Decode, Encode};

use crate::apply::Context;
use crate::codec;
use crate::command::{Change, CreatePayment, PayReserved, Recipient, Relay};
use crate::ids::{AttemptNo, CallerId, Fence, Height, LogIndex, Millis, PaymentId, PaymentKey};
use crate::outcome::{Outcome, Rejection};
use crate::recovery;
use crate::replacement;
use crate::reservation::{self, Ended};
use crate::signing::{self, Proposal};
use crate::state::State;
use crate::transaction::{self, Inputs};
use crate::unconfirmed;
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
    /// The outpoint that every attempt spends; none when all attempts are dead (safety 8 and 9), or were.
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
    /// The payment whose change it spends to pay fees for it, where it is such a child.
    #[n(8)]
    pub bumps: Option<PaymentId>,
    /// The height of a block that ended one of its attempts and that a reorganisation took away again, or that holds an
    /// attempt which had ended. From then on no end counts for good, so the payment gets no further attempt any more
    /// (safety 9, 17).
    #[n(9)]
    pub undone: Option<Height>,
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
    /// What it is for, if not to pay the recipients.
    #[n(7)]
    pub kind: Option<AttemptKind>,
}

/// What an attempt is for, if not to pay the recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum AttemptKind {
    /// It gives the coins back to the wallet (safety 10).
    #[n(0)]
    Cancel,
}

/// The ends of an attempt. Each rests on what the chain says, or on a signer's word, and is taken back when a
/// reorganisation or a block says otherwise (`settlement::revive`).
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
    /// Its signer proved that it had not signed it and never would (safety 6).
    #[n(2)]
    Aborted,
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
        !matches!(self.end, Some(AttemptEnd::Dead(_) | AttemptEnd::Aborted))
    }

    /// Whether it gives the coins back instead of paying.
    pub fn is_cancel(&self) -> bool {
        self.kind == Some(AttemptKind::Cancel)
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

    /// Whether one of its attempts is at finality depth: paid, or cancelled.
    pub fn is_settled(&self) -> bool {
        self.settled_attempt().is_some()
    }

    /// The attempt at finality depth.
    pub fn settled_attempt(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| matches!(attempt.end, Some(AttemptEnd::Settled(_))))
    }

    /// Whether something may still come of it.
    pub fn is_open(&self) -> bool {
        !self.is_settled() || self.attempts.iter().any(|attempt| attempt.end.is_none())
    }

    /// Whether another attempt than this one may confirm, or has, and spends none of its coins: both together would pay
    /// twice. That is so only where an end was undone after the payment got a new anchor.
    pub fn has_rival(&self, attempt: &Attempt) -> bool {
        let inputs: BTreeSet<OutPoint> = attempt.inputs().collect();
        let shares = |other: &Attempt| other.inputs().any(|input| inputs.contains(&input));
        self.attempts.iter().any(|other| other.is_live() && !shares(other))
    }

    /// Whether its coins went back to the wallet for good (safety 10).
    pub fn is_cancelled(&self) -> bool {
        self.settled_attempt().is_some_and(Attempt::is_cancel)
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
    let change = change_output(wallet, change_sat, Keychain::Internal, change_index)?;
    let (transaction, change_vout) = transaction::build(&command.outpoints, &command.recipients, change);
    let fee_sat = transaction::check_amounts(&transaction, input_sat, wallet, paid_sat)?;
    let change = change_vout.map(|vout| Change { vout, keychain: Keychain::Internal, index: change_index });
    let uses_change = change.is_some();
    unconfirmed::check_cluster(state, &command.key.wallet, &transaction)?;
    let proposal = Proposal { change, ..Proposal::paying(transaction, fee_sat, &command.recipients, digest) };
    let granted = signing::grant(state, ctx, &command.key, proposal)?;
    if uses_change {
        state.use_index(&command.key.wallet, Keychain::Internal, change_index);
    }
    Ok(granted)
}

pub(crate) fn change_output(
    wallet: &Wallet,
    change_sat: u64,
    keychain: Keychain,
    index: u32,
) -> Result<Option<(bitcoin::ScriptBuf, u64)>, Rejection> {
    if change_sat == 0 {
        return Ok(None);
    }
    let script = wallet.descriptor.script(keychain, index).ok_or_else(|| Rejection::OutOfBounds {
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
    let reserved = reserved_for(state, ctx, command)?;
    let replaced = replacement::replaced(state, &command.key)?;
    let mut allowed = reserved.clone();
    if let Some(payment) = replaced {
        replacement::check_anchor(payment, &command.transaction)?;
        allowed.extend(payment.attempts.iter().filter(|attempt| attempt.is_live()).flat_map(Attempt::inputs));
    } else if reserved.is_empty() {
        return Err(Rejection::ReservationUnknown);
    }
    let tip = state.tip()?.height;
    let inputs = Inputs { required: &reserved, allowed: &allowed };
    transaction::check(&command.transaction, &inputs, &command.recipients, command.change.as_ref(), wallet, tip)?;
    let spent: Vec<OutPoint> = command.transaction.input.iter().map(|input| input.previous_output).collect();
    check_unspent(state, &spent)?;
    let fee_sat = transaction::check_amounts(&command.transaction, state.value_of(&spent), wallet, paid_sat)?;
    if let Some(payment) = replaced {
        replacement::check_fee(payment, &command.transaction, fee_sat, wallet)?;
    }
    unconfirmed::check_cluster(state, &command.key.wallet, &command.transaction)?;
    let proposal = Proposal {
        change: command.change.clone(),
        ..Proposal::paying(command.transaction.clone(), fee_sat, &command.recipients, digest)
    };
    let granted = signing::grant(state, ctx, &command.key, proposal)?;
    if let Some(reservation) = command.reservation {
        state.end_reservation(reservation, Ended::Used(command.key.payment.clone()));
    }
    Ok(granted)
}

/// The coins of the reservation that the caller shows, if it shows one.
fn reserved_for(state: &State, ctx: &Context, command: &PayReserved) -> Result<Vec<OutPoint>, Rejection> {
    let Some(reservation) = command.reservation else { return Ok(Vec::new()) };
    let reserved = reservation::fenced(state, ctx, reservation, command.fence)?;
    if reserved.wallet != command.key.wallet {
        return Err(Rejection::ReservationUnknown);
    }
    if let Some(payment) = reserved.payment.as_ref().filter(|payment| **payment != command.key.payment) {
        return Err(Rejection::ReservedForOther { payment: payment.clone() });
    }
    Ok(reserved.outpoints.clone())
}

/// A reserved coin may have been spent by somebody with the same keys, or its block disconnected.
fn check_unspent(state: &State, outpoints: &[OutPoint]) -> Result<(), Rejection> {
    let tip = state.tip()?.height;
    let (mut spent, mut immature) = (vec![], vec![]);
    for outpoint in outpoints {
        match state.utxo(outpoint) {
            Some(utxo) if utxo.spent.is_some() => spent.push(*outpoint),
            Some(utxo) if !reservation::is_ripe(state, outpoint, utxo, tip) => immature.push(*outpoint),
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

/// The wallet, if something may be signed for it now: here, or outside by this permit.
pub(crate) fn signable_wallet<'a>(state: &'a State, key: &PaymentKey) -> Result<&'a Wallet, Rejection> {
    let wallet = state.active_wallet(&key.wallet)?;
    recovery::check(state)?;
    match wallet.signer {
        SignerRef::Named(_) | SignerRef::External => Ok(wallet),
        SignerRef::WatchOnly => Err(Rejection::WalletWatchOnly),
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

/// For a caller's own transaction: the same bytes are the same attempt (safety 11), unless its signer has given that one up.
fn same_attempt(
    state: &State,
    ctx: &Context,
    command: &PayReserved,
    digest: &[u8; 32],
) -> Result<Option<Outcome>, Rejection> {
    let Some(payment) = state.payment(&command.key) else { return Ok(None) };
    check_binding(ctx, payment, digest)?;
    let same = payment
        .numbered()
        .find(|(_, attempt)| attempt.transaction == command.transaction && attempt.end != Some(AttemptEnd::Aborted));
    Ok(same.map(|(attempt, _)| Outcome::Permitted { payment: command.key.clone(), attempt }))
}

pub(crate) fn check_owner(ctx: &Context, payment: &Payment) -> Result<(), Rejection> {
    if ctx.may_act_for(&payment.owner) {
        return Ok(());
    }
    Err(Rejection::NotOwner { owner: payment.owner.clone() })
}

fn check_binding(ctx: &Context, payment: &Payment, digest: &[u8; 32]) -> Result<(), Rejection> {
    if payment.digest != *digest {
        return Err(Rejection::PaymentIdReused);
    }
    check_owner(ctx, payment)
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
    let opted_in = state.wallet(&key.wallet)?.limits.spend_unconfirmed_change == Some(true);
    if opted_in && *relay == Relay::Accepted && attempt_is_running(state, key, number) {
        unconfirmed::note_change(state, key, number);
    }
    Ok(Outcome::Recorded)
}

fn attempt_is_running(state: &State, key: &PaymentKey, number: AttemptNo) -> bool {
    state.payment(key).and_then(|payment| payment.attempt(number)).is_some_and(|attempt| attempt.end.is_none())
}
