//! Faults on demand, and what the fake claims about itself.

use std::thread;
use std::time::{Duration, Instant};

use onespend_adapters::chain::fake::{FakeChain, Fault};
use onespend_adapters::chain::{BroadcastOutcome, Chain, ChainError};

use crate::driver::Driver;
use crate::purse::{Purse, coin_of, nobody};

#[test]
fn a_fault_meets_the_named_call_as_often_as_asked() {
    let fake = FakeChain::new();
    fake.inject(Some("getblockchaininfo"), Fault::Starting, 2);
    assert!(fake.block_hash_at(0).unwrap().is_some());
    for _ in 0..2 {
        assert!(matches!(fake.probe(), Err(ChainError::Starting { .. })));
    }
    fake.probe().unwrap();

    fake.inject(None, Fault::Refused, u32::MAX);
    for _ in 0..3 {
        let error = fake.block_hash_at(0).unwrap_err();
        assert!(!error.is_unknown(), "{error}");
    }
    fake.clear_faults();
    fake.probe().unwrap();
}

#[test]
fn a_timeout_may_or_may_not_have_had_its_effect() {
    let fake = FakeChain::new();
    let purse = Purse::new(1);
    let coin = purse.fund(&fake);
    let tx = purse.send(coin, 1_000);
    fake.inject(Some("sendrawtransaction"), Fault::Timeout, 1);
    fake.inject(Some("sendrawtransaction"), Fault::LostAnswer, 1);
    assert!(fake.broadcast(&tx).unwrap_err().is_unknown());
    assert_eq!(fake.mempool(), []);
    assert!(fake.broadcast(&tx).unwrap_err().is_unknown());
    assert_eq!(fake.mempool(), std::slice::from_ref(&tx));
    assert_eq!(fake.broadcast(&tx).unwrap(), BroadcastOutcome::AlreadyInMempool);
}

#[test]
fn a_hang_ends_with_its_timeout_or_when_faults_are_cleared() {
    let fake = FakeChain::new();
    fake.configure(|node| node.timeout = Duration::from_millis(100));
    fake.inject(None, Fault::Hang, 1);
    let start = Instant::now();
    assert!(matches!(fake.probe(), Err(ChainError::Timeout { .. })));
    assert!(start.elapsed() >= Duration::from_millis(100));

    fake.configure(|node| node.timeout = Duration::from_mins(1));
    fake.inject(None, Fault::Hang, 1);
    let hung = fake.clone();
    let caller = thread::spawn(move || hung.probe());
    thread::sleep(Duration::from_millis(100));
    // Another call is not held up by it.
    fake.block_hash_at(0).unwrap();
    assert!(!caller.is_finished());
    fake.clear_faults();
    assert!(matches!(caller.join().unwrap(), Err(ChainError::Timeout { .. })));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn it_claims_what_a_test_tells_it_to() {
    let fake = FakeChain::new();
    fake.configure(|node| {
        node.peers = 8;
        node.headers_ahead = 5;
        node.mempool_loaded = false;
        node.feerate_sat_vb = Some(0.01);
    });
    let view = fake.probe().unwrap();
    assert_eq!((view.peers, view.headers, view.mempool_loaded), (8, 5, false));
    let floor = fake.estimate_fee(6).unwrap().unwrap();
    assert!((floor - 0.1).abs() < 1e-9, "never below the mempool's minimum");
}

#[test]
fn an_evicted_transaction_takes_its_children_along() {
    let fake = FakeChain::new();
    let purse = Purse::new(1);
    let coin = purse.fund(&fake);
    let parent = purse.send(coin, 1_000);
    let child = purse.send(coin_of(&parent, 0), 1_000);
    fake.broadcast(&parent).unwrap();
    fake.broadcast(&child).unwrap();
    assert!(fake.evict(parent.compute_txid()));
    assert_eq!(fake.mempool(), []);
    assert!(!fake.evict(parent.compute_txid()));
    assert_eq!(fake.broadcast(&parent).unwrap(), BroadcastOutcome::Accepted);
}

#[test]
fn a_block_with_an_unspendable_input_is_refused() {
    let fake = FakeChain::new();
    let purse = Purse::new(1);
    let coin = purse.fund(&fake);
    let tx = purse.send(coin, 1_000);
    let rival = purse.send(coin, 2_000);
    let before = fake.probe().unwrap().tip;
    assert!(FakeChain::mine_with(&fake, &[tx.clone(), rival], &nobody()).is_err());
    assert_eq!(fake.probe().unwrap().tip, before);
    Driver::mine_with(&fake, std::slice::from_ref(&tx), &nobody());
    assert!(FakeChain::mine_with(&fake, &[tx], &nobody()).is_err());
}
