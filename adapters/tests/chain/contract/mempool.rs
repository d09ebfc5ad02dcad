//! Mempool entries and fee estimates.

use bitcoin::Amount;

use super::contract;
use crate::driver::Driver;
use crate::purse::{Purse, coin_of, nobody};

contract! {
    fn an_entry_tells_fee_size_and_relatives(driver: &dyn Driver) {
        let purse = Purse::new(1);
        let coin = purse.fund(driver);
        let parent = purse.send(coin, 1_000);
        let child = purse.send(coin_of(&parent, 0), 3_000);
        driver.chain().broadcast(&parent).unwrap();
        driver.chain().broadcast(&child).unwrap();
        let entry = |tx: &bitcoin::Transaction| {
            driver.chain().mempool_entry(tx.compute_txid()).unwrap().unwrap()
        };
        let size = |tx: &bitcoin::Transaction| u64::try_from(tx.vsize()).unwrap();

        let told = entry(&parent);
        assert_eq!((told.vsize, told.fee), (size(&parent), Amount::from_sat(1_000)));
        assert_eq!(told.depends, []);
        assert_eq!(told.spent_by, [child.compute_txid()]);
        assert_eq!(told.descendant_count, 2);
        assert_eq!(told.descendant_vsize, size(&parent) + size(&child));
        assert_eq!(told.descendant_fees, Amount::from_sat(4_000));
        assert!(told.time_s > 1_700_000_000);

        let told = entry(&child);
        assert_eq!(told.depends, [parent.compute_txid()]);
        assert_eq!((told.descendant_count, told.descendant_fees), (1, Amount::from_sat(3_000)));

        driver.mine(1, &nobody());
        assert_eq!(driver.chain().mempool_entry(parent.compute_txid()).unwrap(), None);
    }

    fn there_is_no_fee_estimate_on_regtest(driver: &dyn Driver) {
        driver.mine(5, &nobody());
        for target in [1, 6, 1_008] {
            assert_eq!(driver.chain().estimate_fee(target).unwrap(), None);
        }
        for target in [0, 1_009] {
            let error = driver.chain().estimate_fee(target).unwrap_err();
            assert!(error.to_string().contains("estimatesmartfee"), "{error}");
            assert!(!error.is_unknown(), "{error}");
        }
    }
}
