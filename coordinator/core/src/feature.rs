//! What every node of a cluster can do: nothing is written that one of them could not read (safety 32).
//!
//! A version that writes entries or rows in a new form, or that decides an entry differently, knows a higher level than the
//! one before, and does the new thing only where [`State::feature_level`] has reached it. The leader raises the level once
//! every member can do more (`agreement.rs` of the node); it never goes down again.

use crate::outcome::{Outcome, Rejection};
use crate::state::State;

/// The highest level that this version knows.
pub const FEATURE_LEVEL: u32 = LEAST;
/// The level of a cluster that has never raised it.
pub(crate) const LEAST: u32 = 1;

pub(crate) fn raise(state: &mut State, level: u32) -> Result<Outcome, Rejection> {
    let now = state.feature_level();
    if level <= now {
        return Err(Rejection::StaleBasis { what: format!("the feature level is {now} already") });
    }
    state.set_feature_level(level);
    Ok(Outcome::Recorded)
}
