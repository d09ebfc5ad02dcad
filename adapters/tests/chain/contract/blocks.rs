//! The tip, headers and blocks.

use std::thread;
use std::time::{Duration, Instant};

use bitcoin::blockdata::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network};
use onespend_adapters::chain::TipRef;

use super::contract;
use crate::driver::Driver;
use crate::purse::{Purse, nobody};

/// Far longer than a wake-up takes, far shorter than the long poll.
const SOON: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(30);

fn tip(driver: &dyn Driver) -> TipRef {
    driver.chain().probe().unwrap().tip
}

/// The answer of a long poll during which `act` happens.
fn waiting_while(driver: &dyn Driver, current: BlockHash, act: impl FnOnce()) -> TipRef {
    let chain = driver.chain();
    let waiter = thread::spawn(move || (chain.wait_tip(current, LONG).unwrap(), Instant::now()));
    thread::sleep(Duration::from_millis(300));
    assert!(!waiter.is_finished(), "woke although the tip stayed");
    let start = Instant::now();
    act();
    let (tip, woke) = waiter.join().unwrap();
    assert!(woke.saturating_duration_since(start) < SOON);
    tip
}

contract! {
    fn a_probe_tells_chain_tip_and_mempool(driver: &dyn Driver) {
        let genesis = genesis_block(Network::Regtest);
        let view = driver.chain().probe().unwrap();
        assert_eq!(view.network, Network::Regtest);
        assert_eq!(view.genesis, genesis.block_hash());
        assert_eq!(view.tip, TipRef { height: 0, hash: genesis.block_hash() });
        assert_eq!(view.tip_time_s, u64::from(genesis.header.time));
        assert!(view.initial_block_download, "the tip is years old");
        assert_eq!(view.oldest_block, None, "it keeps all blocks");

        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        driver.chain().broadcast(&purse.send(coin, 1_000)).unwrap();
        let view = driver.chain().probe().unwrap();
        assert_eq!(view.tip.height, 101);
        assert_eq!(view.headers, 101);
        assert_eq!(Some(view.tip.hash), driver.chain().block_hash_at(101).unwrap());
        assert!(!view.initial_block_download);
        assert_eq!(view.peers, 0);
        assert_eq!(view.mempool_txs, 1);
        assert!(view.mempool_loaded);
        assert!(view.version >= 290_000 && view.subversion.starts_with("/Satoshi:"));
        assert!((view.mempool_min_feerate_sat_vb - 0.1).abs() < 1e-9);
        assert!((view.incremental_feerate_sat_vb - 0.1).abs() < 1e-9);
        assert!(view.latency < SOON);
    }

    fn waiting_for_a_tip_wakes_on_a_new_block(driver: &dyn Driver) {
        driver.mine(1, &nobody());
        let before = tip(driver);
        let after = waiting_while(driver, before.hash, || { driver.mine(1, &nobody()); });
        assert_eq!(after.height, before.height + 1);
        assert_eq!(after, tip(driver));
    }

    fn waiting_for_a_tip_wakes_on_a_reorg_of_the_same_height(driver: &dyn Driver) {
        let first = driver.mine(3, &nobody())[2];
        driver.invalidate(first);
        let second = driver.mine(1, &Purse::new(2).script())[0];
        driver.reconsider(first);
        driver.prefer(second);
        assert_eq!(tip(driver), TipRef { height: 3, hash: second });

        let after = waiting_while(driver, second, || driver.prefer(first));
        assert_eq!(after, TipRef { height: 3, hash: first });
    }

    fn waiting_for_a_tip_wakes_when_the_chain_gets_shorter(driver: &dyn Driver) {
        let mined = driver.mine(2, &nobody());
        let after = waiting_while(driver, mined[1], || driver.invalidate(mined[1]));
        assert_eq!(after, TipRef { height: 1, hash: mined[0] });
    }

    fn waiting_for_a_tip_ends_with_its_timeout(driver: &dyn Driver) {
        let before = tip(driver);
        let start = Instant::now();
        let after = driver.chain().wait_tip(before.hash, Duration::from_millis(200)).unwrap();
        assert_eq!(after, before);
        assert!(start.elapsed() >= Duration::from_millis(190) && start.elapsed() < SOON);
        // Not for ever, as a plain 0 would be to Core.
        assert_eq!(driver.chain().wait_tip(before.hash, Duration::ZERO).unwrap(), before);
        assert!(start.elapsed() < SOON);
    }

    fn waiting_from_an_old_or_unknown_tip_answers_at_once(driver: &dyn Driver) {
        let mined = driver.mine(2, &nobody());
        for known in [mined[0], BlockHash::from_byte_array([9; 32])] {
            let start = Instant::now();
            assert_eq!(driver.chain().wait_tip(known, LONG).unwrap(), tip(driver));
            assert!(start.elapsed() < SOON);
        }
    }

    fn headers_say_where_a_block_stands(driver: &dyn Driver) {
        let mined = driver.mine(3, &nobody());
        let header = driver.chain().header(mined[1]).unwrap();
        let block = driver.chain().block(mined[1]).unwrap();
        assert_eq!((header.hash, header.height), (mined[1], 2));
        assert_eq!(header.prev, Some(mined[0]));
        assert_eq!(header.time_s, u64::from(block.header.time));
        assert_eq!(header.confirmations, Some(2));

        driver.invalidate(mined[1]);
        assert_eq!(driver.chain().header(mined[1]).unwrap().confirmations, None);
        assert_eq!(driver.chain().header(mined[0]).unwrap().confirmations, Some(1));

        let genesis = driver.chain().header(genesis_block(Network::Regtest).block_hash()).unwrap();
        assert_eq!((genesis.height, genesis.prev), (0, None));
    }

    fn heights_name_blocks_of_the_active_chain_only(driver: &dyn Driver) {
        let mined = driver.mine(2, &nobody());
        let at = |height| driver.chain().block_hash_at(height).unwrap();
        assert_eq!(at(0), Some(genesis_block(Network::Regtest).block_hash()));
        assert_eq!((at(1), at(2), at(3)), (Some(mined[0]), Some(mined[1]), None));
        driver.invalidate(mined[1]);
        assert_eq!(at(2), None);
    }

    fn an_unknown_block_is_not_found(driver: &dyn Driver) {
        let unknown = BlockHash::from_byte_array([7; 32]);
        for error in [
            driver.chain().header(unknown).unwrap_err(),
            driver.chain().block(unknown).unwrap_err(),
        ] {
            assert!(error.is_not_found() && !error.is_unknown(), "{error}");
        }
    }

    fn a_block_holds_the_transactions_that_were_mined(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let tx = purse.send(coin, 1_000);
        driver.chain().broadcast(&tx).unwrap();
        let mined = driver.mine(1, &nobody())[0];
        let block = driver.chain().block(mined).unwrap();
        assert_eq!(block.block_hash(), mined);
        assert_eq!(block.txdata[1..], [tx]);
        assert!(block.txdata[0].is_coinbase());
        assert!(block.check_merkle_root() && block.check_witness_commitment());
        assert_eq!(block.bip34_block_height().unwrap(), 102);
        block.header.validate_pow(block.header.target()).unwrap();
        let subsidy = 50 * 100_000_000;
        assert_eq!(block.txdata[0].output[0].value.to_sat(), subsidy + 1_000);
    }

    fn a_stale_block_can_still_be_read(driver: &dyn Driver) {
        let mined = driver.mine(2, &nobody())[1];
        let before = driver.chain().block(mined).unwrap();
        driver.invalidate(mined);
        assert_eq!(driver.chain().block(mined).unwrap(), before);
    }
}
