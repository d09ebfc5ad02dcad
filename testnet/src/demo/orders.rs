//! What is to be paid: every recipient once, amounts and kinds of addresses from the seed.

use anyhow::Result;
use bitcoin::hashes::{Hash, hash160, sha256};
use bitcoin::{Address, Amount, Network, PubkeyHash, ScriptBuf, WPubkeyHash, WScriptHash};

use crate::oracle::chain::Orders;
use crate::seed::Seeded;

/// Above every dust limit, below what one coin can pay.
const LEAST_SAT: u64 = 10_000;
const MOST_SAT: u64 = 2_000_000;

/// One payment to one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The caller's id of it.
    pub payment_id: String,
    /// Who is paid.
    pub script: ScriptBuf,
    /// The same, as callers write it.
    pub address: String,
    /// How much.
    pub amount: Amount,
}

/// So many orders.
///
/// # Errors
/// A script came out twice, which no seed has been seen to do.
pub fn make(count: usize, seed: u64) -> Result<Vec<Order>> {
    let mut seeded = Seeded::new(seed);
    (1..=count)
        .map(|number| {
            let script = script(&mut seeded);
            let address = Address::from_script(&script, Network::Regtest)?.to_string();
            let amount = Amount::from_sat(seeded.between(LEAST_SAT, MOST_SAT));
            Ok(Order { payment_id: format!("demo-{seed}-{number:04}"), script, address, amount })
        })
        .collect()
}

/// For the judge of the chain.
///
/// # Errors
/// A script is there twice.
pub fn for_judge(orders: &[Order]) -> Result<Orders> {
    let mut expected = Orders::default();
    for order in orders {
        expected.add(order.script.clone(), &order.payment_id, order.amount)?;
    }
    Ok(expected)
}

fn script(seeded: &mut Seeded) -> ScriptBuf {
    let bytes: [u8; 32] = seeded.bytes();
    match seeded.between(0, 3) {
        0 => ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(&bytes))),
        1 => ScriptBuf::new_p2wsh(&WScriptHash::from_raw_hash(sha256::Hash::hash(&bytes))),
        _ => ScriptBuf::new_p2pkh(&PubkeyHash::from_raw_hash(hash160::Hash::hash(&bytes))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn orders_follow_from_the_seed_and_each_recipient_is_paid_once() {
        let orders = make(300, 7).unwrap();
        assert_eq!(orders, make(300, 7).unwrap());
        assert_ne!(orders[0].script, make(1, 8).unwrap()[0].script);
        assert_eq!(for_judge(&orders).unwrap().payment_ids().len(), 300);
        let lengths: BTreeSet<usize> = orders.iter().map(|order| order.script.len()).collect();
        assert_eq!(lengths.len(), 3, "three kinds of addresses");
        assert!(orders.iter().all(|order| (LEAST_SAT..MOST_SAT).contains(&order.amount.to_sat())));
    }
}
