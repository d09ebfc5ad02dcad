//! The active chain as its only miner leaves it, and when each height was reached: no block was anywhere before its miner
//! was asked for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bitcoin::consensus::encode;
use bitcoin::{Block, BlockHash};
use serde_json::json;

use crate::bitcoind::Caller;

/// What is known of the chain from one height on.
#[derive(Debug)]
pub struct Chronicle {
    first_height: u32,
    blocks: Vec<Block>,
    /// The highest that any chain has been.
    highest: u32,
    /// A moment before which no chain had this height. Heights before the first of them were there from the beginning.
    reached: BTreeMap<u32, Instant>,
    /// Since when blocks may have been mined that nobody has counted.
    since: Option<Instant>,
}

impl Chronicle {
    /// Begins with a chain of this height.
    pub fn new(first_height: u32, tip: u32) -> Self {
        Self { first_height, blocks: Vec::new(), highest: tip, reached: BTreeMap::new(), since: None }
    }

    /// Somebody is about to be asked for blocks.
    pub fn expect(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// They were made, and the chain has this height. If it took as long as `doubtful`, the request may have been sent a
    /// second time, and another block may come of it.
    pub fn made(&mut self, height: u32, doubtful: Duration) {
        let since = *self.since.get_or_insert_with(Instant::now);
        for one in self.highest + 1..=height {
            self.reached.insert(one, since);
        }
        self.highest = self.highest.max(height);
        if since.elapsed() < doubtful {
            self.since = None;
        }
    }

    /// The highest that any chain has been.
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// Reads what has changed from a bitcoind whose tip has this height.
    ///
    /// # Errors
    /// It does not answer.
    pub fn follow(&mut self, tip: u32, bitcoind: &Caller) -> Result<()> {
        let mut fresh = Vec::new();
        let mut kept = 0;
        for height in (self.first_height..=tip).rev() {
            let place = usize::try_from(height - self.first_height)?;
            let hash: BlockHash = bitcoind.call("getblockhash", &[json!(height)])?;
            if self.blocks.get(place).is_some_and(|known| known.block_hash() == hash) {
                kept = place + 1;
                break;
            }
            let block: String = bitcoind.call("getblock", &[json!(hash), json!(0)])?;
            fresh.push(encode::deserialize_hex(&block).context("a block that does not parse")?);
        }
        self.blocks.truncate(kept);
        self.blocks.extend(fresh.into_iter().rev());
        Ok(())
    }

    /// The blocks, the lowest first.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// A moment before which no chain was so high that it has a block at this place; `None`: there was one from the
    /// beginning.
    pub fn reached(&self, place: usize) -> Option<Instant> {
        let height = self.first_height.checked_add(u32::try_from(place).ok()?)?;
        self.reached.get(&height).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SURE: Duration = Duration::from_mins(1);

    #[test]
    fn a_height_is_reached_when_its_block_was_asked_for_and_never_again() {
        let mut chronicle = Chronicle::new(100, 105);
        let before = Instant::now();
        chronicle.expect();
        chronicle.made(106, SURE);
        let (first, after) = (chronicle.reached(6).unwrap(), Instant::now());
        assert!(first >= before && first <= after);
        assert_eq!(chronicle.reached(5), None, "it was there from the beginning");
        assert_eq!(chronicle.reached(7), None, "nobody has asked for it");
        chronicle.expect();
        chronicle.made(107, SURE);
        assert_eq!(chronicle.reached(6), Some(first));
        assert!(chronicle.reached(7).unwrap() >= after);
        assert_eq!(chronicle.highest(), 107);
    }

    #[test]
    fn a_height_that_a_branch_had_first_counts_from_then_on() {
        let mut chronicle = Chronicle::new(100, 105);
        chronicle.expect();
        chronicle.made(108, SURE); // the branch
        let after = Instant::now();
        chronicle.expect();
        chronicle.made(106, SURE); // the chain
        assert!(chronicle.reached(6).unwrap() <= after && chronicle.reached(8).unwrap() <= after);
        assert_eq!(chronicle.highest(), 108, "until the chain is as high, it says nothing of what is final");
    }

    #[test]
    fn what_may_have_been_mined_without_a_word_counts_from_when_it_was_asked_for() {
        let mut chronicle = Chronicle::new(100, 105);
        chronicle.expect(); // no answer came
        let asked = Instant::now();
        chronicle.expect();
        chronicle.made(107, SURE);
        assert!(chronicle.reached(7).unwrap() <= asked);
        // An answer that came late: one more block may come.
        chronicle.expect();
        chronicle.made(108, Duration::ZERO);
        let late = chronicle.reached(8).unwrap();
        chronicle.expect();
        chronicle.made(109, SURE);
        assert_eq!(chronicle.reached(9), Some(late));
    }
}
