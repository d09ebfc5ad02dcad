//! Fee estimates, asked for now and then and read without waiting.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bitcoin::Network;
use onespend_adapters::chain::{Chain, ChainView};
use onespend_core::limits::MIN_FEERATE_SAT_KVB;

use super::BitcoindWatch;

/// Targets that are asked for, in blocks; Bitcoin Core knows 1 to 1008.
const TARGETS: [u16; 10] = [1, 2, 3, 6, 12, 24, 48, 144, 504, 1008];
/// What is paid on regtest, where bitcoind never has an estimate: 1 sat/vB. On a network with a market for block space
/// a guess would be a payment that nobody mines, or one that pays many times too much.
const REGTEST_SAT_KVB: u64 = 1000;
/// An estimate counts for this long. A market for fees may have turned by then, and bitcoind may have hung since.
const MAX_AGE: Duration = Duration::from_mins(10);

/// bitcoind has lately estimated nothing that is good for the time that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bitcoind has no recent fee estimate for this time")]
pub struct NoEstimate;

/// Feerates by target in blocks, and the least that the mempool takes, in sat per 1000 vB.
#[derive(Debug, Clone, Default)]
pub(super) struct Fees {
    by_target: BTreeMap<u16, Estimate>,
    floor: u64,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    sat_kvb: u64,
    at: Instant,
}

impl Fees {
    /// Asks bitcoind, with a beat after every call. What it does not answer stays as it was, and grows old.
    pub(super) fn ask(&mut self, chain: &dyn Chain, view: Option<&ChainView>, beat: &mut dyn FnMut()) {
        for target in TARGETS {
            let estimate = chain.estimate_fee(target);
            beat();
            match estimate {
                Ok(Some(sat_vb)) => {
                    self.by_target.insert(target, Estimate { sat_kvb: sat_kvb(sat_vb), at: Instant::now() });
                }
                Ok(None) => drop(self.by_target.remove(&target)),
                // It has just stopped answering: nine more calls would only wait.
                Err(_) => break,
            }
        }
        self.floor = view.map_or(self.floor, |view| sat_kvb(view.mempool_min_feerate_sat_vb));
    }

    /// The estimate of the nearest target that is not later, never below what the mempool takes.
    fn feerate_sat_kvb(&self, target_blocks: u16, network: Network, now: Instant) -> Result<u64, NoEstimate> {
        let counts = |estimate: &&Estimate| now.saturating_duration_since(estimate.at) <= MAX_AGE;
        let in_time = self.by_target.range(..=target_blocks).rev().map(|(_, estimate)| estimate);
        let rate = match in_time.filter(counts).map(|estimate| estimate.sat_kvb).next() {
            Some(rate) => rate,
            None if network == Network::Regtest => REGTEST_SAT_KVB,
            None => return Err(NoEstimate),
        };
        Ok(rate.max(self.floor).max(MIN_FEERATE_SAT_KVB))
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Clamped; a NaN becomes 0.
fn sat_kvb(sat_vb: f64) -> u64 {
    (sat_vb.clamp(0.0, 1e6) * 1000.0).ceil() as u64
}

impl BitcoindWatch {
    /// The feerate in sat per 1000 vB for confirming within some blocks.
    ///
    /// # Errors
    /// bitcoind has too little data, or has not answered lately. On regtest it is 1 sat/vB then.
    pub fn feerate_sat_kvb(&self, target_blocks: u16) -> Result<u64, NoEstimate> {
        self.heard.load().fees.feerate_sat_kvb(target_blocks, self.network, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use onespend_adapters::chain::fake::{FakeChain, Fault};

    use super::*;

    /// What was estimated by a chain that estimates this for every target, or has no data.
    fn asked(feerate_sat_vb: Option<f64>) -> (FakeChain, Fees) {
        let chain = FakeChain::new();
        chain.configure(|node| node.feerate_sat_vb = feerate_sat_vb);
        let mut fees = Fees::default();
        fees.ask(&chain, None, &mut || ());
        (chain, fees)
    }

    /// How many beats came while a chain was asked.
    fn beats(chain: &FakeChain) -> usize {
        let mut beats = 0;
        Fees::default().ask(chain, None, &mut || beats += 1);
        beats
    }

    #[test]
    fn every_call_is_followed_by_a_beat() {
        let chain = FakeChain::new();
        assert_eq!(beats(&chain), TARGETS.len());
        chain.inject(None, Fault::Timeout, u32::MAX);
        assert_eq!(beats(&chain), 1, "one call fails, and no other is made");
    }

    #[test]
    fn without_an_estimate_a_feerate_is_made_up_on_regtest_alone() {
        let (_, fees) = asked(None);
        let now = Instant::now();
        assert_eq!(fees.feerate_sat_kvb(6, Network::Regtest, now), Ok(REGTEST_SAT_KVB));
        for network in [Network::Bitcoin, Network::Testnet4, Network::Signet] {
            assert_eq!(fees.feerate_sat_kvb(6, network, now), Err(NoEstimate), "{network}");
        }
    }

    #[test]
    fn an_estimate_that_bitcoind_does_not_repeat_grows_too_old() {
        let (chain, mut fees) = asked(Some(7.5));
        let now = Instant::now();
        let rate = |fees: &Fees, at| fees.feerate_sat_kvb(6, Network::Bitcoin, at);
        assert_eq!(rate(&fees, now), Ok(7_500));
        chain.inject(None, Fault::Timeout, u32::MAX);
        fees.ask(&chain, None, &mut || ());
        assert_eq!(rate(&fees, now), Ok(7_500), "one call that fails takes nothing away");
        assert_eq!(rate(&fees, now + MAX_AGE + Duration::from_secs(1)), Err(NoEstimate));
        chain.clear_faults();
        chain.configure(|node| node.feerate_sat_vb = None);
        fees.ask(&chain, None, &mut || ());
        assert_eq!(rate(&fees, now), Err(NoEstimate), "bitcoind says that it has too little data");
    }

    #[test]
    fn a_feerate_is_for_a_target_that_is_not_later() {
        let (_, mut fees) = asked(None);
        fees.by_target.insert(12, Estimate { sat_kvb: 3_000, at: Instant::now() });
        let rate = |target| fees.feerate_sat_kvb(target, Network::Bitcoin, Instant::now());
        assert_eq!((rate(11), rate(12), rate(1008)), (Err(NoEstimate), Ok(3_000), Ok(3_000)));
    }
}
