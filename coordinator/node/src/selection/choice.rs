//! The search for coins.
//!
//! Fewest inputs come from the most valuable coins. A lower fee is possible only without change: with coins whose sum
//! is what is needed, or little more. Those are looked for by branch and bound, as in Bitcoin Core's wallet (Erhardt,
//! "An Evaluation of Coin Selection Strategies", 2016), up to a bound on the work.

use std::cmp::Reverse;

use bitcoin::OutPoint;
use onespend_core::limits::MAX_OUTPOINTS;

use super::Strategy;
use super::costs::{Bill, Costs};

/// Coins that the search looks at, over and over; well below a millisecond. After that the best so far is taken.
const MAX_STEPS: usize = 10_000;

/// A coin that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coin {
    pub(super) outpoint: OutPoint,
    pub(super) value_sat: u64,
    /// Confirmations.
    pub(super) depth: u32,
}

/// Coins that pay an order, and what that costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) outpoints: Vec<OutPoint>,
    pub(super) bill: Bill,
}

/// Chooses of coins that come with the most valuable one first. `None` if they do not suffice.
pub(super) fn choose(coins: &[Coin], costs: &Costs, strategy: Strategy) -> Option<Choice> {
    match strategy {
        Strategy::LargestFirst => in_order(coins.iter(), costs),
        Strategy::OldestFirst => {
            let mut oldest: Vec<&Coin> = coins.iter().collect();
            oldest.sort_by_key(|coin| Reverse(coin.depth));
            in_order(oldest.into_iter(), costs).or_else(|| in_order(coins.iter(), costs))
        }
        Strategy::LowestFee => {
            let fewest = in_order(coins.iter(), costs)?;
            Some(Search::new(coins, costs, fewest.bill.score_sat).run().unwrap_or(fewest))
        }
    }
}

/// The first coins that suffice together.
fn in_order<'a>(coins: impl Iterator<Item = &'a Coin>, costs: &Costs) -> Option<Choice> {
    let mut outpoints = Vec::new();
    let mut input_sat = 0_u64;
    for coin in coins.take(costs.max_inputs()) {
        outpoints.push(coin.outpoint);
        input_sat = input_sat.saturating_add(coin.value_sat);
        if let Some(bill) = costs.bill(outpoints.len(), input_sat) {
            return Some(Choice { outpoints, bill });
        }
    }
    None
}

/// The search for a selection without change that scores less than what is known.
struct Search<'a> {
    coins: &'a [Coin],
    costs: &'a Costs,
    max_inputs: usize,
    /// What the coins from a position on are worth together.
    rest_sat: Vec<u64>,
    /// The score to undercut.
    score_sat: u64,
    best: Option<Choice>,
    taken: Vec<usize>,
    steps: usize,
}

impl<'a> Search<'a> {
    fn new(coins: &'a [Coin], costs: &'a Costs, score_sat: u64) -> Self {
        let mut rest_sat: Vec<u64> = coins
            .iter()
            .rev()
            .scan(0_u64, |sum, coin| {
                *sum = sum.saturating_add(coin.value_sat);
                Some(*sum)
            })
            .collect();
        rest_sat.reverse();
        let max_inputs = costs.max_inputs();
        let taken = Vec::with_capacity(MAX_OUTPOINTS);
        Self { coins, costs, max_inputs, rest_sat, score_sat, best: None, taken, steps: MAX_STEPS }
    }

    fn run(mut self) -> Option<Choice> {
        self.extend(0, 0);
        self.best
    }

    /// Adds one more coin to those taken, which are worth `sum_sat`: each from `from` on in turn. Goes as deep as a
    /// selection may have coins.
    fn extend(&mut self, from: usize, sum_sat: u64) {
        let inputs = self.taken.len() + 1;
        let needed_sat = self.costs.needed_sat(inputs);
        // Above this there would be change, or a higher score: such coins are too valuable.
        let below_sat = self.costs.change_from_sat(inputs).min(self.costs.worth_below(self.score_sat));
        if inputs > self.max_inputs || needed_sat >= below_sat {
            return;
        }
        let mut at = from.max(self.first_below(below_sat.saturating_sub(sum_sat)));
        while let Some(coin) = self.coins.get(at) {
            let most_sat = self.rest_sat.get(at).map_or(sum_sat, |rest| sum_sat.saturating_add(*rest));
            if most_sat < needed_sat || self.steps == 0 {
                return;
            }
            self.steps -= 1;
            self.taken.push(at);
            let with_sat = sum_sat.saturating_add(coin.value_sat);
            match self.costs.bill(inputs, with_sat) {
                Some(bill) if bill.score_sat < self.score_sat => {
                    let outpoints = self.taken.iter().filter_map(|at| self.coins.get(*at)).map(|coin| coin.outpoint);
                    self.best = Some(Choice { outpoints: outpoints.collect(), bill });
                    self.score_sat = bill.score_sat;
                }
                // One more would only add to it.
                Some(_) => {}
                None => self.extend(at + 1, with_sat),
            }
            self.taken.pop();
            // Leaving one out and taking its equal is the same selection.
            at = self.first_below(coin.value_sat);
        }
    }

    /// The first coin that is worth less.
    fn first_below(&self, value_sat: u64) -> usize {
        self.coins.partition_point(|coin| coin.value_sat >= value_sat)
    }
}
