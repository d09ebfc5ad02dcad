//! A new wallet's coins: a scan of the UTXO set, carried forward to the tip that the log stands on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Block, OutPoint, ScriptBuf};
use onespend_adapters::chain::{ChainError, ScanDescriptor, ScanResult};
use onespend_core::command::{BlockRef, Received};
use onespend_core::ids::{Height, WalletId};
use onespend_core::limits::ADDRESS_LOOKAHEAD;
use onespend_core::wallet::{Keychain, WalletDescriptor};
use tokio::task::spawn_blocking;

use super::BitcoindWatch;

/// Addresses of each chain that a first scan looks for.
const FIRST_RANGE: u32 = 2 * ADDRESS_LOOKAHEAD;
/// How often a scan that the log has not caught up with is made again.
const MAX_TRIES: u32 = 20;
/// Wait between two scans.
const RETRY: Duration = Duration::from_millis(100);

/// The coins of a wallet at a tip.
pub struct Found {
    /// The tip.
    pub basis: BlockRef,
    /// The unspent coins.
    pub coins: Vec<Received>,
}

/// Why a scan gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// bitcoind did not answer, or refused.
    #[error("scanning the chain for the wallet: {0}")]
    Chain(#[from] ChainError),
    /// The log has no tip yet.
    #[error("the cluster has not seen its first block yet")]
    NotStarted,
    /// The scan ended on a block that is not below the log's tip on the same chain.
    #[error("the scan is of a block that does not lie below the log's tip; it is tried again")]
    OtherBranch,
    /// The thread ended.
    #[error("the scan was stopped")]
    Stopped,
}

impl BitcoindWatch {
    /// Scans for a wallet's coins. Takes minutes on the main network.
    ///
    /// # Errors
    /// [`ScanError`].
    pub async fn scan(self: &Arc<Self>, wallet: &WalletId, descriptor: &WalletDescriptor) -> Result<Found, ScanError> {
        let mut tries = 0;
        loop {
            let (watch, wallet, descriptor) = (Arc::clone(self), wallet.clone(), descriptor.clone());
            let scanned = spawn_blocking(move || watch.scan_blocking(&wallet, &descriptor)).await;
            match scanned.map_err(|_| ScanError::Stopped)? {
                // The log is about to reach the block that bitcoind has scanned up to.
                Err(ScanError::OtherBranch | ScanError::NotStarted) if tries < MAX_TRIES => {
                    tries += 1;
                    tokio::time::sleep(RETRY).await;
                }
                done => return done,
            }
        }
    }

    fn scan_blocking(&self, wallet: &WalletId, descriptor: &WalletDescriptor) -> Result<Found, ScanError> {
        if descriptor.is_none() {
            // A wallet of single outpoints has none before they are registered.
            let basis = self.log_at(0).0.ok_or(ScanError::NotStarted)?;
            return Ok(Found { basis, coins: Vec::new() });
        }
        let mut range = FIRST_RANGE;
        loop {
            let origins = origins(descriptor, range);
            let scanned = self.chain.scan(&ranged(descriptor, range))?;
            let mut coins = coins(&scanned, wallet, &origins);
            let highest = coins.values().map(|coin| coin.index).max().unwrap_or(0);
            // As far again beyond the last coin as the gap limit asks for.
            let needed = highest.saturating_add(1).saturating_add(ADDRESS_LOOKAHEAD);
            if needed > range {
                range = needed.saturating_add(ADDRESS_LOOKAHEAD);
                continue;
            }
            let basis = self.carry_forward(&scanned, wallet, &origins, &mut coins)?;
            return Ok(Found { basis, coins: coins.into_values().collect() });
        }
    }

    /// Brings the scan's coins to the log's tip, block by block.
    fn carry_forward(
        &self,
        scanned: &ScanResult,
        wallet: &WalletId,
        origins: &HashMap<ScriptBuf, (Keychain, u32)>,
        coins: &mut BTreeMap<OutPoint, Received>,
    ) -> Result<BlockRef, ScanError> {
        let (mut at, mut applied) = (scanned.height, scanned.hash);
        loop {
            let (tip, ours) = self.log_at(at);
            let tip = tip.ok_or(ScanError::NotStarted)?;
            // On every turn: the log may have left the branch that the coins are of.
            if ours != Some(applied) {
                return Err(ScanError::OtherBranch);
            }
            if tip.hash == applied {
                return Ok(tip);
            }
            at += 1;
            let Some(hash) = self.log_at(at).1 else { return Err(ScanError::OtherBranch) };
            let block = self.chain.block(hash)?;
            if block.header.prev_blockhash != applied {
                return Err(ScanError::OtherBranch);
            }
            advance(coins, &block, Height(at), wallet, origins);
            applied = hash;
        }
    }

    /// The log's tip, and its block at a height.
    fn log_at(&self, height: u32) -> (Option<BlockRef>, Option<bitcoin::BlockHash>) {
        let mut found = (None, None);
        (self.read)(&mut |state| {
            found = (state.tip().ok(), state.block(Height(height)).map(|record| record.hash));
        });
        found
    }
}

fn ranged(descriptor: &WalletDescriptor, range: u32) -> Vec<ScanDescriptor> {
    let chains = [Keychain::External, Keychain::Internal].into_iter().filter_map(|keychain| descriptor.chain(keychain));
    chains.map(|chain| ScanDescriptor { descriptor: chain.to_string(), range: Some((0, range - 1)) }).collect()
}

fn origins(descriptor: &WalletDescriptor, range: u32) -> HashMap<ScriptBuf, (Keychain, u32)> {
    let mut origins = HashMap::new();
    for keychain in [Keychain::External, Keychain::Internal] {
        for index in 0..range {
            if let Some(script) = descriptor.script(keychain, index) {
                origins.insert(script, (keychain, index));
            }
        }
    }
    origins
}

fn coins(
    scanned: &ScanResult,
    wallet: &WalletId,
    origins: &HashMap<ScriptBuf, (Keychain, u32)>,
) -> BTreeMap<OutPoint, Received> {
    let ours = scanned.utxos.iter().filter_map(|utxo| {
        let (keychain, index) = *origins.get(&utxo.script)?;
        let coin = Received {
            outpoint: utxo.outpoint,
            wallet: wallet.clone(),
            value_sat: utxo.value.to_sat(),
            script: utxo.script.clone(),
            keychain,
            index,
            coinbase: utxo.coinbase,
            height: Height(utxo.height),
        };
        Some((utxo.outpoint, coin))
    });
    ours.collect()
}

fn advance(
    coins: &mut BTreeMap<OutPoint, Received>,
    block: &Block,
    height: Height,
    wallet: &WalletId,
    origins: &HashMap<ScriptBuf, (Keychain, u32)>,
) {
    for transaction in &block.txdata {
        for input in &transaction.input {
            coins.remove(&input.previous_output);
        }
        let txid = transaction.compute_txid();
        for (vout, output) in (0..).zip(&transaction.output) {
            let Some((keychain, index)) = origins.get(&output.script_pubkey).copied() else { continue };
            let outpoint = OutPoint { txid, vout };
            let coin = Received {
                outpoint,
                wallet: wallet.clone(),
                value_sat: output.value.to_sat(),
                script: output.script_pubkey.clone(),
                keychain,
                index,
                coinbase: transaction.is_coinbase(),
                height,
            };
            coins.insert(outpoint, coin);
        }
    }
}
