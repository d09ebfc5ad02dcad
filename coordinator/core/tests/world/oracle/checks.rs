//! What the state must say after every entry.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::OutPoint;
use onespend_core::ids::PaymentKey;
use onespend_core::state::State;
use onespend_core::utxo::Claim;

use super::{Allowed, Oracle, Owner, position};
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
                .filter(|outpoint| self.is_told_of(outpoint, *wallet))
                .filter(|outpoint| !self.owners.contains_key(outpoint) && !self.held_back.contains_key(outpoint))
                .filter(|outpoint| !self.unseen.contains(outpoint) || state.utxo(outpoint).is_some())
                .collect();
            let differ: Vec<_> = free.symmetric_difference(&expected).map(|coin| self.told_of(coin, state)).collect();
            assert!(differ.is_empty(), "free coins of {id}: {differ:#?}");
        }
    }

    /// What this oracle and the state think of a coin.
    fn told_of(&self, coin: &OutPoint, state: &State) -> String {
        let (owner, held_back) = (self.owners.get(coin), self.held_back.contains_key(coin));
        let spend = |attempt: &&Allowed| attempt.inputs.contains(coin);
        let spenders: Vec<_> = self.attempts.iter().filter(spend).map(|a| (&a.key, a.number, a.end)).collect();
        format!("{coin}: owner {owner:?}, held back {held_back}, attempts {spenders:?}, state {:?}", state.utxo(coin))
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
                    // Where an end was undone, another payment may have signed for the coin since, or it is held back.
                    let taken = self.undone.contains(key)
                        && (self.held_back.contains_key(outpoint)
                            || matches!(self.owners.get(outpoint), Some(Owner::Payment(other)) if other != key));
                    if taken {
                        assert!(matches!(claim, Some(Claim::Exposed(_) | Claim::Quarantined)), "safety 6: {outpoint}");
                    } else {
                        assert_eq!(claim, Some(&Claim::Exposed(key.payment.clone())), "safety 5 and 6: {outpoint}");
                    }
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
