//! How attempts end, and whose coins are free then, as far as the chain says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, Txid};
use onespend_core::command::DeclareLost;
use onespend_core::ids::{AttemptNo, PaymentKey};

use super::{Allowed, End, Oracle, Owner, position};
use crate::world::chain::{Block, Chain};

impl Oracle {
    /// After a block: what is final, and so whose coins are free.
    pub fn connected(&mut self, chain: &Chain) {
        self.highest = self.highest.max(chain.height());
        self.broken_words(chain);
        self.end_all(chain);
    }

    /// safety 6: a coin is lost only to a transaction that conflicts with the one that made it, and is final; and only if
    /// a stranger made it.
    pub(super) fn declared_lost(&mut self, command: &DeclareLost, chain: &Chain) {
        let DeclareLost { wallet, outpoint, by, block, .. } = command;
        let found = chain.block_of(*by).expect("the transaction is in no block");
        assert_eq!(found.at, *block);
        assert!(chain.depth(*by) >= self.depths[&position(wallet)], "it is not final");
        assert!(!chain.mined.contains_key(&outpoint.txid), "the coin is there");
        assert!(!self.attempts.iter().any(|attempt| attempt.txid == outpoint.txid), "the coin is ours");
        let rival = found.transactions.iter().find(|known| known.compute_txid() == *by).unwrap();
        let maker = chain.waiting(outpoint.txid).unwrap();
        let spends = |coin: OutPoint| rival.input.iter().any(|input| input.previous_output == coin);
        assert!(maker.input.iter().any(|input| spends(input.previous_output)), "both may be in the chain");
        assert_eq!(self.lost.insert(*outpoint, *by), None, "{outpoint} was lost before");
        self.declared += 1;
        let waits = self.attempts.iter().filter(|a| a.end.is_none() && a.inputs.contains(outpoint));
        let keys: BTreeSet<PaymentKey> = waits.map(|attempt| attempt.key.clone()).collect();
        assert!(!keys.is_empty(), "nobody waits for {outpoint}");
        self.end_these(keys, chain);
    }

    fn end_all(&mut self, chain: &Chain) {
        while let Some((at, end)) = self.next_end(chain, |_| true) {
            self.end(at, end, chain);
        }
    }

    /// Ends what can be ended by now of these payments, and of those that spend what they would have made. Limits may have
    /// changed since the last block; to others that matters with the next one.
    fn end_these(&mut self, mut keys: BTreeSet<PaymentKey>, chain: &Chain) {
        while let Some((at, end)) = self.next_end(chain, |key| keys.contains(key)) {
            self.end(at, end, chain);
            keys.extend(self.heirs_of(&self.attempts[at].key));
        }
    }

    fn end(&mut self, at: usize, end: End, chain: &Chain) {
        self.attempts[at].end = Some(end);
        if end.is_death() {
            self.died += 1;
            self.release_inputs(at, chain);
        } else {
            self.settled += 1;
        }
    }

    /// Payments that spend what dead attempts of this one would have made.
    fn heirs_of(&self, key: &PaymentKey) -> Vec<PaymentKey> {
        let dead = self.attempts.iter().filter(|attempt| attempt.key == *key && !attempt.is_live());
        let dead: BTreeSet<Txid> = dead.map(|attempt| attempt.txid).collect();
        let made = self.owners.iter().filter(|(outpoint, _)| dead.contains(&outpoint.txid));
        let heir = |owner: &Owner| match owner {
            Owner::Payment(heir) => Some(heir.clone()),
            Owner::Reservation(_) => None,
        };
        made.filter_map(|(_, owner)| heir(owner)).collect()
    }

    /// An attempt that was given up, and is in the new block all the same, stops its wallet.
    fn broken_words(&mut self, chain: &Chain) {
        let in_tip = |attempt: &&Allowed| chain.depth(attempt.txid) == 1 && !attempt.is_live();
        let lives = |txid| self.attempts.iter().any(|attempt| attempt.txid == txid && attempt.is_live());
        let undead: Vec<&Allowed> = self.attempts.iter().filter(in_tip).filter(|one| !lives(one.txid)).collect();
        let mut newest: BTreeMap<Txid, &Allowed> = BTreeMap::new();
        // In the order of their grants: the last one stays.
        newest.extend(undead.into_iter().map(|attempt| (attempt.txid, attempt)));
        let broken: Vec<(PaymentKey, AttemptNo)> =
            newest.into_values().map(|attempt| (attempt.key.clone(), attempt.number)).collect();
        for (key, number) in broken {
            let wallet = position(&key.wallet);
            self.frozen.insert(wallet);
            self.broken.insert(wallet);
            self.revive(&key, number);
        }
    }

    /// Its end does not hold: it may confirm again, and has its coins again if nobody has signed for them since.
    fn revive(&mut self, key: &PaymentKey, number: AttemptNo) {
        self.undone.insert(key.clone());
        let attempt = self.attempts.iter_mut().find(|known| known.key == *key && known.number == number).unwrap();
        attempt.end = None;
        for outpoint in attempt.inputs.clone() {
            if let Some(Owner::Reservation(id)) = self.owners.get(&outpoint) {
                self.free(*id);
            }
            if !self.held_back.contains_key(&outpoint) {
                self.owners.entry(outpoint).or_insert_with(|| Owner::Payment(key.clone()));
            }
        }
    }

    /// Whether an end of the payment was undone, so that no word of its signer counts any more.
    pub fn is_undone(&self, key: &PaymentKey) -> bool {
        self.undone.contains(key)
    }

    /// A coin that nobody has any more is that of an attempt whose end was undone, if there is one that spends it.
    pub(super) fn inherit(&mut self, outpoint: OutPoint) {
        let undone = self.attempts.iter().filter(|attempt| attempt.is_live() && self.undone.contains(&attempt.key));
        let heirs = undone.filter(|attempt| attempt.inputs.contains(&outpoint));
        if let Some(heir) = heirs.map(|attempt| &attempt.key).min() {
            self.owners.insert(outpoint, Owner::Payment(heir.clone()));
        }
    }

    /// One attempt of some payments that can be ended by now. The death of one may be that of another that spends its change.
    fn next_end(&self, chain: &Chain, concerns: impl Fn(&PaymentKey) -> bool) -> Option<(usize, End)> {
        let running = |attempt: &Allowed| attempt.end.is_none() && concerns(&attempt.key);
        let waiting = self.attempts.iter().enumerate().filter(|(_, attempt)| running(attempt));
        waiting.into_iter().find_map(|(at, attempt)| Some((at, self.end_by_now(attempt, chain)?)))
    }

    fn end_by_now(&self, attempt: &Allowed, chain: &Chain) -> Option<End> {
        let depth = self.depths[&position(&attempt.key.wallet)];
        let spender = |outpoint: &OutPoint| match chain.coins.get(outpoint) {
            Some(coin) => coin.spent,
            None => self.lost.get(outpoint).copied(),
        };
        let spenders = attempt.inputs.iter().filter_map(spender);
        // Of two in one block the first input's.
        let foreign = spenders.filter(|txid| *txid != attempt.txid).min_by_key(|txid| Reverse(chain.depth(*txid)));
        if let Some(by) = foreign.filter(|txid| chain.depth(*txid) >= depth) {
            return Some(End::Dead { by });
        }
        if chain.depth(attempt.txid) >= depth {
            return Some(End::Settled { height: chain.mined[&attempt.txid] });
        }
        let never = attempt.inputs.iter().filter(|outpoint| !chain.coins.contains_key(outpoint)).find_map(|input| {
            let parents = self.attempts.iter().filter(|parent| parent.txid == input.txid);
            let parent = parents.max_by_key(|parent| parent.is_live())?;
            match parent.end {
                // Final for the parent's wallet need not be final for this one. A block that went out of sight is.
                Some(End::Dead { by }) if chain.depth(by) >= depth => Some(by),
                _ => None,
            }
        });
        never.map(|by| End::Dead { by })
    }

    /// The coins of an attempt that died, but for those that others still need.
    pub(super) fn release_inputs(&mut self, at: usize, chain: &Chain) {
        for outpoint in self.attempts[at].inputs.clone() {
            let key = &self.attempts[at].key;
            let unspent = match chain.coins.get(&outpoint) {
                Some(coin) => coin.spent.is_none(),
                None => !self.lost.contains_key(&outpoint),
            };
            let own = self.owners.get(&outpoint) == Some(&Owner::Payment(key.clone()));
            let mut spenders = self.attempts.iter().filter(|a| a.key == *key && a.inputs.contains(&outpoint));
            let is_needed = spenders.any(Allowed::is_live);
            if own && unspent && !is_needed {
                self.owners.remove(&outpoint);
                self.inherit(outpoint);
            }
        }
    }

    /// After a block was taken away. `registered` are the wallets that are followed.
    pub fn disconnected(&mut self, block: &Block, coins_before: &Chain, registered: &BTreeSet<usize>) {
        let gone: BTreeSet<Txid> = block.transactions.iter().map(bitcoin::Transaction::compute_txid).collect();
        let lost = self.lost.len();
        self.lost.retain(|_, by| !gone.contains(by));
        self.regained += lost - self.lost.len();
        let (mut hit, mut revived) = (BTreeSet::new(), Vec::new());
        for attempt in &self.attempts {
            let rests_here = match attempt.end {
                Some(End::Settled { height }) => height == block.at.height.0 && gone.contains(&attempt.txid),
                Some(End::Dead { by }) => gone.contains(&by),
                Some(End::Aborted) | None => false,
            };
            if rests_here {
                hit.insert(position(&attempt.key.wallet));
                revived.push((attempt.key.clone(), attempt.number));
            }
        }
        for (key, number) in revived {
            self.revive(&key, number);
        }
        let depth = self.highest - block.at.height.0 + 1;
        hit.extend(self.depths.iter().filter(|(_, final_depth)| depth >= **final_depth).map(|(wallet, _)| *wallet));
        self.broken.extend(hit.iter().copied());
        self.frozen.extend(hit);
        for (outpoint, coin) in &coins_before.coins {
            let is_ours = registered.contains(&coin.wallet) && self.is_told_of(outpoint, coin.wallet);
            if !is_ours || coin.spent.is_none_or(|txid| !gone.contains(&txid)) {
                continue;
            }
            let reservation = match self.owners.get(outpoint) {
                Some(Owner::Reservation(id)) => Some(*id),
                _ => None,
            };
            let unclaimed = match self.owners.get(outpoint) {
                None | Some(Owner::Reservation(_)) => true,
                Some(Owner::Payment(key)) => {
                    let spends = |a: &&Allowed| a.key == *key && a.inputs.contains(outpoint);
                    !self.attempts.iter().filter(spends).any(Allowed::is_live)
                }
            };
            if unclaimed && !self.held_back.contains_key(outpoint) {
                if let Some(id) = reservation {
                    self.free(id);
                }
                self.owners.remove(outpoint);
                self.held_back.insert(*outpoint, coin.wallet);
            }
        }
    }
}
