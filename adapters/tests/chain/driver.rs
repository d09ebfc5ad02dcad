//! What a contract case needs beside the port.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{BlockHash, Script, Transaction, Txid};
use onespend_adapters::chain::Chain;
use onespend_adapters::chain::fake::FakeChain;

pub trait Driver {
    /// The implementation under test.
    fn chain(&self) -> Arc<dyn Chain>;

    /// Mines blocks, with what the mempool holds, that pay to `script`. Answers their hashes in order.
    fn mine(&self, count: u32, script: &Script) -> Vec<BlockHash>;

    /// Mines one block with exactly these transactions.
    fn mine_with(&self, txs: &[Transaction], script: &Script) -> BlockHash;

    /// Declares a block and all that follow it invalid.
    fn invalidate(&self, hash: BlockHash);

    /// Takes that back.
    fn reconsider(&self, hash: BlockHash);

    /// Prefers a block to others of the same work.
    fn prefer(&self, hash: BlockHash);

    /// What the mempool holds.
    fn mempool(&self) -> BTreeSet<Txid>;
}

impl Driver for FakeChain {
    fn chain(&self) -> Arc<dyn Chain> {
        Arc::new(self.clone())
    }

    fn mine(&self, count: u32, script: &Script) -> Vec<BlockHash> {
        FakeChain::mine(self, count, script)
    }

    fn mine_with(&self, txs: &[Transaction], script: &Script) -> BlockHash {
        FakeChain::mine_with(self, txs, script).unwrap()
    }

    fn invalidate(&self, hash: BlockHash) {
        FakeChain::invalidate(self, hash);
    }

    fn reconsider(&self, hash: BlockHash) {
        FakeChain::reconsider(self, hash);
    }

    fn prefer(&self, hash: BlockHash) {
        FakeChain::prefer(self, hash);
    }

    fn mempool(&self) -> BTreeSet<Txid> {
        FakeChain::mempool(self).iter().map(Transaction::compute_txid).collect()
    }
}
