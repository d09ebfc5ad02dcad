//! What earlier versions wrote must be read for ever: snapshots and backups, as files in `tests/golden/`. Each holds the
//! state that the core's golden log leads to, and the rows that the core's golden file has. A file is never changed; a later
//! form gets a file of its own beside it.
//!
//! Those that are missing are made, in the form of this version, by
//! `ONESPEND_GOLDEN=write cargo test --release --locked -p onespend --lib golden_tests -- --ignored`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bitcoin::hex::FromHex;
use onespend_adapters::store::Row;
use onespend_core::apply::apply;
use onespend_core::command::Entry;
use onespend_core::ids::LogIndex;
use onespend_core::outcome::Outcome;
use onespend_core::state::State;

/// Table, key and value of rows.
pub(crate) type Rows = BTreeSet<(u8, Vec<u8>, Vec<u8>)>;

/// One of our files.
pub(crate) fn file(name: &str) -> PathBuf {
    let path = place(name);
    assert!(path.is_file(), "{} is missing: what a version wrote is never removed", path.display());
    path
}

/// Makes one of our files of what this version wrote, where there is none yet and `ONESPEND_GOLDEN=write` says so.
pub(crate) fn keep(name: &str, written: &Path) {
    let (path, asked) = (place(name), std::env::var("ONESPEND_GOLDEN").is_ok_and(|value| value == "write"));
    if asked && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(written, path).unwrap();
    }
}

/// The state that the core's golden log leads to.
pub(crate) fn state() -> State {
    let mut state = State::default();
    for line in lines("entries-v2.txt") {
        let entry = Entry::from_bytes(&bytes(&line[2])).unwrap();
        let outcome = apply(&mut state, LogIndex(line[0].parse().unwrap()), &entry);
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }
    state
}

/// The rows of that state, as the version of our files wrote them.
pub(crate) fn rows() -> Rows {
    let row =
        |line: Vec<String>| (line[0].parse().unwrap(), bytes(line[1].strip_prefix("0x").unwrap()), bytes(&line[2]));
    lines("rows-v3.txt").into_iter().map(row).collect()
}

/// Adds a row that a store has.
pub(crate) fn add(rows: &mut Rows, row: Row<'_>) {
    rows.insert((row.table, row.key.to_vec(), row.value.to_vec()));
}

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The words of a golden file of the core.
fn lines(name: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/golden").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    Vec::from_hex(hex).unwrap()
}
