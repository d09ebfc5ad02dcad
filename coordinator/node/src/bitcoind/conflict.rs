//! Whether a transaction in a block keeps another one out of the chain, as this node's own bitcoind has the block.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Transaction, Txid};
use onespend_adapters::chain::{Chain, ChainError};
use onespend_core::command::BlockRef;
use onespend_core::ids::Height;

use super::BitcoindWatch;
use crate::runtime;

/// Why nothing is proven.
#[derive(Debug, thiserror::Error)]
pub enum ConflictError {
    /// bitcoind did not answer, or refused.
    #[error("looking for the conflicting transaction: {0}")]
    Chain(#[from] ChainError),
    /// What was named does not prove it.
    #[error("{0}")]
    Unproven(&'static str),
    /// The thread ended.
    #[error("the look-up was stopped")]
    Stopped,
}

impl BitcoindWatch {
    /// Looks for a transaction in a block of the active chain and checks that it conflicts with another one; answers with
    /// the block. How deep it is, the log decides.
    ///
    /// # Errors
    /// [`ConflictError`].
    pub async fn find_conflict(
        &self,
        lost: &Transaction,
        by: Txid,
        block: BlockHash,
    ) -> Result<BlockRef, ConflictError> {
        let (chain, lost) = (Arc::clone(&self.chain), lost.clone());
        let found = runtime::blocking(move || find(chain.as_ref(), &lost, by, block)).await;
        found.map_err(|_| ConflictError::Stopped)?
    }
}

fn find(chain: &dyn Chain, lost: &Transaction, by: Txid, hash: BlockHash) -> Result<BlockRef, ConflictError> {
    let unproven = |why| Err(ConflictError::Unproven(why));
    let header = match chain.header(hash) {
        Err(error) if error.is_not_found() => return unproven("the leader's bitcoind does not know the block"),
        answer => answer?,
    };
    if header.confirmations.is_none() {
        return unproven("the block is not in the active chain of the leader's bitcoind");
    }
    let block = chain.block(hash)?;
    let Some(rival) = block.txdata.iter().find(|transaction| transaction.compute_txid() == by) else {
        return unproven("the block does not have the transaction that is named");
    };
    if !conflict(lost, rival) {
        return unproven("the transaction that is named spends nothing of what the coin's transaction spends");
    }
    Ok(BlockRef { height: Height(header.height), hash })
}

/// Whether at most one of them can be in a chain. The input of a coinbase is no coin: any two have the same.
fn conflict(one: &Transaction, other: &Transaction) -> bool {
    let coins = |transaction: &Transaction| -> BTreeSet<OutPoint> {
        let spent = transaction.input.iter().map(|input| input.previous_output);
        spent.filter(|outpoint| !outpoint.is_null()).collect()
    };
    one.compute_txid() != other.compute_txid() && !coins(one).is_disjoint(&coins(other))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxOut, Witness};
    use onespend_adapters::chain::fake::FakeChain;

    use super::*;

    /// Blocks after which a coinbase may be spent.
    const MATURITY: u32 = 100;

    fn somebody() -> ScriptBuf {
        ScriptBuf::from_hex("00140102030405060708090a0b0c0d0e0f1011121314").unwrap()
    }

    fn spending(coins: &[OutPoint], sat: u64) -> Transaction {
        let input = |previous_output: &OutPoint| TxIn {
            previous_output: *previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let output = TxOut { value: Amount::from_sat(sat), script_pubkey: somebody() };
        let (version, lock_time) = (Version::TWO, LockTime::ZERO);
        Transaction { version, lock_time, input: coins.iter().map(input).collect(), output: vec![output] }
    }

    /// A chain with two coins that may be spent.
    fn chain() -> (FakeChain, [OutPoint; 2]) {
        let chain = FakeChain::new();
        let blocks = chain.mine(MATURITY + 2, &somebody());
        let coin = |at: usize| OutPoint::new(chain.block(blocks[at]).unwrap().txdata[0].compute_txid(), 0);
        let coins = [coin(0), coin(1)];
        (chain, coins)
    }

    fn why(chain: &FakeChain, lost: &Transaction, by: &Transaction, block: BlockHash) -> Option<&'static str> {
        match find(chain, lost, by.compute_txid(), block) {
            Ok(_) => None,
            Err(ConflictError::Unproven(why)) => Some(why),
            Err(_) => Some("another error"),
        }
    }

    #[test]
    fn a_transaction_in_a_block_that_spends_the_same_coin_is_proof_and_nothing_else_is() {
        let (chain, [first, second]) = chain();
        let (lost, rival) = (spending(&[first, second], 1_000), spending(&[second], 2_000));
        let block = chain.mine_with(std::slice::from_ref(&rival), &somebody()).unwrap();
        let height = chain.header(block).unwrap().height;
        let found = find(&chain, &lost, rival.compute_txid(), block).unwrap();
        assert_eq!(found, BlockRef { height: Height(height), hash: block });

        let apart = spending(&[first], 3_000);
        assert!(why(&chain, &apart, &rival, block).unwrap().contains("spends nothing"));
        assert!(why(&chain, &rival, &rival, block).unwrap().contains("spends nothing"), "it is no rival of itself");
        assert!(why(&chain, &lost, &apart, block).unwrap().contains("does not have the transaction"));
        let other = chain.mine(1, &somebody())[0];
        assert!(why(&chain, &lost, &rival, other).unwrap().contains("does not have the transaction"));
        let nowhere = BlockHash::from_byte_array([7; 32]);
        assert!(why(&chain, &lost, &rival, nowhere).unwrap().contains("does not know the block"));
        chain.invalidate(block);
        assert!(why(&chain, &lost, &rival, block).unwrap().contains("not in the active chain"));
    }

    /// Every coinbase spends the same outpoint, which is none.
    #[test]
    fn a_coinbase_takes_no_coin_from_another() {
        let (chain, _) = chain();
        let blocks = chain.blocks();
        let [.., before, last] = &blocks[..] else { unreachable!() };
        assert!(!conflict(&before.txdata[0], &last.txdata[0]));
    }
}
