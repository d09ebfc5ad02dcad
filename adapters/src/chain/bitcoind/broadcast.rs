//! What bitcoind's answers to `sendrawtransaction` mean.
//!
//! Read from `src/node/transaction.cpp` and `src/rpc/util.cpp` of Bitcoin Core 31.99: a transaction that is in the
//! mempool is announced again and answered like a new one; one with an unspent output in the chain is −27; everything
//! that the mempool refuses is −26, except missing inputs, which are −25 like the node's own fee and burn ceilings.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{OutPoint, Transaction, Txid};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::Bitcoind;
use super::answers::{Spender, Whereabouts};
use crate::chain::error::{RPC_MISC, RPC_NOT_FOUND};
use crate::chain::{BroadcastOutcome, ChainError, Conflict};

/// Not decodable (`RPC_DESERIALIZATION_ERROR`).
const RPC_UNDECODABLE: i32 = -22;
/// Missing inputs, and the node's own ceilings (`RPC_TRANSACTION_ERROR`).
const RPC_TRANSACTION_ERROR: i32 = -25;
/// Refused by the mempool (`RPC_TRANSACTION_REJECTED`).
const RPC_TRANSACTION_REJECTED: i32 = -26;
/// An output of it is in the UTXO set (`RPC_VERIFY_ALREADY_IN_UTXO_SET`).
const RPC_ALREADY_IN_UTXO_SET: i32 = -27;
/// The message that tells missing inputs from other errors −25.
const MISSING_INPUTS: &str = "bad-txns-inputs-missingorspent";
/// The messages of −25 that are refusals: above `maxfeerate`, or burning with `maxburnamount`.
const OVER_CEILING: [&str; 2] = ["Fee exceeds maximum", "Unspendable output exceeds maximum"];
/// Outpoints asked for in one request.
const MAX_OUTPOINTS_PER_REQUEST: usize = 1_000;

impl Bitcoind {
    pub(super) fn submit(&self, tx: &Transaction) -> Result<BroadcastOutcome, ChainError> {
        let txid = tx.compute_txid();
        // sendrawtransaction answers alike whether it was there before; it still must be called, to announce it.
        let known = self.is_in_mempool(txid)?;
        let args = [json!(serialize_hex(tx))];
        let error = match self.broadcast.call::<Txid>("sendrawtransaction", &args, self.timeout) {
            Ok(_) if known => return Ok(BroadcastOutcome::AlreadyInMempool),
            Ok(_) => return Ok(BroadcastOutcome::Accepted),
            Err(error) => error,
        };
        let ChainError::Rpc { code, message, method } = error else {
            return Err(error);
        };
        match code {
            RPC_ALREADY_IN_UTXO_SET => Ok(BroadcastOutcome::AlreadyConfirmed),
            RPC_TRANSACTION_ERROR if message.contains(MISSING_INPUTS) => Ok(self.explain_missing_inputs(tx, txid)),
            RPC_TRANSACTION_ERROR if OVER_CEILING.iter().any(|m| message.starts_with(m)) => {
                Ok(BroadcastOutcome::Rejected { code, reason: message })
            }
            RPC_TRANSACTION_REJECTED | RPC_UNDECODABLE => Ok(BroadcastOutcome::Rejected { code, reason: message }),
            _ => Err(ChainError::Rpc { method, code, message }),
        }
    }

    /// A transaction that is confirmed with all outputs spent and one that lost its inputs are refused alike.
    fn explain_missing_inputs(&self, tx: &Transaction, txid: Txid) -> BroadcastOutcome {
        let inputs: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        let spenders = self.spenders(&inputs).unwrap_or_else(|error| {
            tracing::warn!(%txid, %error, "cannot tell who spent the inputs");
            Vec::new()
        });
        if spenders.iter().any(|s| s.spendingtxid == Some(txid) && s.blockhash.is_some()) {
            return BroadcastOutcome::AlreadyConfirmed;
        }
        let conflicts: Vec<Conflict> = spenders.iter().filter_map(|s| conflict_with(txid, s)).collect();
        if conflicts.is_empty() && self.is_confirmed(txid) {
            return BroadcastOutcome::AlreadyConfirmed;
        }
        BroadcastOutcome::InputsMissingOrSpent { conflicts }
    }

    /// Whether `-txindex` knows the transaction in the active chain.
    fn is_confirmed(&self, txid: Txid) -> bool {
        let args = [json!(txid), json!(true)];
        match self.broadcast.call::<Whereabouts>("getrawtransaction", &args, self.timeout) {
            Ok(found) => found.confirmations.is_some_and(|depth| depth > 0),
            Err(ChainError::Rpc { code: RPC_NOT_FOUND, .. }) => false,
            Err(error) => {
                tracing::warn!(%txid, %error, "cannot tell whether the transaction is confirmed");
                false
            }
        }
    }

    fn is_in_mempool(&self, txid: Txid) -> Result<bool, ChainError> {
        match self.broadcast.call::<IgnoredAny>("getmempoolentry", &[json!(txid)], self.timeout) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Spenders by mempool and index; in the node's order. Falls back to the mempool alone while the index is behind.
    pub(super) fn spenders(&self, outpoints: &[OutPoint]) -> Result<Vec<Spender>, ChainError> {
        let mut found = Vec::with_capacity(outpoints.len());
        for some in outpoints.chunks(MAX_OUTPOINTS_PER_REQUEST) {
            found.extend(self.spenders_of(some)?);
        }
        Ok(found)
    }

    fn spenders_of(&self, outpoints: &[OutPoint]) -> Result<Vec<Spender>, ChainError> {
        const METHOD: &str = "gettxspendingprevout";
        let outputs: Vec<Value> = outpoints.iter().map(|o| json!({ "txid": o.txid, "vout": o.vout })).collect();
        let outputs = Value::from(outputs);
        match self.broadcast.call(METHOD, std::slice::from_ref(&outputs), self.timeout) {
            Err(ChainError::Rpc { code: RPC_MISC, message, .. }) if message.contains("txospenderindex") => {
                let args = [outputs, json!({ "mempool_only": true })];
                self.broadcast.call(METHOD, &args, self.timeout)
            }
            answer => answer,
        }
    }
}

fn conflict_with(txid: Txid, found: &Spender) -> Option<Conflict> {
    let spender = found.spendingtxid.filter(|spender| *spender != txid)?;
    Some(Conflict { outpoint: OutPoint { txid: found.txid, vout: found.vout }, spender })
}
