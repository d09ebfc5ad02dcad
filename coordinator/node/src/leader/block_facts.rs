//! What a block means for the wallets: pure functions from a block and the state to a command.

use std::collections::HashSet;

use bitcoin::{Block, OutPoint};
use onespend_core::command::{BlockRef, Command, Received, Spent};
use onespend_core::ids::Height;
use onespend_core::state::State;

use super::scripts::Scripts;

/// The command that connects a block.
pub(crate) fn connect(block: &Block, at: BlockRef, scripts: &Scripts, state: &State) -> Command {
    let received = received(block, at.height, scripts, state);
    let fresh: HashSet<OutPoint> = received.iter().map(|output| output.outpoint).collect();
    let mut spent = Vec::new();
    for transaction in &block.txdata {
        let ours: Vec<OutPoint> = transaction
            .input
            .iter()
            .map(|input| input.previous_output)
            .filter(|outpoint| fresh.contains(outpoint) || state.utxo(outpoint).is_some())
            .collect();
        if !ours.is_empty() {
            let txid = transaction.compute_txid();
            spent.extend(ours.into_iter().map(|outpoint| Spent { outpoint, txid }));
        }
    }
    Command::ConnectBlock {
        block: at,
        previous: block.header.prev_blockhash,
        received,
        spent,
        wallets: state.wallet_count(),
    }
}

fn received(block: &Block, height: Height, scripts: &Scripts, state: &State) -> Vec<Received> {
    let mut received = Vec::new();
    // Coins of wallets without descriptors have no script to search for. One comes again only after a reorganisation
    // took it away, and is known by its outpoint.
    let by_outpoint = state.wallets().any(|(_, wallet)| wallet.descriptor.is_none());
    for transaction in &block.txdata {
        let mut txid = None;
        for (vout, output) in (0..).zip(&transaction.output) {
            let origin = scripts.origin(&output.script_pubkey);
            if origin.is_none() && !by_outpoint {
                continue;
            }
            let txid = *txid.get_or_insert_with(|| transaction.compute_txid());
            let outpoint = OutPoint { txid, vout };
            let known = || state.utxo(&outpoint).filter(|utxo| utxo.height.is_none());
            let (wallet, keychain, index) = match (origin, known()) {
                (Some(origin), _) => (&origin.wallet, origin.keychain, origin.index),
                (None, Some(utxo)) => (&utxo.wallet, utxo.keychain, utxo.index),
                (None, None) => continue,
            };
            received.push(Received {
                outpoint,
                wallet: wallet.clone(),
                value_sat: output.value.to_sat(),
                script: output.script_pubkey.clone(),
                keychain,
                index,
                coinbase: transaction.is_coinbase(),
                height,
            });
        }
    }
    received
}
