//! Forks: which chain is active, and what becomes of transactions.

use onespend_adapters::chain::TipRef;

use super::contract;
use crate::driver::Driver;
use crate::purse::{Purse, coin_of, nobody};

contract! {
    fn the_chain_with_more_work_wins(driver: &dyn Driver) {
        let old = driver.mine(5, &nobody());
        driver.invalidate(old[2]);
        let new = driver.mine(4, &Purse::new(3).script());
        driver.reconsider(old[2]);
        let tip = driver.chain().probe().unwrap().tip;
        assert_eq!(tip, TipRef { height: 6, hash: new[3] });

        // Back by previous hash from either side to where they part.
        let walk = |from: bitcoin::BlockHash, steps: u32| {
            (0..steps).fold(from, |hash, _| driver.chain().header(hash).unwrap().prev.unwrap())
        };
        assert_eq!(walk(new[3], 4), old[1]);
        assert_eq!(walk(old[4], 3), old[1]);
        assert_eq!(driver.chain().header(old[4]).unwrap().confirmations, None);
        assert_eq!(driver.chain().block_hash_at(5).unwrap(), Some(new[2]));
    }

    fn a_fork_of_equal_work_loses_to_the_block_seen_first(driver: &dyn Driver) {
        let first = driver.mine(2, &nobody())[1];
        driver.invalidate(first);
        let second = driver.mine(1, &Purse::new(3).script())[0];
        assert_eq!(driver.chain().probe().unwrap().tip.hash, second);
        driver.reconsider(first);
        assert_eq!(driver.chain().probe().unwrap().tip.hash, first);
    }

    fn a_disconnected_transaction_returns_to_the_mempool(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let parent = purse.send(coin, 1_000);
        let child = purse.send(coin_of(&parent, 0), 1_000);
        let block = driver.mine_with(&[parent.clone(), child.clone()], &nobody());
        driver.invalidate(block);
        for tx in [&parent, &child] {
            assert!(driver.mempool().contains(&tx.compute_txid()));
        }
        assert!(driver.chain().tx_out(coin.outpoint, false).unwrap().is_some());
        driver.reconsider(block);
        for tx in [&parent, &child] {
            assert!(!driver.mempool().contains(&tx.compute_txid()));
        }
        assert_eq!(driver.chain().tx_out(coin.outpoint, false).unwrap(), None);
    }

    fn a_mined_conflict_evicts_a_transaction_and_its_children(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let parent = purse.send(coin, 90_000);
        let child = purse.send(coin_of(&parent, 0), 1_000);
        driver.chain().broadcast(&parent).unwrap();
        driver.chain().broadcast(&child).unwrap();
        driver.mine_with(&[purse.send(coin, 1_000)], &nobody());
        for tx in [&parent, &child] {
            assert!(!driver.mempool().contains(&tx.compute_txid()));
        }
    }

    fn a_spend_of_a_coinbase_that_a_reorg_made_immature_is_evicted(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let tx = purse.send(coin, 1_000);
        driver.chain().broadcast(&tx).unwrap();
        let tip = driver.chain().probe().unwrap().tip;
        // 101 blocks deep; two fewer leave it one short of spendable.
        let below = driver.chain().block_hash_at(tip.height - 1).unwrap().unwrap();
        driver.invalidate(below);
        assert!(!driver.mempool().contains(&tx.compute_txid()));
    }
}
