//! Fee estimates.

use super::contract;
use crate::driver::Driver;
use crate::purse::nobody;

contract! {
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
