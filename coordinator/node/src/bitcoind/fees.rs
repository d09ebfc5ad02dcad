//! Fee estimates, asked for now and then and read without waiting.

use std::collections::BTreeMap;

use onespend_adapters::chain::{Chain, ChainView};
use onespend_core::limits::MIN_FEERATE_SAT_KVB;

use super::BitcoindWatch;

/// Targets that are asked for, in blocks; Bitcoin Core knows 1 to 1008.
const TARGETS: [u16; 10] = [1, 2, 3, 6, 12, 24, 48, 144, 504, 1008];
/// What is paid where bitcoind has no estimate yet (a young chain, or a fresh start): 1 sat/vB.
const FALLBACK_SAT_KVB: u64 = 1000;

/// Feerates in sat per 1000 vB by target in blocks, and the least that the mempool takes.
#[derive(Debug, Clone, Default)]
pub(super) struct Fees {
    by_target: BTreeMap<u16, u64>,
    floor: u64,
}

/// Asks bitcoind. A target without an answer is left out.
pub(super) fn ask(chain: &dyn Chain, view: Option<&ChainView>) -> Fees {
    let mut by_target = BTreeMap::new();
    for target in TARGETS {
        match chain.estimate_fee(target) {
            Ok(Some(sat_vb)) => drop(by_target.insert(target, sat_kvb(sat_vb))),
            Ok(None) => {}
            // It has just stopped answering: nine more calls would only wait.
            Err(_) => break,
        }
    }
    let floor = view.map_or(0, |view| sat_kvb(view.mempool_min_feerate_sat_vb));
    Fees { by_target, floor: floor.max(MIN_FEERATE_SAT_KVB) }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Clamped; a NaN becomes 0.
fn sat_kvb(sat_vb: f64) -> u64 {
    (sat_vb.clamp(0.0, 1e6) * 1000.0).ceil() as u64
}

impl BitcoindWatch {
    /// The feerate in sat per 1000 vB for confirming within some blocks: the estimate of the nearest target that is
    /// not later, never below what the mempool takes, and 1 sat/vB where nothing is known.
    pub fn feerate_sat_kvb(&self, target_blocks: u16) -> u64 {
        let heard = self.heard.load();
        let estimate = heard.fees.by_target.range(..=target_blocks).next_back().map(|(_, rate)| *rate);
        estimate.unwrap_or(FALLBACK_SAT_KVB).max(heard.fees.floor).max(MIN_FEERATE_SAT_KVB)
    }
}
