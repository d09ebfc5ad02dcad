//! What is done to a state that came out of a backup before any node of the new cluster has it.
//!
//! It is no command: it comes before the first entry of the new cluster's log, and every node gets its result with the
//! state itself.

use crate::apply::{apply, skip};
use crate::command::{Command, Entry};
use crate::ids::{Fence, LogIndex};
use crate::limits::ADDRESS_LOOKAHEAD;
use crate::state::State;
use crate::wallet::Keychain;

/// Puts the state into recovery mode (safety 30) with nothing compared yet, also where the backup was made in the middle
/// of another recovery. The fence epoch moves up, so that what is reserved from here on has fences above all that the old
/// cluster gave after the backup. The index moves on by two: a change of the members, which the caller makes, and this.
pub fn begin(state: &mut State, why: &str, wall_ms: u64) {
    let members = LogIndex(state.applied().0 + 1);
    skip(state, members);
    state.set_recovery(None);
    state.set_epoch(state.epoch().saturating_add(1).min(Fence::MAX_EPOCH));
    skip_addresses(state);
    let command = Command::EnterRecovery { why: why.to_owned() };
    apply(state, LogIndex(members.0 + 1), &Entry { at: state.now(), wall_ms, request: None, command });
}

/// What the old cluster gave out after the backup is not known, so as many indices as are watched ahead are left out: no
/// address is given to two (safety 21).
fn skip_addresses(state: &mut State) {
    let derived = state.wallets().filter(|(_, wallet)| !wallet.descriptor.is_none());
    let ids: Vec<_> = derived.map(|(id, _)| id.clone()).collect();
    for id in ids {
        for keychain in [Keychain::External, Keychain::Internal] {
            let Ok(next) = state.wallet(&id).map(|wallet| wallet.next_index(keychain)) else { continue };
            let last = next.saturating_add(ADDRESS_LOOKAHEAD - 1).min((1 << 31) - 2);
            state.use_index(&id, keychain, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Millis;

    /// safety 30.
    #[test]
    fn it_is_in_recovery_mode_with_nothing_compared_and_higher_fences() {
        let mut state = State::default();
        let enter = Command::EnterRecovery { why: "an earlier backup".to_owned() };
        apply(&mut state, LogIndex(7), &Entry { at: Millis(5), wall_ms: 1, request: None, command: enter });
        let before = (state.fence(), state.epoch());
        begin(&mut state, "restored from hot.backup", 9);
        assert_eq!(state.applied(), LogIndex(9));
        assert_eq!(state.epoch(), before.1 + 1);
        assert!(state.fence() > before.0);
        let recovery = state.recovery().cloned();
        assert!(recovery.is_some_and(|now| now.why.contains("hot.backup") && now.reconciled.is_none()));
        assert_eq!(state.now(), Millis(5));
        assert_eq!(state.audit_record(LogIndex(9)).map(|record| record.wall_ms), Some(9));
    }
}
