//! Snapshots that earlier versions made.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::Arc;

use onespend_adapters::store::sqlite::{DataFolder, SqliteState};
use onespend_adapters::store::{Owner, StateStore};
use onespend_core::invariant;
use openraft::storage::RaftStateMachine;
use tempfile::TempDir;

use super::lag::AppendTimes;
use super::observer::NoObserver;
use super::specimen::{TERM, id, members, write};
use super::state_machine::StateMachine;
use super::types::StoredMembership;
use crate::golden::{self, Rows};

/// The file, and what the shelf says of it.
const SNAPSHOT: [(&str, &str); 2] = [("snapshot-v1.db", "snapshot-1.db"), ("snapshot-v1.json", "snapshot-1.json")];

fn folder(at: &TempDir, node_id: u64) -> DataFolder {
    DataFolder::open(at.path(), &Owner { cluster_id: "golden".to_owned(), node_id }).unwrap()
}

fn machine(store: &Arc<SqliteState>) -> StateMachine {
    StateMachine::open(store.clone(), AppendTimes::default(), Arc::new(NoObserver)).unwrap()
}

/// safety 25: it lies on one node's shelf, is sent to another one, and is the state there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_version_1_is_kept_sent_and_installed() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let source = folder(&here, 1);
    for (name, on_the_shelf) in SNAPSHOT {
        fs::copy(golden::file(name), here.path().join(on_the_shelf)).unwrap();
    }
    let shelf = Arc::new(SqliteState::open(&source).unwrap());
    let kept = machine(&shelf).get_current_snapshot().await.unwrap().unwrap();
    shelf.verify(&kept.snapshot).unwrap();

    let store = Arc::new(SqliteState::open(&folder(&there, 2)).unwrap());
    let mut target = machine(&store);
    let mut incoming = store.receive(kept.snapshot.digest.clone()).unwrap();
    incoming.write(&fs::read(&kept.snapshot.path).unwrap()).unwrap();
    let received = incoming.finish().unwrap();
    store.verify(&received).unwrap();
    target.install_snapshot(&kept.meta, received).await.unwrap();

    let applied = target.view().read(|state| {
        invariant::check(state).unwrap();
        state.applied().0
    });
    let members = StoredMembership::new(Some(id(TERM, 0)), members());
    assert_eq!(target.applied_state().await.unwrap(), (Some(id(TERM, applied)), members));
    let mut rows = Rows::new();
    let visit = &mut |row: onespend_adapters::store::Row<'_>| {
        golden::add(&mut rows, row);
        Ok(())
    };
    store.load(visit).unwrap();
    assert!(rows == golden::rows(), "the installed state has other rows than the version had that wrote it");
}

/// How the files came about, see [`crate::golden`].
#[test]
#[ignore = "makes the golden snapshot where it is missing, with ONESPEND_GOLDEN=write"]
fn the_golden_snapshot_is_made() {
    let at = TempDir::new().unwrap();
    let store = SqliteState::open(&folder(&at, 1)).unwrap();
    write(&store, &mut golden::state());
    store.snapshot().unwrap().unwrap();
    for (name, on_the_shelf) in SNAPSHOT {
        golden::keep(name, &at.path().join(on_the_shelf));
    }
}
