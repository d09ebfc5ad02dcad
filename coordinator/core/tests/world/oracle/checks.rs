//! What the state must say after every entry.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::OutPoint;
use onespend_core::ids::PaymentKey;
use onespend_core::state::State;
use onespend_core::utxo::Claim;

use super::{Oracle, position};
use crate::world::chain::Chain;
use crate::world::wallets::fixtures;

impl Oracle {
    /// What must hold after every entry.
    pub fn check(&self, state: &State, chain: &Chain, registered: &BTreeSet<usize>) {
        assert_eq!(state.tip().unwrap(), chain.tip());
        self.check_attempts(state, chain);
        for wallet in registered {
            let id = &fixtures()[*wallet].id;
            assert_eq!(
                state.wallet(id).unwrap().frozen.is_some(),
                self.frozen.contains(wallet),
                "{id} frozen, safety 17"
            );
            let free: BTreeSet<OutPoint> = state.free_coins(id).map(|(_, outpoint)| outpoint).collect();
            let expected: BTreeSet<OutPoint> = chain
                .coins
                .iter()
                .filter(|(_, coin)| coin.wallet == *wallet && coin.spent.is_none())
                .map(|(outpoint, _)| *outpoint)
                .filter(|outpoint| !self.owners.contains_key(outpoint) && !self.held_back.contains_key(outpoint))
                .filter(|outpoint| !self.unseen.contains(outpoint) || state.utxo(outpoint).is_some())
                .collect();
            assert_eq!(free, expected, "free coins of {id}");
        }
    }

    fn check_attempts(&self, state: &State, chain: &Chain) {
        let mut confirmed: BTreeMap<&PaymentKey, u32> = BTreeMap::new();
        for attempt in &self.attempts {
            let (key, number) = (&attempt.key, attempt.number);
            let known = state.payment(key).unwrap().attempt(number).unwrap();
            assert_eq!(known.transaction.compute_txid(), attempt.txid, "safety 11: attempt {number} of {key}");
            assert_eq!(known.end.is_none(), attempt.end.is_none(), "the end of attempt {number} of {key}");
            assert_eq!(known.is_live(), attempt.is_live(), "attempt {number} of {key}");
            if attempt.end.is_none() {
                for outpoint in &attempt.inputs {
                    let claim = state.utxo(outpoint).map(|utxo| &utxo.claim);
                    assert_eq!(claim, Some(&Claim::Exposed(key.payment.clone())), "safety 5 and 6: {outpoint}");
                }
            }
            if chain.depth(attempt.txid) > 0 {
                *confirmed.entry(key).or_default() += 1;
            }
        }
        let twice = confirmed.iter().find(|(key, times)| **times > 1 && !self.broken.contains(&position(&key.wallet)));
        assert_eq!(twice, None, "a payment was paid twice");
    }
}
