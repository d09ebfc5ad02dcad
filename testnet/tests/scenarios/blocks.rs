//! Blocks and mempools of the cluster's bitcoinds.

use bitcoin::hashes::{Hash, hash160};
use bitcoin::{Address, BlockHash, Network, ScriptBuf, Transaction, WPubkeyHash};
use onespend_testnet::bitcoind::{Bitcoind, wait_for_same_tip};
use serde_json::{Value, json};

use crate::scene::{NODES, Scene, eventually, need};

impl Scene {
    /// Mines blocks on the first bitcoind, and waits until all have them.
    pub fn mine(&mut self, blocks: u32) {
        let (funds, bitcoind) = self.cluster.funds().unwrap();
        let script = funds.script().clone();
        bitcoind.mine(blocks, &script).unwrap();
        wait_for_same_tip(self.cluster.bitcoinds()).unwrap();
    }

    /// Mines one block with these transactions alone, whatever the mempools hold.
    pub fn mine_only(&self, transactions: &[&Transaction]) -> BlockHash {
        let block = generate(&self.cluster.bitcoinds()[0], transactions);
        wait_for_same_tip(self.cluster.bitcoinds()).unwrap();
        block
    }

    /// Makes a block invalid everywhere, and mines these blocks instead of it and of what followed.
    pub fn reorganise(&self, block: BlockHash, instead: &[&[&Transaction]]) {
        for bitcoind in self.cluster.bitcoinds() {
            bitcoind.invalidate(block).unwrap();
        }
        for transactions in instead {
            generate(&self.cluster.bitcoinds()[0], transactions);
        }
        wait_for_same_tip(self.cluster.bitcoinds()).unwrap();
    }

    /// Stops every bitcoind in order: a killed one forgets the last blocks as well.
    pub fn stop_bitcoinds(&mut self) {
        for index in 0..NODES {
            self.cluster.bitcoind(index).unwrap().stop().unwrap();
        }
    }

    /// Starts them again, with these options and without what was in their mempools.
    pub fn restart_bitcoinds(&mut self, options: &[&str]) {
        let options = [options, &["-persistmempool=0"]].concat();
        for index in 0..NODES {
            self.cluster.bitcoind(index).unwrap().restart_with(&options).unwrap();
        }
    }

    /// What is in the mempool of each bitcoind.
    pub fn mempools(&self) -> Result<Vec<Vec<String>>, String> {
        let pool = |bitcoind: &Bitcoind| bitcoind.call("getrawmempool", &[]).map_err(|error| format!("{error:#}"));
        self.cluster.bitcoinds().iter().map(pool).collect()
    }

    /// Waits until every mempool has one transaction and not the other.
    pub async fn in_every_mempool(&self, there: &str, gone: Option<&str>) {
        eventually("the mempools hold what they should", async || {
            let pools = self.mempools()?;
            let right = pools.iter().all(|pool| {
                let has = |txid: &str| pool.iter().any(|one| one == txid);
                has(there) && !gone.is_some_and(has)
            });
            need(right, || format!("{there} should be there, {gone:?} should not: {pools:?}"))
        })
        .await;
    }

    /// Waits until every node stands on the first bitcoind's tip.
    pub async fn followed(&self) {
        let tip = self.cluster.bitcoinds()[0].tip().unwrap().to_string();
        eventually("every node follows the chain", async || {
            for index in 0..NODES {
                let seen = self.status(index).await.tip.unwrap_or_default().hash;
                need(seen == tip, || format!("node {} stands on {seen}, not on {tip}", index + 1))?;
            }
            Ok(())
        })
        .await;
    }
}

/// One block with these transactions alone, on this bitcoind.
pub fn generate(bitcoind: &Bitcoind, transactions: &[&Transaction]) -> BlockHash {
    let raw: Vec<String> =
        transactions.iter().map(|transaction| bitcoin::consensus::encode::serialize_hex(*transaction)).collect();
    // To a script that follows from the tip and from what is mined, so that no block is ever mined again.
    let seed = format!("{}{raw:?}{}", bitcoind.tip().unwrap(), uuid::Uuid::new_v4());
    let miner = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(seed.as_bytes())));
    let miner = Address::from_script(&miner, Network::Regtest).unwrap().to_string();
    let mined: Value = bitcoind.call("generateblock", &[json!(miner), json!(raw)]).unwrap();
    mined["hash"].as_str().unwrap().parse().unwrap()
}
