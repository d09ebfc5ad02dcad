//! The calls of the port, under the names of the RPCs that bitcoind would be asked.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bitcoin::{Block, BlockHash, Network, OutPoint, ScriptBuf, Transaction, Txid};
use miniscript::{Descriptor, DescriptorPublicKey};

use super::ledger::Coin;
use super::policy::{self, MIN_FEERATE_SAT_KVB, Refusal, Strictness};
use super::{FakeChain, World};
use crate::chain::error::{RPC_INVALID_PARAMETER, RPC_NOT_FOUND};
use crate::chain::{
    BroadcastOutcome, Chain, ChainError, ChainTxOut, ChainView, Conflict, HeaderInfo, MAX_TIP_WAIT, ScanDescriptor,
    ScanResult, ScanUtxo, TipRef,
};

/// The version that the fake imitates.
const VERSION: u32 = 319_900;
/// The last index of a ranged descriptor that names none.
const DEFAULT_LAST_INDEX: u32 = 1_000;
/// Targets that Core estimates fees for.
const FEE_TARGETS: std::ops::RangeInclusive<u16> = 1..=1_008;

impl Chain for FakeChain {
    fn probe(&self) -> Result<ChainView, ChainError> {
        let start = Instant::now();
        self.answer("getblockchaininfo", |world| {
            let tip = world.tip();
            let time = world.ledger.block(tip.hash).map_or(0, |(block, ..)| block.header.time);
            Ok(ChainView {
                network: Network::Regtest,
                genesis: world.ledger.genesis(),
                tip,
                tip_time_s: u64::from(time),
                headers: tip.height + world.node.headers_ahead,
                initial_block_download: world.node.initial_block_download,
                oldest_block: world.node.oldest_block,
                peers: world.node.peers,
                version: VERSION,
                subversion: "/Satoshi:31.99.0(fake)/".to_owned(),
                mempool_min_feerate_sat_vb: sat_vb(MIN_FEERATE_SAT_KVB),
                incremental_feerate_sat_vb: sat_vb(MIN_FEERATE_SAT_KVB),
                mempool_txs: world.mempool.len() as u64,
                mempool_loaded: world.node.mempool_loaded,
                latency: start.elapsed(),
            })
        })
    }

    fn wait_tip(&self, current: BlockHash, timeout: Duration) -> Result<TipRef, ChainError> {
        let deadline = Instant::now() + timeout.min(MAX_TIP_WAIT);
        self.answer("waitfornewblock", |_| Ok(()))?;
        let mut world = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if world.ledger.tip() != current || left.is_zero() {
                return Ok(world.tip());
            }
            (world, _) = self.0.changed.wait_timeout(world, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn header(&self, hash: BlockHash) -> Result<HeaderInfo, ChainError> {
        const METHOD: &str = "getblockheader";
        self.answer(METHOD, |world| {
            let found = world.ledger.block(hash).ok_or_else(|| unknown_block(METHOD))?;
            let (block, height, active) = found;
            Ok(HeaderInfo {
                hash,
                height,
                prev: (height > 0).then_some(block.header.prev_blockhash),
                time_s: u64::from(block.header.time),
                confirmations: active.then(|| world.ledger.height() - height + 1),
            })
        })
    }

    fn block(&self, hash: BlockHash) -> Result<Block, ChainError> {
        const METHOD: &str = "getblock";
        self.answer(METHOD, |world| {
            let found = world.ledger.block(hash).map(|(block, ..)| block.clone());
            found.ok_or_else(|| unknown_block(METHOD))
        })
    }

    fn block_hash_at(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        self.answer("getblockhash", |world| Ok(world.ledger.at(height)))
    }

    fn tx_out(&self, outpoint: OutPoint, include_mempool: bool) -> Result<Option<ChainTxOut>, ChainError> {
        self.answer("gettxout", |world| Ok(world.tx_out(outpoint, include_mempool)))
    }

    fn scan(&self, descriptors: &[ScanDescriptor]) -> Result<ScanResult, ChainError> {
        self.answer("scantxoutset", |world| {
            let mut wanted = BTreeSet::new();
            for descriptor in descriptors {
                wanted.extend(scripts_of(descriptor)?);
            }
            let matching = world.ledger.coins().filter(|(_, coin)| wanted.contains(&coin.out.script_pubkey));
            let utxos = matching.map(|(outpoint, coin)| scan_utxo(*outpoint, coin)).collect();
            let TipRef { height, hash } = world.tip();
            Ok(ScanResult { height, hash, utxos })
        })
    }

    fn broadcast(&self, tx: &Transaction) -> Result<BroadcastOutcome, ChainError> {
        self.answer("sendrawtransaction", |world| Ok(world.broadcast(tx)))
    }

    fn spending_prevout(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Txid>>, ChainError> {
        self.answer("gettxspendingprevout", |world| {
            Ok(outpoints.iter().map(|outpoint| world.spender(outpoint)).collect())
        })
    }

    fn estimate_fee(&self, target_blocks: u16) -> Result<Option<f64>, ChainError> {
        const METHOD: &str = "estimatesmartfee";
        self.answer(METHOD, |world| {
            if FEE_TARGETS.contains(&target_blocks) {
                let floor = sat_vb(MIN_FEERATE_SAT_KVB);
                return Ok(world.node.feerate_sat_vb.map(|feerate| feerate.max(floor)));
            }
            let message = "Invalid conf_target, must be between 1 and 1008".to_owned();
            Err(ChainError::Rpc { method: METHOD, code: RPC_INVALID_PARAMETER, message })
        })
    }
}

impl World {
    fn tip(&self) -> TipRef {
        TipRef { height: self.ledger.height(), hash: self.ledger.tip() }
    }

    fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.mempool.spender(outpoint).or_else(|| self.ledger.spender(outpoint))
    }

    fn tx_out(&self, outpoint: OutPoint, include_mempool: bool) -> Option<ChainTxOut> {
        let best_block = self.ledger.tip();
        if include_mempool && self.mempool.spender(&outpoint).is_some() {
            return None;
        }
        if let Some(coin) = self.ledger.coin(&outpoint) {
            return Some(ChainTxOut {
                value: coin.out.value,
                script: coin.out.script_pubkey.clone(),
                confirmations: self.ledger.height() - coin.height + 1,
                coinbase: coin.coinbase,
                best_block,
            });
        }
        let out = self.mempool.output(&outpoint).filter(|_| include_mempool)?;
        Some(ChainTxOut {
            value: out.value,
            script: out.script_pubkey.clone(),
            confirmations: 0,
            coinbase: false,
            best_block,
        })
    }

    /// In the order in which `sendrawtransaction` looks.
    fn broadcast(&mut self, tx: &Transaction) -> BroadcastOutcome {
        let txid = tx.compute_txid();
        let burns = |out: &bitcoin::TxOut| out.script_pubkey.is_op_return() && out.value > bitcoin::Amount::ZERO;
        if !tx.input.is_empty() && tx.output.iter().any(burns) {
            let ceiling = "Unspendable output exceeds maximum configured by user (maxburnamount)";
            return BroadcastOutcome::Rejected { code: -25, reason: ceiling.to_owned() };
        }
        if self.ledger.has_unspent_output_of(txid) {
            return BroadcastOutcome::AlreadyConfirmed;
        }
        if self.mempool.get(&txid).is_some() {
            return BroadcastOutcome::AlreadyInMempool;
        }
        match policy::judge(tx, &self.ledger, &self.mempool, Strictness::Full) {
            Ok(admission) => {
                self.mempool.insert(tx.clone(), admission.fee, &admission.replaced);
                BroadcastOutcome::Accepted
            }
            Err(Refusal::AlreadyInMempool) => BroadcastOutcome::AlreadyInMempool,
            Err(Refusal::AlreadyKnown) => BroadcastOutcome::AlreadyConfirmed,
            Err(Refusal::MissingInputs) => self.explain_missing_inputs(tx, txid),
            Err(Refusal::MaxFee) => BroadcastOutcome::Rejected {
                code: -25,
                reason: "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)".into(),
            },
            Err(Refusal::Undecodable) => BroadcastOutcome::Rejected {
                code: -22,
                reason: "TX decode failed. Make sure the tx has at least one input.".to_owned(),
            },
            Err(Refusal::Rejected(reason)) => BroadcastOutcome::Rejected { code: -26, reason },
        }
    }

    fn explain_missing_inputs(&self, tx: &Transaction, txid: Txid) -> BroadcastOutcome {
        let inputs = || tx.input.iter().map(|input| input.previous_output);
        if inputs().any(|outpoint| self.ledger.spender(&outpoint) == Some(txid)) {
            return BroadcastOutcome::AlreadyConfirmed;
        }
        let conflict = |outpoint| Some(Conflict { outpoint, spender: self.spender(&outpoint)? });
        BroadcastOutcome::InputsMissingOrSpent { conflicts: inputs().filter_map(conflict).collect() }
    }
}

fn unknown_block(method: &'static str) -> ChainError {
    ChainError::Rpc { method, code: RPC_NOT_FOUND, message: "Block not found".to_owned() }
}

#[allow(clippy::cast_precision_loss, reason = "feerates are far below 2^53")]
fn sat_vb(sat_kvb: u64) -> f64 {
    sat_kvb as f64 / 1_000.0
}

fn scan_utxo(outpoint: OutPoint, coin: &Coin) -> ScanUtxo {
    ScanUtxo {
        outpoint,
        value: coin.out.value,
        script: coin.out.script_pubkey.clone(),
        height: coin.height,
        coinbase: coin.coinbase,
    }
}

fn scripts_of(wanted: &ScanDescriptor) -> Result<Vec<ScriptBuf>, ChainError> {
    let bad = |error: &dyn std::fmt::Display| ChainError::Rpc {
        method: "scantxoutset",
        code: RPC_NOT_FOUND,
        message: error.to_string(),
    };
    let parsed = Descriptor::<DescriptorPublicKey>::from_str(&wanted.descriptor)
        .and_then(Descriptor::into_single_descriptors)
        .map_err(|error| bad(&error))?;
    let mut scripts = Vec::new();
    for descriptor in parsed {
        let (first, last) = match wanted.range {
            Some(range) if descriptor.has_wildcard() => range,
            None if descriptor.has_wildcard() => (0, DEFAULT_LAST_INDEX),
            _ => (0, 0),
        };
        for index in first..=last {
            let definite = descriptor.at_derivation_index(index).map_err(|error| bad(&error))?;
            scripts.push(definite.script_pubkey());
        }
    }
    Ok(scripts)
}
