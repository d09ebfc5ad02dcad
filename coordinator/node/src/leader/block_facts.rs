//! What a block means for the wallets: pure functions from a block and the state to a command.

use std::collections::HashSet;

use bitcoin::{Block, OutPoint};
use onespend_core::command::{BlockRef, Command, Received, Spent};
use onespend_core::ids::Height;
use onespend_core::state::State;

use super::scripts::Scripts;

/// The command that connects a block.
pub(crate) fn connect(block: &Block, at: BlockRef, scripts: &Scripts, state: &State) -> Command {
    let received = received(block, at.height, scripts);
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

fn received(block: &Block, height: Height, scripts: &Scripts) -> Vec<Received> {
    let mut received = Vec::new();
    for transaction in &block.txdata {
        let mut txid = None;
        for (vout, output) in (0..).zip(&transaction.output) {
            let Some(origin) = scripts.origin(&output.script_pubkey) else { continue };
            let txid = *txid.get_or_insert_with(|| transaction.compute_txid());
            received.push(Received {
                outpoint: OutPoint { txid, vout },
                wallet: origin.wallet.clone(),
                value_sat: output.value.to_sat(),
                script: output.script_pubkey.clone(),
                keychain: origin.keychain,
                index: origin.index,
                coinbase: transaction.is_coinbase(),
                height,
            });
        }
    }
    received
}
