//! Unspent outputs, scans and spenders.

use bitcoin::{Amount, OutPoint, TxOut};
use onespend_adapters::chain::{ChainTxOut, ScanDescriptor};

use super::contract;
use crate::driver::Driver;
use crate::purse::{Purse, coin_of, coinbase_of, nobody, nowhere};

/// BIP32 test vector 1, chain m/0'.
const XPUB: &str =
    "tpubD8eQVK4Kdxg3gHrF62jGP7dKVCoYiEB8dFSpuTawkL5YxTus5j5pf83vaKnii4bc6v2NVEy81P2gYrJczYne3QNNwMTS53p5uzDyHvnw2jm";

fn one(descriptor: String) -> ScanDescriptor {
    ScanDescriptor { descriptor, range: None }
}

contract! {
    fn an_unspent_output_is_told_until_it_is_spent(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let out = |outpoint, mempool| driver.chain().tx_out(outpoint, mempool).unwrap();
        assert_eq!(
            out(coin.outpoint, true),
            Some(ChainTxOut {
                value: coin.value,
                script: purse.script(),
                confirmations: 101,
                coinbase: true,
                best_block: driver.chain().probe().unwrap().tip.hash,
            })
        );
        assert_eq!(out(nowhere(), true), None);
        assert_eq!(out(OutPoint { vout: 9, ..coin.outpoint }, true), None);

        let tx = purse.send(coin, 1_000);
        let change = coin_of(&tx, 0);
        driver.chain().broadcast(&tx).unwrap();
        assert_eq!(out(coin.outpoint, true), None);
        assert!(out(coin.outpoint, false).is_some());
        assert_eq!(out(change.outpoint, false), None);
        let pending = out(change.outpoint, true).unwrap();
        assert_eq!((pending.confirmations, pending.coinbase), (0, false));

        driver.mine(1, &nobody());
        assert_eq!(out(coin.outpoint, false), None);
        assert_eq!(out(change.outpoint, false).unwrap().confirmations, 1);
    }

    fn a_scan_finds_exactly_the_confirmed_unspent_outputs(driver: &dyn Driver) {
        let (mine, other) = (Purse::new(1), Purse::new(2));
        let coin = mine.fund(driver);
        let second = driver.mine(1, &mine.script())[0];
        let change = Amount::from_sat(4_000_000_000);
        let tx = mine.pay(&[coin], vec![
            TxOut { value: Amount::from_sat(12_345_678), script_pubkey: other.script() },
            TxOut { value: change, script_pubkey: mine.script() },
        ]);
        driver.mine_with(std::slice::from_ref(&tx), &nobody());
        // In the mempool only, so it does not count.
        let spend_again = mine.send(coin_of(&tx, 1), 1_000);
        driver.chain().broadcast(&spend_again).unwrap();

        let found = driver.chain().scan(&[one(mine.descriptor())]).unwrap();
        let tip = driver.chain().probe().unwrap().tip;
        assert_eq!((found.height, found.hash), (tip.height, tip.hash));
        let mut expected = vec![
            (coinbase_of(driver, second).outpoint, 102, true),
            (OutPoint { txid: tx.compute_txid(), vout: 1 }, 103, false),
        ];
        expected.sort_unstable();
        let told: Vec<_> =
            found.utxos.iter().map(|u| (u.outpoint, u.height, u.coinbase)).collect();
        assert_eq!(told, expected);
        assert!(found.utxos.iter().all(|u| u.script == mine.script()));
        let value: Amount = found.utxos.iter().map(|u| u.value).sum();
        assert_eq!(value, change + Amount::from_int_btc(50));

        let both =
            driver.chain().scan(&[one(mine.descriptor()), one(other.descriptor())]).unwrap();
        assert_eq!(both.utxos.len(), 3);
        assert!(both.utxos.iter().any(|u| u.value == Amount::from_sat(12_345_678)));
    }

    fn a_scan_covers_a_range_with_both_ends(driver: &dyn Driver) {
        let descriptor = format!("wpkh({XPUB}/0/*)");
        let parsed: miniscript::Descriptor<miniscript::DescriptorPublicKey> =
            descriptor.parse().unwrap();
        for index in [3, 5, 8] {
            let script = parsed.at_derivation_index(index).unwrap().script_pubkey();
            driver.mine(1, &script);
        }
        let count = |range| {
            let wanted = ScanDescriptor { descriptor: descriptor.clone(), range: Some(range) };
            driver.chain().scan(&[wanted]).unwrap().utxos.len()
        };
        assert_eq!((count((3, 8)), count((3, 7)), count((4, 4)), count((8, 9))), (3, 2, 0, 1));
    }

    fn a_bad_descriptor_is_refused(driver: &dyn Driver) {
        let error = driver.chain().scan(&[one("wpkh(nonsense)".to_owned())]).unwrap_err();
        assert!(error.is_not_found() && !error.is_unknown(), "{error}");
        assert!(error.to_string().contains("scantxoutset"), "{error}");
    }

    fn spenders_are_told_in_the_order_asked(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let half = Amount::from_sat(2_000_000_000);
        let split = purse.pay(&[coin], vec![
            TxOut { value: half, script_pubkey: purse.script() },
            TxOut { value: half, script_pubkey: purse.script() },
        ]);
        driver.mine_with(std::slice::from_ref(&split), &nobody());
        let pending = purse.send(coin_of(&split, 1), 1_000);
        driver.chain().broadcast(&pending).unwrap();

        let (confirmed, unspent) = (coin.outpoint, coin_of(&split, 0).outpoint);
        let in_mempool = coin_of(&split, 1).outpoint;
        let asked = [unspent, confirmed, in_mempool, nowhere(), confirmed];
        let (by_split, by_pending) = (Some(split.compute_txid()), Some(pending.compute_txid()));
        assert_eq!(
            driver.chain().spending_prevout(&asked).unwrap(),
            [None, by_split, by_pending, None, by_split]
        );
        assert_eq!(driver.chain().spending_prevout(&[]).unwrap(), []);
    }
}
