//! Unsigned transactions: building one, and checking one that a caller built (safety 19 to 23).

use std::collections::BTreeSet;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, WitnessVersion};

use crate::command::{Change, Recipient};
use crate::ids::Height;
use crate::limits::{MAX_RECIPIENTS, MAX_TRANSACTION_WEIGHT};
use crate::outcome::Rejection;
use crate::wallet::Wallet;

/// Checks what a payment orders: some recipients, none below dust, no more than there can be.
///
/// # Errors
/// The [`Rejection`] names the recipient by its position and the rule that it breaks.
pub fn check_recipients(recipients: &[Recipient]) -> Result<u64, Rejection> {
    if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS {
        let (got, max) = (recipients.len() as u64, MAX_RECIPIENTS as u64);
        return Err(Rejection::OutOfBounds { what: "number of recipients".to_owned(), got, min: 1, max });
    }
    let mut total = 0_u64;
    for (position, recipient) in (0..).zip(recipients) {
        let dust = recipient.script.minimal_non_dust().to_sat();
        if recipient.amount_sat < dust {
            let rule = format!("{} sat is dust: at least {dust} sat for this script", recipient.amount_sat);
            return Err(Rejection::OutputInvalid { vout: position, rule });
        }
        total = total.saturating_add(recipient.amount_sat);
        if total > Amount::MAX_MONEY.to_sat() {
            let rule = "the recipients get more than 21 million bitcoin in all".to_owned();
            return Err(Rejection::OutputInvalid { vout: position, rule });
        }
    }
    Ok(total)
}

/// Whether Bitcoin Core relays a payment to this script (its `IsStandard`, without bare multisig and without
/// OP_RETURN, which would burn the money). A transaction that no mempool takes would bind its coins for ever.
pub fn is_payable(script: &Script) -> bool {
    match script.witness_version() {
        Some(WitnessVersion::V0) => script.is_p2wpkh() || script.is_p2wsh(),
        Some(_) => true,
        None => script.is_p2pkh() || script.is_p2sh() || script.is_p2pk(),
    }
}

/// Builds the transaction with inputs and outputs in the order of BIP-69, so that it shows nothing of how it was
/// made. Returns where the change went.
pub fn build(
    outpoints: &[OutPoint],
    recipients: &[Recipient],
    change: Option<(ScriptBuf, u64)>,
) -> (Transaction, Option<u32>) {
    let mut inputs: Vec<OutPoint> = outpoints.to_vec();
    inputs.sort_by_key(display_order);
    let mut outputs: Vec<(u64, ScriptBuf, bool)> =
        recipients.iter().map(|recipient| (recipient.amount_sat, recipient.script.clone(), false)).collect();
    outputs.extend(change.map(|(script, value)| (value, script, true)));
    outputs.sort();
    let change_at = (0..).zip(&outputs).find(|(_, output)| output.2).map(|(vout, _)| vout);
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.into_iter().map(unsigned_input).collect(),
        output: outputs
            .into_iter()
            .map(|(value, script_pubkey, _)| TxOut { value: Amount::from_sat(value), script_pubkey })
            .collect(),
    };
    (transaction, change_at)
}

/// BIP-69 compares txids as they are shown, which is the reverse of their bytes.
fn display_order(outpoint: &OutPoint) -> ([u8; 32], u32) {
    let mut txid = outpoint.txid.to_byte_array();
    txid.reverse();
    (txid, outpoint.vout)
}

fn unsigned_input(previous_output: OutPoint) -> TxIn {
    TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    }
}

/// Weight units of the transaction once it is signed, at most: what is there, the marker and flag of BIP-141, and
/// for each input the count of its witness and the satisfaction itself.
pub fn signed_weight(transaction: &Transaction, satisfaction_weight: u64) -> u64 {
    let inputs = transaction.input.len() as u64;
    let witnesses = inputs.saturating_mul(satisfaction_weight.saturating_add(1));
    transaction.weight().to_wu().saturating_add(2).saturating_add(witnesses)
}

/// The coins that a caller's transaction has to do with (safety 19).
pub(crate) struct Inputs<'a> {
    /// It must spend all of these.
    pub(crate) required: &'a [OutPoint],
    /// And it may spend no others than these.
    pub(crate) allowed: &'a [OutPoint],
}

/// Checks a transaction that a caller built against the coins it may spend and what the payment orders.
pub(crate) fn check(
    transaction: &Transaction,
    inputs: &Inputs<'_>,
    recipients: &[Recipient],
    change: Option<&Change>,
    wallet: &Wallet,
    tip: Height,
) -> Result<(), Rejection> {
    check_form(transaction, tip)?;
    check_inputs(transaction, inputs)?;
    check_outputs(transaction, recipients, change, wallet)
}

fn check_form(transaction: &Transaction, tip: Height) -> Result<(), Rejection> {
    let invalid = |rule: &str| Err(Rejection::TransactionInvalid { rule: rule.to_owned() });
    if transaction.version != Version::ONE && transaction.version != Version::TWO {
        return invalid("version must be 1 or 2");
    }
    let next_block = tip.0.saturating_add(1);
    match transaction.lock_time {
        LockTime::Blocks(height) if height.to_consensus_u32() < next_block => {}
        LockTime::Blocks(_) => return invalid("lock time is above the tip: it could not be mined now"),
        LockTime::Seconds(_) => return invalid("lock time by clock is not accepted"),
    }
    for input in &transaction.input {
        if !input.script_sig.is_empty() || !input.witness.is_empty() {
            return invalid("an input holds a signature already");
        }
        if transaction.version == Version::TWO && input.sequence.is_relative_lock_time() {
            return invalid("an input has a relative lock time (BIP-68)");
        }
    }
    Ok(())
}

fn check_inputs(transaction: &Transaction, inputs: &Inputs<'_>) -> Result<(), Rejection> {
    let allowed: BTreeSet<OutPoint> = inputs.allowed.iter().copied().collect();
    let mut used = BTreeSet::new();
    for input in &transaction.input {
        let outpoint = input.previous_output;
        if !allowed.contains(&outpoint) {
            return Err(Rejection::ForeignInput { outpoint });
        }
        if !used.insert(outpoint) {
            return Err(Rejection::DuplicateInput { outpoint });
        }
    }
    match inputs.required.iter().find(|outpoint| !used.contains(outpoint)) {
        Some(outpoint) => Err(Rejection::MissingInput { outpoint: *outpoint }),
        None => Ok(()),
    }
}

/// Outputs are the recipients, each once, and at most one change output with a script of the wallet whose index was
/// given out (safety 21).
fn check_outputs(
    transaction: &Transaction,
    recipients: &[Recipient],
    change: Option<&Change>,
    wallet: &Wallet,
) -> Result<(), Rejection> {
    let invalid = |vout, rule: &str| Err(Rejection::OutputInvalid { vout, rule: rule.to_owned() });
    let mut owed: Vec<&Recipient> = recipients.iter().collect();
    for (vout, output) in (0..).zip(&transaction.output) {
        if change.is_some_and(|change| change.vout == vout) {
            continue;
        }
        let paid = owed.iter().position(|recipient| {
            recipient.script == output.script_pubkey && recipient.amount_sat == output.value.to_sat()
        });
        match paid {
            Some(position) => owed.swap_remove(position),
            None => return invalid(vout, "is neither a recipient with its amount nor change of this wallet"),
        };
    }
    if let Some(unpaid) = owed.first() {
        let rule = format!("a recipient of {} sat gets nothing", unpaid.amount_sat);
        return Err(Rejection::TransactionInvalid { rule });
    }
    let Some(change) = change else { return Ok(()) };
    let Some(output) = transaction.output.get(change.vout as usize) else {
        return invalid(change.vout, "the change output is not there");
    };
    if change.index >= wallet.next_index(change.keychain)
        || wallet.descriptor.script(change.keychain, change.index).as_ref() != Some(&output.script_pubkey)
    {
        return invalid(change.vout, "change must go to an address that NewAddress gave out for this wallet");
    }
    if output.value < output.script_pubkey.minimal_non_dust() {
        return invalid(change.vout, "change is dust");
    }
    Ok(())
}

/// The fee, from values of our own chain view (safety 18), with the weight that it must pay for.
pub(crate) fn check_amounts(
    transaction: &Transaction,
    input_sat: u64,
    wallet: &Wallet,
    paid_sat: u64,
) -> Result<u64, Rejection> {
    let output_sat = transaction.output.iter().fold(0_u64, |sum, output| sum.saturating_add(output.value.to_sat()));
    let Some(fee_sat) = input_sat.checked_sub(output_sat) else {
        return Err(Rejection::InsufficientFunds { needed_sat: output_sat, available_sat: input_sat });
    };
    let weight = signed_weight(transaction, wallet.descriptor.satisfaction_weight());
    if weight > MAX_TRANSACTION_WEIGHT {
        let rule = format!("{weight} weight units; {MAX_TRANSACTION_WEIGHT} are standard");
        return Err(Rejection::TransactionInvalid { rule });
    }
    wallet.limits.check_fee(fee_sat, weight, paid_sat)?;
    Ok(fee_sat)
}
