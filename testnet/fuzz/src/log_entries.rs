//! Entries of the log, from the own disk or from another node: whatever can be read is applied.
//!
//! The first byte says how many entries of the golden log come before; the rest is the entry.

use std::cell::OnceCell;

use onespend_core::apply::apply;
use onespend_core::command::Entry;
use onespend_core::ids::LogIndex;
use onespend_core::invariant;
use onespend_core::state::State;

use super::history;

thread_local! {
    static STATES: OnceCell<Vec<State>> = const { OnceCell::new() };
}

/// An entry that can be read is applied, on two nodes alike, and breaks no invariant, whatever it says.
fn applied(after: usize, entry: &Entry) {
    let mut state = STATES.with(|cell| {
        let states = cell.get_or_init(history::states);
        states[after % states.len()].clone()
    });
    let mut twin = state.clone();
    let index = LogIndex(state.applied().0 + 1);
    let outcome = apply(&mut state, index, entry);
    assert_eq!(apply(&mut twin, index, entry), outcome);
    assert_eq!(twin.hash(), state.hash(), "two nodes differ (safety 15)");
    if let Err(violation) = invariant::check(&state) {
        panic!("{violation} after {entry:?} ({outcome:?})");
    }
}

/// Feeds one input.
pub fn feed(data: &[u8]) {
    let Some((after, bytes)) = data.split_first() else { return };
    let Ok(entry) = Entry::from_bytes(bytes) else { return };
    assert_eq!(entry.to_bytes(), bytes, "an entry has one form");
    applied(usize::from(*after), &entry);
}

/// Every golden entry after those before it, and at the end of the log; those in the newest form at its beginning, too.
pub fn seeds() -> Vec<Vec<u8>> {
    let entries = history::entries();
    let last = u8::try_from(entries.len()).unwrap();
    let mut seeds = Vec::new();
    for (before, (_, bytes)) in (0_u8..).zip(&entries) {
        for after in [before, last] {
            seeds.push([&[after], bytes.as_slice()].concat());
        }
    }
    for bytes in history::newest() {
        for after in [0, 1, last] {
            seeds.push([&[after], bytes.as_slice()].concat());
        }
    }
    seeds
}
