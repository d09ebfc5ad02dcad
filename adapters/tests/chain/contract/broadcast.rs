//! What becomes of a broadcast.

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, ScriptBuf, TxOut};
use onespend_adapters::chain::{BroadcastOutcome, Conflict};

use super::contract;
use crate::driver::Driver;
use crate::purse::{Coin, Purse, coin_of, coinbase_of, nobody, nowhere, unsigned};

fn broadcast(driver: &dyn Driver, tx: &bitcoin::Transaction) -> BroadcastOutcome {
    driver.chain().broadcast(tx).unwrap()
}

/// The code and the reason of a transaction that must be refused.
fn refusal(driver: &dyn Driver, tx: &bitcoin::Transaction) -> (i32, String) {
    let outcome = broadcast(driver, tx);
    let BroadcastOutcome::Rejected { code, reason } = outcome else { panic!("{outcome:?}") };
    assert!(!driver.mempool().contains(&tx.compute_txid()));
    (code, reason)
}

/// Refused by the mempool: its reason, and perhaps particulars behind a comma.
fn assert_refused(driver: &dyn Driver, tx: &bitcoin::Transaction, expected: &str) {
    let (code, told) = refusal(driver, tx);
    assert_eq!((code, told.split(", ").next()), (-26, Some(expected)), "{told}");
}

contract! {
    fn a_transaction_is_accepted_once_then_known_then_confirmed(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let tx = purse.send(coin, 1_000);
        assert_eq!(broadcast(driver, &tx), BroadcastOutcome::Accepted);
        assert_eq!(broadcast(driver, &tx), BroadcastOutcome::AlreadyInMempool);
        // Confirmed with an unspent output: -27.
        driver.mine(1, &nobody());
        assert_eq!(broadcast(driver, &tx), BroadcastOutcome::AlreadyConfirmed);
        // Confirmed and all outputs spent: -25, like a lost conflict.
        let child = purse.send(coin_of(&tx, 0), 1_000);
        assert_eq!(broadcast(driver, &child), BroadcastOutcome::Accepted);
        driver.mine(1, &nobody());
        assert_eq!(broadcast(driver, &tx), BroadcastOutcome::AlreadyConfirmed);
    }

    fn a_transaction_that_lost_its_input_names_the_winner(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let first = purse.fund(driver);
        let second = purse.fund(driver);
        let winner = purse.send(first, 1_000);
        driver.mine_with(std::slice::from_ref(&winner), &nobody());
        let value = Amount::from_sat(9_000_000_000);
        let loser =
            purse.pay(&[second, first], vec![TxOut { value, script_pubkey: purse.script() }]);
        let conflict = Conflict { outpoint: first.outpoint, spender: winner.compute_txid() };
        assert_eq!(
            broadcast(driver, &loser),
            BroadcastOutcome::InputsMissingOrSpent { conflicts: vec![conflict] }
        );
    }

    fn a_transaction_with_an_unknown_input_names_nobody(driver: &dyn Driver) {
        let coin = Coin { outpoint: nowhere(), value: Amount::from_sat(50_000) };
        let tx = Purse::new(1).send(coin, 1_000);
        assert_eq!(
            broadcast(driver, &tx),
            BroadcastOutcome::InputsMissingOrSpent { conflicts: vec![] }
        );
    }

    fn a_reorg_makes_a_lost_input_spendable_again(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let (winner, loser) = (purse.send(coin, 1_000), purse.send(coin, 50_000));
        let block = driver.mine_with(std::slice::from_ref(&winner), &nobody());
        assert!(matches!(
            broadcast(driver, &loser),
            BroadcastOutcome::InputsMissingOrSpent { .. }
        ));
        // The winner is in the mempool again, and is replaced.
        driver.invalidate(block);
        assert_eq!(broadcast(driver, &loser), BroadcastOutcome::Accepted);
        assert!(!driver.mempool().contains(&winner.compute_txid()));
    }

    fn a_replacement_must_pay_for_itself_and_the_replaced(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let first = purse.send(coin, 1_000);
        assert_eq!(broadcast(driver, &first), BroadcastOutcome::Accepted);
        // 110 vbytes at 0.1 sat/vB: 11 sat more are needed.
        assert_refused(driver, &purse.send(coin, 999), "insufficient fee");
        assert_refused(driver, &purse.send(coin, 1_010), "insufficient fee");
        assert!(driver.mempool().contains(&first.compute_txid()));

        let better = purse.send(coin, 1_011);
        assert_eq!(broadcast(driver, &better), BroadcastOutcome::Accepted);
        assert!(!driver.mempool().contains(&first.compute_txid()));
        let spenders = driver.chain().spending_prevout(&[coin.outpoint]).unwrap();
        assert_eq!(spenders, [Some(better.compute_txid())]);
    }

    fn a_replacement_must_pay_for_the_children_too(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let parent = purse.send(coin, 1_000);
        let child = purse.send(coin_of(&parent, 0), 5_000);
        assert_eq!(broadcast(driver, &parent), BroadcastOutcome::Accepted);
        assert_eq!(broadcast(driver, &child), BroadcastOutcome::Accepted);
        assert_refused(driver, &purse.send(coin, 5_900), "insufficient fee");
        assert_eq!(broadcast(driver, &purse.send(coin, 6_100)), BroadcastOutcome::Accepted);
        assert!(!driver.mempool().contains(&child.compute_txid()));
    }

    fn policy_refuses_dust_and_low_fees(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let pay = |sat, rest| {
            purse.pay(&[coin], vec![
                TxOut { value: Amount::from_sat(sat), script_pubkey: nobody() },
                TxOut { value: coin.value - Amount::from_sat(rest), script_pubkey: purse.script() },
            ])
        };
        // A P2WPKH output is dust below 294 sat.
        assert_refused(driver, &pay(293, 10_000), "dust");
        assert_refused(driver, &purse.send(coin, 10), "min relay fee not met");
        assert_eq!(broadcast(driver, &purse.send(coin, 11)), BroadcastOutcome::Accepted);
        // Replaces it.
        assert_eq!(broadcast(driver, &pay(294, 10_000)), BroadcastOutcome::Accepted);
    }

    fn a_coinbase_matures_in_its_hundredth_block(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let block = driver.mine(1, &purse.script())[0];
        driver.mine(98, &nobody());
        let coin = coinbase_of(driver, block);
        let tx = purse.send(coin, 1_000);
        assert_refused(driver, &tx, "bad-txns-premature-spend-of-coinbase");
        driver.mine(1, &nobody());
        assert_eq!(broadcast(driver, &tx), BroadcastOutcome::Accepted);
    }

    fn a_transaction_that_is_not_final_is_refused(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let mut tx = purse.send(coin, 1_000);
        let locked_until = |height, tx: &mut bitcoin::Transaction| {
            tx.lock_time = LockTime::from_height(height).unwrap();
            purse.sign(tx, &[coin]);
        };
        // The next block has height 102; a lock of 101 is open in it.
        locked_until(102, &mut tx);
        assert_refused(driver, &tx, "non-final");
        locked_until(101, &mut tx);
        assert_eq!(broadcast(driver, &tx), BroadcastOutcome::Accepted);
    }

    fn a_lock_time_is_measured_by_the_median_of_eleven_blocks(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let tip = driver.chain().probe().unwrap().tip.height;
        let time = |height| {
            let hash = driver.chain().block_hash_at(height).unwrap().unwrap();
            u32::try_from(driver.chain().header(hash).unwrap().time_s).unwrap()
        };
        let mut times: Vec<u32> = (tip - 10..=tip).map(time).collect();
        times.sort_unstable();
        let mut tx = purse.send(coin, 1_000);
        let locked_until = |time, tx: &mut bitcoin::Transaction| {
            tx.lock_time = LockTime::from_time(time).unwrap();
            purse.sign(tx, &[coin]);
        };
        locked_until(times[5], &mut tx);
        assert_refused(driver, &tx, "non-final");
        locked_until(times[5] - 1, &mut tx);
        assert_eq!(broadcast(driver, &tx), BroadcastOutcome::Accepted);
    }

    fn a_cluster_holds_sixty_four_transactions(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let mut coin = purse.fund(driver);
        for _ in 0..64 {
            let tx = purse.send(coin, 1_000);
            assert_eq!(broadcast(driver, &tx), BroadcastOutcome::Accepted);
            coin = coin_of(&tx, 0);
        }
        assert_refused(driver, &purse.send(coin, 1_000), "too-large-cluster");
        driver.mine(1, &nobody());
        assert_eq!(broadcast(driver, &purse.send(coin, 1_000)), BroadcastOutcome::Accepted);
    }

    fn a_replacement_may_not_spend_what_it_replaces(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let (first, second) = (purse.fund(driver), purse.fund(driver));
        let parent = purse.send(first, 1_000);
        broadcast(driver, &parent);
        let (change, value) = (coin_of(&parent, 0), Amount::from_int_btc(1));
        // Spends the parent's input and its output at once.
        let rest = first.value + second.value + change.value - value - Amount::from_sat(9_000);
        let tx = purse.pay(&[first, second, change], vec![
            TxOut { value, script_pubkey: purse.script() },
            TxOut { value: rest, script_pubkey: purse.script() },
        ]);
        assert_refused(driver, &tx, "bad-txns-spends-conflicting-tx");
    }

    fn garbage_is_refused_with_its_reason(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let output = |value| vec![TxOut { value, script_pubkey: purse.script() }];

        let (code, told) = refusal(driver, &unsigned(&[], output(coin.value)));
        assert_eq!(code, -22);
        assert!(told.starts_with("TX decode failed"), "{told}");

        assert_refused(driver, &purse.pay(&[coin], vec![]), "bad-txns-vout-empty");
        let twice = purse.pay(&[coin, coin], output(coin.value));
        assert_refused(driver, &twice, "bad-txns-inputs-duplicate");
        let more = purse.pay(&[coin], output(coin.value + Amount::from_sat(1)));
        assert_refused(driver, &more, "bad-txns-in-belowout");
        let odd = TxOut { value: coin.value / 2, script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
        assert_refused(driver, &purse.pay(&[coin], vec![odd]), "scriptpubkey");
    }

    fn the_nodes_own_ceilings_are_refusals(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        // Above 0.1 BTC/kvB, the default of -maxfeerate.
        let (code, told) = refusal(driver, &purse.send(coin, 2_000_000));
        assert_eq!(code, -25);
        assert!(told.starts_with("Fee exceeds maximum"), "{told}");

        let burnt = TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::new_op_return([1]) };
        let rest = TxOut { value: coin.value - Amount::from_sat(1_000), script_pubkey: nobody() };
        let outcome = broadcast(driver, &purse.pay(&[coin], vec![burnt, rest]));
        let BroadcastOutcome::Rejected { code: -25, reason } = outcome else { panic!("{outcome:?}") };
        assert!(reason.starts_with("Unspendable output exceeds"), "{reason}");
    }
}
