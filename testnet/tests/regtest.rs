//! The harness's bitcoind and coins, against the real one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::thread;
use std::time::{Duration, Instant};

use bitcoin::bip32::{ChildNumber, Xpub};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, ScriptBuf};
use onespend_testnet::bitcoind::{Bitcoind, wait_for_same_tip};
use onespend_testnet::funds::Funds;
use onespend_testnet::miner::Miner;
use onespend_testnet::oracle::chain;
use onespend_testnet::wallet::HotWallet;
use serde_json::{Value, json};

fn recipient(number: u8) -> ScriptBuf {
    let mut program = vec![0x00, 0x14];
    program.extend([number; 20]);
    ScriptBuf::from_bytes(program)
}

#[test]
fn blocks_and_payments_reach_every_peer_and_the_oracle_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes: Vec<Bitcoind> = (1..=2)
        .map(|id| Bitcoind::start(&format!("bitcoind-{id}"), &folder.path().join(id.to_string())).unwrap())
        .collect();
    let (first, rest) = nodes.split_at_mut(1);
    rest[0].peer_with(&mut first[0]).unwrap();

    let mut funds = Funds::new(7).unwrap();
    funds.mine(&nodes[0], 2).unwrap();
    assert_eq!(funds.balance(), Amount::from_sat(100 * 100_000_000));
    wait_for_same_tip(&nodes).unwrap();
    assert_eq!(nodes[1].height().unwrap(), 102);

    // More than one coinbase is worth, so both are spent; the change is spent by the next one.
    let amount = Amount::from_sat(60 * 100_000_000);
    let outputs: Vec<_> = vec![(recipient(1), amount), (recipient(2), Amount::from_sat(1_000))];
    let transaction = funds.fan_out(&nodes[0], &outputs).unwrap();
    assert_eq!(transaction.input.len(), 2);
    funds.fan_out(&nodes[0], &[(recipient(3), Amount::from_sat(5_000))]).unwrap();
    assert!(funds.fan_out(&nodes[0], &[(recipient(4), amount)]).is_err(), "more than there is");
    nodes[0].mine(2, funds.script()).unwrap();
    wait_for_same_tip(&nodes).unwrap();

    let mut orders = chain::Orders::default();
    orders.add(recipient(1), "p1", amount).unwrap();
    orders.add(recipient(2), "p1", Amount::from_sat(1_000)).unwrap();
    orders.add(recipient(3), "p2", Amount::from_sat(5_001)).unwrap(); // one more than was paid
    let blocks = chain::read_blocks(&nodes[1], 1).unwrap();
    let verdict = chain::judge(&blocks, &orders, 2);
    assert_eq!(verdict.settled.iter().map(String::as_str).collect::<Vec<_>>(), ["p1"]);
    assert_eq!(verdict.wrong_amounts.len(), 1);
    assert!(chain::judge(&blocks, &orders, 3).settled.is_empty());
}

#[test]
fn bitcoind_derives_the_wallets_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let node = Bitcoind::start("bitcoind", folder.path()).unwrap();
    let wallet = HotWallet::new(7).unwrap();
    let key = wallet.public_descriptor().split_once(']').unwrap().1.split_once('/').unwrap().0;
    let account: Xpub = key.parse().unwrap();
    for (branch, descriptor) in (0..).zip(wallet.branches()) {
        let scripts = node.scripts(&descriptor, 3).unwrap();
        assert_eq!(scripts.len(), 3);
        for (index, script) in (0..).zip(&scripts) {
            let path = [branch, index].map(|step| ChildNumber::from_normal_idx(step).unwrap());
            let key = account.derive_pub(&Secp256k1::new(), &path).unwrap().to_pub();
            assert_eq!(*script, ScriptBuf::new_p2wpkh(&key.wpubkey_hash()), "{branch}/{index}");
        }
    }
}

#[test]
fn a_reorg_takes_a_payment_out_and_reconsidering_brings_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let node = Bitcoind::start("bitcoind", folder.path()).unwrap();
    let mut funds = Funds::new(8).unwrap();
    funds.mine(&node, 1).unwrap();
    let fork = node.mine(1, funds.script()).unwrap()[0];
    funds.fan_out(&node, &[(recipient(1), Amount::from_sat(5_000))]).unwrap();
    node.mine(1, funds.script()).unwrap();
    let mut orders = chain::Orders::default();
    orders.add(recipient(1), "p1", Amount::from_sat(5_000)).unwrap();
    let confirmed = || chain::judge(&chain::read_blocks(&node, 1).unwrap(), &orders, 1).confirmed.len();
    assert_eq!(confirmed(), 1);

    node.invalidate(fork).unwrap();
    assert_eq!((node.height().unwrap(), confirmed()), (101, 0));
    let mempool: Vec<String> = node.call("getrawmempool", &[]).unwrap();
    assert_eq!(mempool.len(), 1, "the payment is back in the mempool");
    node.reconsider(fork).unwrap();
    assert_eq!((node.height().unwrap(), confirmed()), (103, 1));
}

#[test]
fn a_killed_bitcoind_comes_back_with_its_chain_a_new_cookie_and_its_peers() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = Bitcoind::start("one", &folder.path().join("1")).unwrap();
    let mut two = Bitcoind::start("two", &folder.path().join("2")).unwrap();
    one.peer_with(&mut two).unwrap();
    two.mine(3, Funds::new(9).unwrap().script()).unwrap();
    let before = std::fs::read_to_string(one.cookie_file()).unwrap();
    one.kill().unwrap();
    assert!(one.height().is_err());
    two.mine(2, Funds::new(9).unwrap().script()).unwrap();
    one.restart().unwrap();
    assert_ne!(std::fs::read_to_string(one.cookie_file()).unwrap(), before);
    let mut nodes = [one, two];
    wait_for_same_tip(&nodes).unwrap();
    assert_eq!(nodes[0].height().unwrap(), 5);

    // The one that was connected to comes back to its peer as well.
    nodes[1].kill().unwrap();
    nodes[0].mine(2, Funds::new(9).unwrap().script()).unwrap();
    nodes[1].restart().unwrap();
    wait_for_same_tip(&nodes).unwrap();
    assert_eq!(nodes[1].height().unwrap(), 7);
}

#[test]
fn a_frozen_bitcoind_answers_only_after_it_is_thawed() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Bitcoind::start("bitcoind", folder.path()).unwrap();
    node.freeze().unwrap();
    let frozen_for = Duration::from_millis(400);
    let caller = node.caller();
    let asked = Instant::now();
    let call = thread::spawn(move || caller.call::<Value>("getblockcount", &[]).map(|_| asked.elapsed()));
    thread::sleep(frozen_for);
    assert!(!call.is_finished());
    node.thaw().unwrap();
    assert!(call.join().unwrap().unwrap() >= frozen_for);
}

#[test]
fn bitcoind_understands_the_wallets_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let node = Bitcoind::start("bitcoind", folder.path()).unwrap();
    let descriptor = HotWallet::new(7).unwrap().public_descriptor().to_owned();
    let info: Value = node.call("getdescriptorinfo", &[json!(descriptor)]).unwrap();
    assert_eq!(info["hasprivatekeys"], false);
    assert_eq!(info["multipath_expansion"].as_array().unwrap().len(), 2);
}

#[test]
fn the_miner_takes_turns_without_a_fork_and_includes_what_any_mempool_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes: Vec<Bitcoind> =
        (1..=2).map(|id| Bitcoind::start("bitcoind", &folder.path().join(id.to_string())).unwrap()).collect();
    let (first, rest) = nodes.split_at_mut(1);
    rest[0].peer_with(&mut first[0]).unwrap();
    let mut funds = Funds::new(10).unwrap();
    funds.mine(&nodes[0], 1).unwrap();
    wait_for_same_tip(&nodes).unwrap();

    let miner = Miner::start(&nodes, funds.script(), Duration::from_millis(50)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut orders = chain::Orders::default();
    for number in 1..=5 {
        let amount = Amount::from_sat(5_000);
        funds.fan_out(&nodes[0], &[(recipient(number), amount)]).unwrap();
        orders.add(recipient(number), &number.to_string(), amount).unwrap();
        let confirmed = || chain::judge(&chain::read_blocks(&nodes[1], 102).unwrap(), &orders, 1).confirmed.len();
        while confirmed() < usize::from(number) {
            assert!(Instant::now() < deadline, "payment {number} is in no block");
            thread::sleep(Duration::from_millis(10));
        }
    }
    drop(miner);
    wait_for_same_tip(&nodes).unwrap();
    let tips: Vec<Value> = nodes[0].call("getchaintips", &[]).unwrap();
    assert_eq!(tips.len(), 1, "forks: {tips:?}");
}

/// What is taken back is what was asked for, though two branches that were given up are longer than what is left then:
/// one begins where the chain is cut, the other one below.
#[test]
fn blocks_are_taken_back_past_branches_that_were_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let node = Bitcoind::start("bitcoind", folder.path()).unwrap();
    let mine = |blocks: u32, miner: u8| node.mine(blocks, &recipient(miner)).unwrap();
    mine(10, 1);
    let eighth = node.block_at(8).unwrap().block_hash();
    node.invalidate(eighth).unwrap();
    let low = mine(5, 2)[0]; // 8 to 12
    node.invalidate(low).unwrap();
    node.reconsider(eighth).unwrap();
    let base = mine(1, 1)[0];
    let high = mine(2, 3)[0]; // 12 and 13
    node.invalidate(high).unwrap();
    let chain = mine(3, 1)[0]; // 12 to 14
    node.reconsider(low).unwrap();
    node.reconsider(high).unwrap();
    assert_eq!((node.height().unwrap(), node.block_at(12).unwrap().block_hash()), (14, chain));

    let forbidden = node.caller().take_back(3).unwrap();
    assert_eq!((node.tip().unwrap(), node.height().unwrap()), (base, 11));
    assert_eq!(forbidden, [chain, high, low]);
    let tip = mine(4, 4)[3];
    for block in forbidden {
        node.reconsider(block).unwrap();
    }
    assert_eq!((node.tip().unwrap(), node.height().unwrap()), (tip, 15));
    assert!(node.caller().take_back(16).unwrap_err().to_string().contains("only 15 blocks"));
}
