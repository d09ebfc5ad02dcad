//! How attempts end, and whose coins are free then, as far as the chain says.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use bitcoin::{OutPoint, Txid};
use onespend_core::ids::PaymentKey;

use super::{Allowed, End, Oracle, Owner, position};
use crate::world::chain::{Block, Chain};

impl Oracle {
    /// After a block: what is final, and so whose coins are free.
    pub fn connected(&mut self, chain: &Chain) {
        self.highest = self.highest.max(chain.height());
        while let Some((at, end)) = self.next_end(chain) {
            self.attempts[at].end = Some(end);
            if end.is_death() {
                self.died += 1;
                self.release_inputs(at, chain);
            } else {
                self.settled += 1;
            }
        }
    }

    /// One attempt that can be ended by now. The death of one may be that of another that spends its change.
    fn next_end(&self, chain: &Chain) -> Option<(usize, End)> {
        let waiting = self.attempts.iter().enumerate().filter(|(_, attempt)| attempt.end.is_none());
        waiting.into_iter().find_map(|(at, attempt)| {
            let depth = self.depths[&position(&attempt.key.wallet)];
            let spenders = attempt.inputs.iter().filter_map(|outpoint| chain.coins.get(outpoint)?.spent);
            // Of two in one block the first input's.
            let foreign = spenders.filter(|txid| *txid != attempt.txid).min_by_key(|txid| Reverse(chain.depth(*txid)));
            if let Some(by) = foreign.filter(|txid| chain.depth(*txid) >= depth) {
                return Some((at, End::Dead { by }));
            }
            if chain.depth(attempt.txid) >= depth {
                return Some((at, End::Settled { height: chain.mined[&attempt.txid] }));
            }
            let never =
                attempt.inputs.iter().filter(|outpoint| !chain.coins.contains_key(outpoint)).find_map(|input| {
                    let parents = self.attempts.iter().filter(|parent| parent.txid == input.txid);
                    let parent = parents.max_by_key(|parent| parent.is_live())?;
                    match parent.end {
                        Some(End::Dead { by }) => Some(by),
                        _ => None,
                    }
                });
            never.map(|by| (at, End::Dead { by }))
        })
    }

    /// The coins of an attempt that died, but for those that others still need.
    pub(super) fn release_inputs(&mut self, at: usize, chain: &Chain) {
        for outpoint in self.attempts[at].inputs.clone() {
            let key = &self.attempts[at].key;
            let unspent = chain.coins.get(&outpoint).is_none_or(|coin| coin.spent.is_none());
            if unspent && !self.is_needed(key, outpoint) {
                self.owners.remove(&outpoint);
            }
        }
    }

    fn is_needed(&self, key: &PaymentKey, outpoint: OutPoint) -> bool {
        let live = |attempt: &&Allowed| attempt.key == *key && attempt.is_live();
        self.attempts.iter().filter(live).any(|attempt| attempt.inputs.contains(&outpoint))
    }

    /// After a block was taken away. `registered` are the wallets that are followed.
    pub fn disconnected(&mut self, block: &Block, coins_before: &Chain, registered: &BTreeSet<usize>) {
        let gone: BTreeSet<Txid> = block.transactions.iter().map(bitcoin::Transaction::compute_txid).collect();
        let mut hit = BTreeSet::new();
        for attempt in &self.attempts {
            let rests_here = match attempt.end {
                Some(End::Settled { height }) => height == block.at.height.0 && gone.contains(&attempt.txid),
                Some(End::Dead { by }) => gone.contains(&by),
                Some(End::Aborted) | None => false,
            };
            if rests_here {
                hit.insert(position(&attempt.key.wallet));
            }
        }
        let depth = self.highest - block.at.height.0 + 1;
        hit.extend(self.depths.iter().filter(|(_, final_depth)| depth >= **final_depth).map(|(wallet, _)| *wallet));
        self.broken.extend(hit.iter().copied());
        self.frozen.extend(hit);
        for (outpoint, coin) in &coins_before.coins {
            let Some(by) = coin.spent.filter(|txid| gone.contains(txid) && registered.contains(&coin.wallet)) else {
                continue;
            };
            let unclaimed = match self.owners.get(outpoint) {
                None => true,
                Some(Owner::Reservation(_)) => false,
                Some(Owner::Payment(key)) => self.attempts.iter().filter(|a| a.key == *key).all(|attempt| {
                    !attempt.inputs.contains(outpoint)
                        || matches!(attempt.end, Some(End::Dead { by: killer }) if killer != by)
                        || attempt.end == Some(End::Aborted)
                }),
            };
            if unclaimed {
                self.owners.remove(outpoint);
                self.held_back.insert(*outpoint, coin.wallet);
            }
        }
    }
}
