//! What left a wallet of late, for its velocity limit (safety 22).
//!
//! Counted in the step that commits the intent: the amounts and the fee of a payment when it is permitted, and what a
//! replacement adds to the fee. Nothing is given back when an attempt dies or is cancelled, and a payment that is ordered
//! anew after all its attempts died counts anew: a limit against mistakes and thieves must not be one that they can reset.

use minicbor::{Decode, Encode};

use crate::ids::{Millis, WalletId};
use crate::limits::{VELOCITY_PARTS, Velocity};
use crate::outcome::Rejection;
use crate::state::State;

/// What left one wallet, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Spending {
    /// Sums of parts of the window.
    #[n(0)]
    pub parts: Vec<Part>,
}

/// What left within one part of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Part {
    /// When the last of it left, in logical time.
    #[n(0)]
    pub last: Millis,
    /// How much.
    #[n(1)]
    pub sat: u64,
}

impl Spending {
    /// What left within the window that ends now.
    pub fn within(&self, window: Millis, now: Millis) -> u64 {
        let recent = self.parts.iter().filter(|part| part.last.plus(window) > now);
        recent.fold(0, |sum, part| sum.saturating_add(part.sat))
    }

    fn add(&mut self, window: Millis, now: Millis, sat: u64) {
        self.parts.retain(|part| part.last.plus(window) > now);
        let length = (window.0 / VELOCITY_PARTS).max(1);
        match self.parts.last_mut() {
            Some(part) if part.last.0 / length == now.0 / length => {
                part.sat = part.sat.saturating_add(sat);
                part.last = now;
            }
            _ => self.parts.push(Part { last: now, sat }),
        }
    }
}

/// Whether the wallet's limit lets so much more leave now. Without a limit anything may.
pub(crate) fn check(state: &State, wallet: &WalletId, now: Millis, sat: u64) -> Result<(), Rejection> {
    let Some(Velocity { window, max_sat }) = limit(state, wallet) else { return Ok(()) };
    let before = state.spending(wallet).map_or(0, |spending| spending.within(window, now));
    let spent_sat = before.saturating_add(sat);
    if spent_sat > max_sat {
        return Err(Rejection::VelocityLimit { spent_sat, bound_sat: max_sat, window_ms: window.0 });
    }
    Ok(())
}

/// Counts what [`check`] let through.
pub(crate) fn count(state: &mut State, wallet: &WalletId, now: Millis, sat: u64) {
    let Some(Velocity { window, .. }) = limit(state, wallet) else { return };
    let mut spending = state.spending(wallet).cloned().unwrap_or_default();
    spending.add(window, now, sat);
    state.put_spending(wallet.clone(), spending);
}

fn limit(state: &State, wallet: &WalletId) -> Option<Velocity> {
    state.wallet(wallet).ok()?.limits.velocity
}
