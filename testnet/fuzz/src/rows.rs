//! Rows of the state as a store gives them back. Each is its table, the length of its key and of its value (two bytes
//! each, the lower first), key and value.

use onespend_core::command::Entry;
use onespend_core::ids::LogIndex;
use onespend_core::state::State;
use onespend_core::{apply::apply, invariant};

use super::history;

/// How many entries are applied to a state that looks sound.
const ENTRIES: usize = 8;

fn split(mut data: &[u8]) -> Vec<(u8, &[u8], &[u8])> {
    let mut rows = Vec::new();
    while let [table, k0, k1, v0, v1, rest @ ..] = data {
        let (key_len, value_len) = (u16::from_le_bytes([*k0, *k1]).into(), usize::from(u16::from_le_bytes([*v0, *v1])));
        let Some((key, rest)) = rest.split_at_checked(key_len) else { break };
        let Some((value, rest)) = rest.split_at_checked(value_len) else { break };
        rows.push((*table, key, value));
        data = rest;
    }
    rows
}

fn load(rows: &[(u8, &[u8], &[u8])]) -> Option<State> {
    let mut state = State::default();
    for (table, key, value) in rows {
        state.load_row(*table, key, value).ok()?;
    }
    state.finish_loading();
    Some(state)
}

/// Rows are refused, or make a state that can be hashed, judged and gone on with.
pub fn feed(data: &[u8]) {
    let rows = split(data);
    let Some(mut state) = load(&rows) else { return };
    assert_eq!(load(&rows).map(|again| again.hash()), Some(state.hash()), "the same rows are the same state");
    // What breaks an invariant, no node wrote: a checksum beside each row tells damage from rows.
    if invariant::check(&state).is_err() {
        return;
    }
    for (_, bytes) in history::entries().into_iter().take(ENTRIES) {
        let index = LogIndex(state.applied().0.saturating_add(1));
        apply(&mut state, index, &Entry::from_bytes(&bytes).unwrap());
    }
    let _ = state.drain_changes();
    let _ = invariant::check(&state);
}

/// The golden rows of every form: one by one, and all of a form in one.
pub fn seeds() -> Vec<Vec<u8>> {
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_le_bytes();
    let joined = |(table, key, value): &history::Row| [&[*table][..], &len(key), &len(value), key, value].concat();
    let mut seeds = Vec::new();
    for rows in history::rows_of_every_form() {
        let one_by_one: Vec<Vec<u8>> = rows.iter().map(joined).collect();
        seeds.push(one_by_one.concat());
        seeds.extend(one_by_one);
    }
    seeds
}
