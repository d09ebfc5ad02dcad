//! What a block means for the wallets: pure functions from a block and the state to a command.

use std::collections::{HashMap, HashSet};

use bitcoin::{Block, OutPoint};
use onespend_core::command::{BlockRef, Command, Received, Spent};
use onespend_core::ids::Height;
use onespend_core::state::State;
use onespend_core::utxo::Utxo;

use super::scripts::{Covered, SharedScripts};

/// The command that connects a block. `received` is what a search over the scripts of the covered wallets found in it.
pub(crate) fn connect(
    block: &Block,
    at: BlockRef,
    mut received: Vec<Received>,
    covered: Covered,
    state: &State,
) -> Command {
    // A coin that was followed by its outpoint stays in that wallet, also where a wallet with its script came later.
    received.retain(|output| state.utxo(&output.outpoint).is_none_or(|known| known.wallet == output.wallet));
    received.extend(returned(block, at.height, state));
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
        // Not those of `state`: one that was registered since was not searched for.
        wallets: covered.wallets(),
        followed: state.followed(),
    }
}

/// What the wallets whose scripts are known receive by a block at this height.
pub(crate) fn received(block: &Block, height: Height, scripts: &SharedScripts) -> Vec<Received> {
    let mut received = Vec::new();
    for transaction in &block.txdata {
        let mut txid = None;
        for (vout, output) in (0..).zip(&transaction.output) {
            let Some(origin) = scripts.origin(&output.script_pubkey) else { continue };
            let txid = *txid.get_or_insert_with(|| transaction.compute_txid());
            received.push(Received {
                outpoint: OutPoint { txid, vout },
                wallet: origin.wallet,
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

/// Coins of wallets without descriptors have no script to search for. One comes again only after a reorganisation took
/// it away, and is known by its outpoint.
fn returned(block: &Block, height: Height, state: &State) -> Vec<Received> {
    if state.wallets().all(|(_, wallet)| !wallet.descriptor.is_none()) {
        return Vec::new();
    }
    let is_gone = |utxo: &Utxo| {
        let followed = state.wallet(&utxo.wallet).is_ok_and(|wallet| wallet.descriptor.is_none());
        utxo.height.is_none() && followed
    };
    let gone: HashMap<OutPoint, &Utxo> =
        state.utxos().filter(|(_, utxo)| is_gone(utxo)).map(|(outpoint, utxo)| (*outpoint, utxo)).collect();
    if gone.is_empty() {
        return Vec::new();
    }
    let mut returned = Vec::new();
    for transaction in &block.txdata {
        let txid = transaction.compute_txid();
        let outputs = (0..).take(transaction.output.len()).map(|vout| OutPoint { txid, vout });
        returned.extend(outputs.filter_map(|outpoint| {
            let utxo = gone.get(&outpoint)?;
            Some(Received {
                outpoint,
                wallet: utxo.wallet.clone(),
                value_sat: utxo.value_sat,
                script: utxo.script.clone(),
                keychain: utxo.keychain,
                index: utxo.index,
                coinbase: utxo.coinbase,
                height,
            })
        }));
    }
    returned
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use bitcoin::absolute::LockTime;
    use bitcoin::block::{Header, Version};
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, CompactTarget, Transaction, TxMerkleNode, TxOut, transaction};
    use onespend_core::command::{RegisterOutpoints, RegisterWallet};
    use onespend_core::outcome::{Outcome, Rejection};
    use onespend_core::wallet::{Keychain, SignerRef};

    use super::*;
    use crate::raft::StateView;
    use crate::specimen::{TIP, accept, apply_to, register, script, started, tip, wallet};

    /// The block on top of the specimen's tip, which pays to these wallets.
    fn paying_to(wallets: &[&str]) -> Block {
        let output = wallets
            .iter()
            .map(|name| TxOut { value: Amount::from_sat(70_000), script_pubkey: script(name, Keychain::External, 3) });
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![],
            output: output.collect(),
        };
        let header = Header {
            version: Version::TWO,
            prev_blockhash: tip().hash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: 0,
            bits: CompactTarget::default(),
            nonce: 0,
        };
        Block { header, txdata: vec![transaction] }
    }

    fn search(block: &Block, covered: Covered, scripts: &SharedScripts, view: &StateView) -> Command {
        let at = BlockRef { height: Height(TIP + 1), hash: block.block_hash() };
        let received = received(block, at.height, scripts);
        view.read(|state| connect(block, at, received, covered, state))
    }

    #[test]
    fn a_wallet_that_comes_between_search_and_command_loses_no_receipt() {
        let (view, scripts) = (started(), SharedScripts::default());
        accept(&view, register("early", &[]));
        let block = paying_to(&["early", "late"]);
        let covered = scripts.cover(&view);
        accept(&view, register("late", &[]));
        let without_late = search(&block, covered, &scripts, &view);
        let refused = apply_to(&view, None, without_late);
        assert!(matches!(refused, Outcome::Rejected(Rejection::StaleBasis { .. })), "{refused:?}");
        assert_eq!(view.read(|state| state.utxos().count()), 0);

        let covered = scripts.cover(&view);
        accept(&view, search(&block, covered, &scripts, &view));
        assert_eq!(view.read(|state| state.utxos().count()), 2);
    }

    /// A reorganisation brings it a second time, when a wallet that was registered after it has its script.
    #[test]
    fn a_coin_that_was_registered_by_its_outpoint_stays_in_its_wallet() {
        let (view, scripts) = (started(), SharedScripts::default());
        let Command::RegisterWallet(with_script) = register("late", &[]) else { panic!("it registers") };
        let single = RegisterWallet { wallet: wallet("single"), descriptor: String::new(), ..with_script };
        accept(&view, Command::RegisterWallet(RegisterWallet { signer: SignerRef::WatchOnly, ..single }));
        let block = paying_to(&["late"]);
        let coin = Received {
            outpoint: OutPoint { txid: block.txdata[0].compute_txid(), vout: 0 },
            wallet: wallet("single"),
            value_sat: 70_000,
            script: script("late", Keychain::External, 3),
            keychain: Keychain::External,
            index: 0,
            coinbase: false,
            height: Height(TIP),
        };
        let registered = RegisterOutpoints { wallet: wallet("single"), basis: tip(), found: vec![coin] };
        accept(&view, Command::RegisterOutpoints(registered));
        accept(&view, register("late", &[]));
        let covered = scripts.cover(&view);
        let Command::ConnectBlock { received, .. } = search(&block, covered, &scripts, &view) else {
            panic!("a block")
        };
        assert_eq!(received, []);
    }
}
