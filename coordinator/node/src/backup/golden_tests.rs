//! Backups that earlier versions made.
#![allow(clippy::unwrap_used)]

use onespend_adapters::backup::{Backup, BackupDepot, FolderDepot, Header};
use onespend_adapters::store::sqlite::{DataFolder, SqliteState};
use onespend_adapters::store::{Owner, StateStore};
use tempfile::TempDir;

use super::Contents;
use crate::golden::{self, Rows};
use crate::raft::specimen::{TERM, write};

const BACKUP: &str = "backup-v1.backup";
const CLUSTER: &str = "golden";
const NODE: u64 = 1;
const MADE_UNIX_MS: u64 = 1_764_459_663_000;

#[test]
fn a_backup_of_version_1_is_read() {
    let scratch = TempDir::new().unwrap();
    let backup = Backup::open(&golden::file(BACKUP)).unwrap();
    // Every sum, the hash of the state, and every rule that can be seen in one state.
    let contents = Contents::read(backup, scratch.path(), &mut |_, _| ()).unwrap();
    let Header { cluster_id, node_id, term, made_unix_ms, version, .. } = &contents.header;
    assert_eq!(
        (cluster_id.as_str(), *node_id, *term, *made_unix_ms, version.as_str()),
        (CLUSTER, NODE, TERM, MADE_UNIX_MS, "0.1.0")
    );
    let mut rows = Rows::new();
    let visit = &mut |row: onespend_adapters::store::Row<'_>| {
        golden::add(&mut rows, row);
        Ok(())
    };
    contents.content.rows(visit).unwrap();
    assert!(rows == golden::rows(), "the backup has other rows than the version had that wrote it");
}

/// How the file came about, see [`crate::golden`].
#[test]
#[ignore = "makes the golden backup where it is missing, with ONESPEND_GOLDEN=write"]
fn the_golden_backup_is_made() {
    let (at, depot) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let owner = Owner { cluster_id: CLUSTER.to_owned(), node_id: NODE };
    let store = SqliteState::open(&DataFolder::open(at.path(), &owner).unwrap()).unwrap();
    let mut state = golden::state();
    write(&store, &mut state);
    let copy = store.copy().unwrap().unwrap();
    let header = Header {
        cluster_id: CLUSTER.to_owned(),
        node_id: NODE,
        index: state.applied().0,
        term: TERM,
        state_hash: state.hash(),
        size_bytes: copy.digest.size_bytes,
        made_unix_ms: MADE_UNIX_MS,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let name = FolderDepot::new(depot.path()).store(&header, &copy.path, &copy.digest.sha256).unwrap();
    golden::keep(BACKUP, &depot.path().join(name));
}
