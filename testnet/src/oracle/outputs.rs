//! Where the money went that was signed away (safety 21, 22): to whom it was ordered for, to the wallet itself as change
//! or when a payment was cancelled, and little of it to miners. Values come from the blocks alone.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction};

use super::chain::Orders;
use super::signer_log::Signature;

/// What may become of the money.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a> {
    /// Who is paid, and for which payment.
    pub orders: &'a Orders,
    /// The wallet's scripts, as its descriptor gives them.
    pub own: &'a BTreeSet<ScriptBuf>,
    /// Most that one transaction may pay in fees.
    pub max_fee: Amount,
}

/// What the transactions in blocks that a signer signed do with the money and may not, in words. The blocks are those of
/// one chain from its first on, so that every coin that is spent is made by one of them.
pub fn judge(blocks: &[Block], signatures: &[Signature], allowed: &Allowed<'_>) -> Vec<String> {
    let payments: BTreeMap<&str, &str> =
        signatures.iter().map(|one| (one.txid.as_str(), one.payment_id.as_str())).collect();
    let mut made: BTreeMap<OutPoint, Amount> = BTreeMap::new();
    let mut signed = Vec::new();
    for transaction in blocks.iter().flat_map(|block| &block.txdata) {
        let txid = transaction.compute_txid();
        for (vout, output) in (0..).zip(&transaction.output) {
            made.insert(OutPoint::new(txid, vout), output.value);
        }
        if let Some(payment) = payments.get(txid.to_string().as_str()) {
            signed.push((*payment, transaction));
        }
    }
    let mut faults = Vec::new();
    for (payment, transaction) in signed {
        faults.extend(strayed(payment, transaction, allowed));
        faults.extend(overpaid(payment, transaction, &made, allowed.max_fee));
    }
    faults
}

/// Outputs that are neither the payment's nor its only change, and those that nobody relays.
fn strayed(payment: &str, transaction: &Transaction, allowed: &Allowed<'_>) -> Vec<String> {
    let txid = transaction.compute_txid();
    let (mut faults, mut change) = (Vec::new(), 0);
    for (vout, output) in transaction.output.iter().enumerate() {
        let script = &output.script_pubkey;
        let is_ordered = allowed.orders.payment_of(script) == Some(payment);
        let is_own = allowed.own.contains(script);
        change += usize::from(is_own && !is_ordered);
        if !is_ordered && !is_own {
            faults.push(format!("{payment}: {txid}:{vout} pays {} to {script}, which nobody ordered", output.value));
        }
        if output.value < script.minimal_non_dust() {
            faults.push(format!("{payment}: {txid}:{vout} is dust of {}", output.value));
        }
    }
    if change > 1 {
        faults.push(format!("{payment}: {txid} has {change} outputs to the wallet"));
    }
    faults
}

fn overpaid(
    payment: &str,
    transaction: &Transaction,
    made: &BTreeMap<OutPoint, Amount>,
    max_fee: Amount,
) -> Option<String> {
    let txid = transaction.compute_txid();
    let mut left = Amount::ZERO;
    for input in &transaction.input {
        let Some(value) = made.get(&input.previous_output) else {
            return Some(format!("{payment}: {txid} spends {}, which no block has", input.previous_output));
        };
        left += *value;
    }
    let paid = transaction.output.iter().map(|output| output.value).sum();
    match left.checked_sub(paid) {
        None => Some(format!("{payment}: {txid} pays {paid} from {left}")),
        Some(fee) if fee > max_fee => Some(format!("{payment}: {txid} pays {fee} in fees; the cap is {max_fee}")),
        Some(_) => None,
    }
}

#[cfg(test)]
#[path = "outputs_tests.rs"]
mod tests;
