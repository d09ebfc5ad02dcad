//! Wallets that a reorganisation of their finality depth froze: what was settled is not, and a human must look
//! (safety 17).
//!
//! That is a fact of the state, so every node shows it, whoever led when it happened, and until an operator unfreezes
//! the wallet. Other wallets go on: the alarm is none of [`crate::alarms::Alarms`], which stop all spends of a node.

use onespend_core::state::State;
use tracing::{error, info};

use crate::health::Alarm;
use crate::metrics;

/// The alarm's code.
pub const REORGANISED: &str = "DEEP_REORGANISATION";
/// Most wallets that the alarm names; a reorganisation hits every wallet of its depth.
const MAX_NAMED: usize = 10;

/// What a human must look at while such a wallet is frozen.
pub fn alarm(state: &State) -> Option<Alarm> {
    let hit: Vec<String> = state
        .wallets()
        .filter_map(|(id, wallet)| Some(format!("wallet {id} is frozen: {}", wallet.reorganised()?)))
        .collect();
    if hit.is_empty() {
        return None;
    }
    let mut message = hit.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
    if hit.len() > MAX_NAMED {
        message = format!("{message}; and {} more", hit.len() - MAX_NAMED);
    }
    Some(Alarm { code: REORGANISED, message })
}

/// Shows how many wallets are frozen, and logs the alarm when it begins, says something else, or ends.
pub fn report(state: &State, standing: &mut Option<Alarm>) {
    metrics::frozen_wallets(state.wallets().filter(|(_, wallet)| wallet.frozen.is_some()).count() as u64);
    let now = alarm(state);
    if now == *standing {
        return;
    }
    if let Some(alarm) = &now {
        error!(code = alarm.code, message = alarm.message, "alarm");
    } else {
        info!(code = REORGANISED, "the alarm is over");
    }
    *standing = now;
}
