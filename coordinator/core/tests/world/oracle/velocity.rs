//! safety 22: what leaves a wallet within any window.

use onespend_core::ids::PaymentKey;
use onespend_core::limits::{Velocity, WalletLimits};
use onespend_core::payment::Attempt;

use super::{Allowed, Oracle, position};
use crate::world::wallets::address_of;

/// What left one wallet under one limit: when, and how much.
#[derive(Default)]
pub struct Left {
    limit: Option<Velocity>,
    sums: Vec<(u64, u64)>,
}

/// What a transaction takes out of a wallet: what it pays to others, and its fee.
pub fn outflow_sat(attempt: &Attempt, wallet: usize) -> u64 {
    let others = attempt
        .transaction
        .output
        .iter()
        .filter(|output| address_of(&output.script_pubkey).is_none_or(|(owner, ..)| owner != wallet));
    others.map(|output| output.value.to_sat()).sum::<u64>() + attempt.fee_sat
}

impl Oracle {
    /// A limit that changes says nothing of what left before.
    pub(super) fn limited(&mut self, wallet: usize, limits: &WalletLimits) {
        let left = self.left.entry(wallet).or_default();
        if left.limit != limits.velocity {
            *left = Left { limit: limits.velocity, sums: Vec::new() };
        }
    }

    /// One of the live attempts confirms at most, so a further one takes only what it adds to the dearest.
    pub(super) fn leaves(&mut self, key: &PaymentKey, outflow_sat: u64) {
        let live = |attempt: &&Allowed| attempt.key == *key && attempt.is_live();
        let dearest = self.attempts.iter().filter(live).map(|attempt| attempt.outflow_sat).max().unwrap_or(0);
        let left = self.left.entry(position(&key.wallet)).or_default();
        let Some(Velocity { window, max_sat }) = left.limit else { return };
        left.sums.push((self.now, outflow_sat.saturating_sub(dearest)));
        let recent = left.sums.iter().filter(|(at, _)| at + window.0 > self.now);
        let sum: u64 = recent.map(|(_, sat)| sat).sum();
        assert!(sum <= max_sat, "safety 22: {sum} sat leave {} within {} ms, not {max_sat}", key.wallet, window.0);
    }
}
