//! A snapshot as another node sends it: the bytes of its file. Size and checksum are taken to be right, as a node that
//! means harm would send them; what is left to find out is whether the file is a state at all.

use std::cell::OnceCell;

use onespend_adapters::store::sqlite::{DataFolder, SqliteState};
use onespend_adapters::store::{Owner, Row, RowBatch, RowChange, SnapshotDigest, StateStore};
use onespend_core::state::State;
use tempfile::TempDir;

use super::history;

/// The place in the history that all snapshots here announce.
const MARKER: &[u8] = &[0x83, 0xf6, 0xf6, 0x82, 0x80, 0x80];

struct Stores {
    state: SqliteState,
    _folder: TempDir,
}

thread_local! {
    static STORES: OnceCell<Stores> = const { OnceCell::new() };
}

fn open(node_id: u64) -> Stores {
    // In memory, where there is such a place: a snapshot waits for the disk more than once.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let owner = Owner { cluster_id: "fuzz".to_owned(), node_id };
    let state = SqliteState::open(&DataFolder::open(folder.path(), &owner).unwrap()).unwrap();
    Stores { state, _folder: folder }
}

/// A file is refused and leaves nothing, or it is installed and its rows are read as at a start.
pub fn feed(data: &[u8]) {
    STORES.with(|cell| install(&cell.get_or_init(|| open(1)).state, data));
}

fn install(store: &SqliteState, data: &[u8]) {
    use bitcoin::hashes::{Hash, sha256};
    let sha256 = sha256::Hash::hash(data).to_byte_array();
    let digest = SnapshotDigest { marker: MARKER.to_vec(), sha256, size_bytes: data.len() as u64 };
    let mut incoming = store.receive(digest).unwrap();
    incoming.write(data).unwrap();
    let file = incoming.finish().unwrap();
    if store.verify(&file).is_err() {
        return;
    }
    store.install(&file).unwrap();
    let mut state = State::default();
    let mut visit =
        |row: Row<'_>| state.load_row(row.table, row.key, row.value).map_err(|unreadable| unreadable.to_string());
    if let Ok(marker) = store.load(&mut visit) {
        assert_eq!(marker.as_deref(), Some(MARKER));
        state.finish_loading();
        let _ = state.hash();
    }
}

/// A snapshot of a few rows, and one without any.
pub fn seeds() -> Vec<Vec<u8>> {
    let of = |count: usize| {
        let stores = open(2);
        let change = |(table, key, value)| RowChange { table, key, value: Some(value) };
        let rows = history::rows().into_iter().take(count).map(change).collect();
        stores.state.write(&RowBatch { marker: MARKER.to_vec(), rows }).unwrap();
        std::fs::read(&stores.state.snapshot().unwrap().unwrap().path).unwrap()
    };
    [0, 3].map(of).into()
}
