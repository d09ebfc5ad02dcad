//! Coins that a wallet without descriptors follows one by one: those that were named to it, and no others.

use bitcoin::OutPoint;
use onespend_core::command::RegisterOutpoints;

use super::{Oracle, position};
use crate::world::chain::Chain;
use crate::world::wallets::{SINGLE, fixtures};

impl Oracle {
    /// Only such a wallet follows single coins, as they are in the chain now, and each is named once.
    pub(super) fn follows(&mut self, command: &RegisterOutpoints, chain: &Chain) {
        assert_eq!(position(&command.wallet), SINGLE, "it has descriptors");
        assert_eq!(command.basis, chain.tip(), "they were looked up at another tip");
        let mut named = Vec::new();
        for output in &command.found {
            let coin = chain.coins.get(&output.outpoint).expect("a coin that is in the chain");
            assert_eq!((coin.wallet, coin.spent), (SINGLE, None), "safety 1: {}", output.outpoint);
            assert_eq!((coin.value_sat, &coin.script), (output.value_sat, &output.script));
            assert!(!named.contains(&output.outpoint), "{} comes twice", output.outpoint);
            named.push(output.outpoint);
        }
        self.followed.extend(named);
    }

    /// Whether the service has been told of a coin: of any that pays to descriptors, and of others by name.
    pub(super) fn is_told_of(&self, outpoint: &OutPoint, wallet: usize) -> bool {
        !fixtures()[wallet].follows_single_coins() || self.followed.contains(outpoint)
    }

    /// Those that are followed and unspent in the chain.
    pub fn unspent_singles(&self, chain: &Chain) -> Vec<OutPoint> {
        self.singles(chain, false)
    }

    /// How many of those that were followed are spent in the chain.
    pub fn spent_singles(&self, chain: &Chain) -> usize {
        self.singles(chain, true).len()
    }

    fn singles(&self, chain: &Chain, spent: bool) -> Vec<OutPoint> {
        let is_so = |outpoint: &OutPoint| chain.coins.get(outpoint).is_some_and(|coin| coin.spent.is_some() == spent);
        self.followed.iter().copied().filter(is_so).collect()
    }
}
