//! The log of the core's golden files: a story in which every kind of command and row occurs.

use bitcoin::hex::FromHex;
use onespend_core::apply::apply;
use onespend_core::command::Entry;
use onespend_core::ids::LogIndex;
use onespend_core::state::State;

const ENTRIES: &str = include_str!("../../../coordinator/core/tests/golden/entries-v2.txt");
/// Entries in the newest form, which follow no story.
const NEWEST: &str = include_str!("../../../coordinator/core/tests/golden/entries-v3.txt");
/// Rows in each form that was ever stored, the newest last.
const ROWS: [&str; 3] = [
    include_str!("../../../coordinator/core/tests/golden/rows-v1.txt"),
    include_str!("../../../coordinator/core/tests/golden/rows-v2.txt"),
    include_str!("../../../coordinator/core/tests/golden/rows-v3.txt"),
];

/// One stored row: table, key, value.
pub type Row = (u8, Vec<u8>, Vec<u8>);

fn lines(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect())
}

/// The entries as they are stored, with their indexes.
pub fn entries() -> Vec<(LogIndex, Vec<u8>)> {
    lines(ENTRIES).map(|line| (LogIndex(line[0].parse().unwrap()), Vec::from_hex(line[2]).unwrap())).collect()
}

/// Entries in the newest form, as they are stored; each may come after any.
pub fn newest() -> Vec<Vec<u8>> {
    lines(NEWEST).map(|line| Vec::from_hex(line[2]).unwrap()).collect()
}

/// The rows of the state after the last entry.
pub fn rows() -> Vec<Row> {
    rows_of(ROWS[ROWS.len() - 1])
}

/// The rows of a state in each form that was ever stored, one form after the other.
pub fn rows_of_every_form() -> Vec<Vec<Row>> {
    Vec::from(ROWS.map(rows_of))
}

fn rows_of(text: &'static str) -> Vec<Row> {
    let bytes = |hex: &str| Vec::from_hex(hex.trim_start_matches("0x")).unwrap();
    lines(text).map(|line| (line[0].parse().unwrap(), bytes(line[1]), bytes(line[2]))).collect()
}

/// The state before the first entry and after each.
pub fn states() -> Vec<State> {
    let mut states = vec![State::default()];
    for (index, bytes) in entries() {
        let mut state = states.last().unwrap().clone();
        apply(&mut state, index, &Entry::from_bytes(&bytes).unwrap());
        states.push(state);
    }
    states
}
