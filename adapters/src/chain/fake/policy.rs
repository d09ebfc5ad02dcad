//! What the fake's mempool takes: Bitcoin Core's order of checks and its reasons, as far as a service that pays from
//! segwit wallets can meet them.
//!
//! Not checked: scripts and signatures, relative lock times, sigops, ephemeral dust (all dust is refused), packages,
//! TRUC limits. The feerate diagram of a replacement is approximated by the feerates of what it directly replaces.

use std::collections::BTreeSet;

use bitcoin::{Amount, OutPoint, Script, Transaction, Txid};

use super::ledger::{COINBASE_MATURITY, Ledger};
use super::mempool::Mempool;

/// Least feerate, and what a replacement pays on top, in sat/kvB.
pub(super) const MIN_FEERATE_SAT_KVB: u64 = 100;
/// `-maxfeerate` of `sendrawtransaction`, in sat/kvB.
const MAX_FEERATE_SAT_KVB: u64 = 10_000_000;
/// Transactions in a cluster.
const MAX_CLUSTER_TXS: usize = 64;
/// Virtual size of a cluster.
const MAX_CLUSTER_VSIZE: u64 = 101_000;
/// Transactions that one replacement may push out.
const MAX_REPLACED: usize = 100;
const MAX_STANDARD_WEIGHT: u64 = 400_000;
const MIN_STANDARD_BASE_SIZE: usize = 65;
/// Lock times below are heights.
const LOCKTIME_THRESHOLD: u32 = 500_000_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Serialises to something that reads as another kind of transaction.
    Undecodable,
    AlreadyInMempool,
    /// An output of it is unspent in the chain.
    AlreadyKnown,
    MissingInputs,
    /// Refused by the mempool, with what it says.
    Rejected(String),
    /// Valid, but above the ceiling for fees.
    MaxFee,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// As for a transaction that is handed in.
    Full,
    /// As for one that was there before: no fee floors, and it replaces nothing.
    AfterReorg,
}

/// What taking a transaction means.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) fee: Amount,
    pub(super) replaced: BTreeSet<Txid>,
}

pub(super) fn vsize(tx: &Transaction) -> u64 {
    tx.weight().to_vbytes_ceil()
}

/// A feerate times a size, rounded up as Core rounds.
fn fee_at(sat_kvb: u64, vsize: u64) -> Amount {
    Amount::from_sat((sat_kvb * vsize).div_ceil(1_000))
}

fn reject<T>(reason: &'static str, details: impl AsRef<str>) -> Result<T, Refusal> {
    let details = details.as_ref();
    let text = if details.is_empty() { reason.to_owned() } else { format!("{reason}, {details}") };
    Err(Refusal::Rejected(text))
}

/// Whether the mempool takes the transaction on this ledger.
pub(super) fn judge(
    tx: &Transaction,
    ledger: &Ledger,
    mempool: &Mempool,
    strictness: Strictness,
) -> Result<Admission, Refusal> {
    check_form(tx)?;
    check_standard(tx)?;
    if !is_final(tx, ledger) {
        return reject("non-final", "");
    }
    if mempool.get(&tx.compute_txid()).is_some() {
        return Err(Refusal::AlreadyInMempool);
    }
    let fee = fee_of(tx, ledger, mempool)?;
    let size = vsize(tx);
    let conflicts: BTreeSet<Txid> =
        tx.input.iter().filter_map(|input| mempool.spender(&input.previous_output)).collect();
    if strictness == Strictness::AfterReorg {
        return if conflicts.is_empty() {
            Ok(Admission { fee, replaced: conflicts })
        } else {
            reject("txn-mempool-conflict", "")
        };
    }
    let least = fee_at(MIN_FEERATE_SAT_KVB, size);
    if fee < least {
        let details = format!("{} < {}", fee.to_sat(), least.to_sat());
        return reject("min relay fee not met", details);
    }
    let replaced = mempool.descendants(conflicts.iter().copied());
    check_replacement(tx, fee, mempool, &conflicts, &replaced)?;
    check_cluster(tx, size, mempool, &replaced)?;
    if fee > fee_at(MAX_FEERATE_SAT_KVB, size) {
        return Err(Refusal::MaxFee);
    }
    Ok(Admission { fee, replaced })
}

/// Consensus rules that need no context.
fn check_form(tx: &Transaction) -> Result<(), Refusal> {
    if tx.input.is_empty() {
        return Err(Refusal::Undecodable);
    }
    if tx.output.is_empty() {
        return reject("bad-txns-vout-empty", "");
    }
    let total = tx.output.iter().try_fold(Amount::ZERO, |sum, out| sum.checked_add(out.value));
    if total.is_none_or(|total| total > Amount::MAX_MONEY) {
        return reject("bad-txns-txouttotal-toolarge", "");
    }
    let distinct: BTreeSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    if distinct.len() != tx.input.len() {
        return reject("bad-txns-inputs-duplicate", "");
    }
    if tx.is_coinbase() {
        return reject("coinbase", "");
    }
    Ok(())
}

fn check_standard(tx: &Transaction) -> Result<(), Refusal> {
    if !(1..=3).contains(&tx.version.0) {
        return reject("version", "");
    }
    if tx.weight().to_wu() > MAX_STANDARD_WEIGHT {
        return reject("tx-size", "");
    }
    if tx.output.iter().any(|out| !is_standard(&out.script_pubkey)) {
        return reject("scriptpubkey", "");
    }
    let is_dust =
        |out: &bitcoin::TxOut| !out.script_pubkey.is_op_return() && out.value < out.script_pubkey.minimal_non_dust();
    if tx.output.iter().any(is_dust) {
        return reject("dust", "tx with dust output must be 0-fee");
    }
    if tx.base_size() < MIN_STANDARD_BASE_SIZE {
        return reject("tx-size-small", "");
    }
    Ok(())
}

fn is_standard(script: &Script) -> bool {
    script.is_witness_program()
        || script.is_p2pkh()
        || script.is_p2sh()
        || script.is_p2pk()
        || script.is_multisig()
        || script.is_op_return()
}

/// In the next block, by height or by the median time of eleven blocks (BIP113).
fn is_final(tx: &Transaction, ledger: &Ledger) -> bool {
    let lock = tx.lock_time.to_consensus_u32();
    let reached = if lock < LOCKTIME_THRESHOLD { lock <= ledger.height() } else { lock < ledger.median_time() };
    lock == 0 || reached || tx.input.iter().all(|input| input.sequence.is_final())
}

fn fee_of(tx: &Transaction, ledger: &Ledger, mempool: &Mempool) -> Result<Amount, Refusal> {
    let mut value = Amount::ZERO;
    let mut immature = None;
    for input in &tx.input {
        let outpoint = &input.previous_output;
        if let Some(coin) = ledger.coin(outpoint) {
            let depth = ledger.height() + 1 - coin.height;
            if coin.coinbase && depth < COINBASE_MATURITY {
                immature = Some(depth);
            }
            value += coin.out.value;
        } else if let Some(out) = mempool.output(outpoint) {
            value += out.value;
        } else if ledger.has_unspent_output_of(tx.compute_txid()) {
            return Err(Refusal::AlreadyKnown);
        } else {
            return Err(Refusal::MissingInputs);
        }
    }
    if let Some(depth) = immature {
        let details = format!("tried to spend coinbase at depth {depth}");
        return reject("bad-txns-premature-spend-of-coinbase", details);
    }
    let spent: Amount = tx.output.iter().map(|out| out.value).sum();
    value
        .checked_sub(spent)
        .map_or_else(|| reject("bad-txns-in-belowout", format!("value in ({value}) < value out ({spent})")), Ok)
}

fn check_replacement(
    tx: &Transaction,
    fee: Amount,
    mempool: &Mempool,
    conflicts: &BTreeSet<Txid>,
    replaced: &BTreeSet<Txid>,
) -> Result<(), Refusal> {
    if conflicts.is_empty() {
        return Ok(());
    }
    if tx.input.iter().any(|input| replaced.contains(&input.previous_output.txid)) {
        return reject("bad-txns-spends-conflicting-tx", "");
    }
    if replaced.len() > MAX_REPLACED {
        return reject("too many potential replacements", "");
    }
    let txid = tx.compute_txid();
    let fees: Amount = replaced.iter().filter_map(|t| mempool.get(t)).map(|m| m.fee).sum();
    if fee < fees {
        let why = format!("rejecting replacement {txid}, less fees than conflicting txs");
        return reject("insufficient fee", why);
    }
    let size = vsize(tx);
    if fee - fees < fee_at(MIN_FEERATE_SAT_KVB, size) {
        let why = format!("rejecting replacement {txid}, not enough additional fees to relay");
        return reject("insufficient fee", why);
    }
    let is_worse =
        conflicts.iter().filter_map(|t| mempool.get(t)).any(|old| fee.to_sat() * old.vsize <= old.fee.to_sat() * size);
    if is_worse {
        let why = "insufficient feerate: does not improve feerate diagram";
        return reject("replacement-failed", why);
    }
    Ok(())
}

fn check_cluster(tx: &Transaction, size: u64, mempool: &Mempool, replaced: &BTreeSet<Txid>) -> Result<(), Refusal> {
    let mut cluster = mempool.cluster(mempool.parents(tx));
    cluster.retain(|txid| !replaced.contains(txid));
    let total = cluster.iter().filter_map(|t| mempool.get(t)).map(|m| m.vsize).sum::<u64>();
    if cluster.len() + 1 > MAX_CLUSTER_TXS || total + size > MAX_CLUSTER_VSIZE {
        return reject("too-large-cluster", "");
    }
    Ok(())
}
