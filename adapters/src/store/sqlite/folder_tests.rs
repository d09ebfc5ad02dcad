//! Whose folder is it, and is all of it there?

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{DataFolder, FoundFolder, LogOptions, SqliteLog, SqliteState};
use crate::store::contract::log::append;
use crate::store::contract::state::batch;
use crate::store::{Owner, StateStore, StoreError};

fn owner(cluster_id: &str, node_id: u64) -> Owner {
    Owner { cluster_id: cluster_id.into(), node_id }
}

/// Opens everything, as a node does.
fn open(path: &Path) -> Result<(SqliteLog, SqliteState), StoreError> {
    let folder = DataFolder::open(path, &owner("demo", 1))?;
    Ok((SqliteLog::open(&folder, LogOptions::default())?, SqliteState::open(&folder)?))
}

fn refusal(path: &Path) -> StoreError {
    open(path).map(|_| ()).unwrap_err()
}

/// A folder that was used, closed.
fn used() -> TempDir {
    let folder = TempDir::new().unwrap();
    let (log, state) = open(folder.path()).unwrap();
    append(&log, 0..3, "a");
    state.write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    folder
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The names of all files in a folder, after a look at their modes.
fn private_files(folder: &Path) -> Vec<String> {
    assert_eq!(mode(folder), 0o700);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| {
            assert_eq!(mode(&file.path()), 0o600, "{}", file.path().display());
            file.file_name().into_string().unwrap()
        })
        .collect()
}

#[test]
fn a_folder_is_made_for_its_owner_alone() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("deep/down");
    let (log, state) = open(&path).unwrap();
    append(&log, 0..3, "a");
    state.write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    state.snapshot().unwrap();
    let copy = state.copy().unwrap();
    let files = private_files(&path);
    for file in ["raft.db", "raft.db-wal", "state.db", "state.db-shm", "snapshot-1.db", "copy-0.tmp", "identity.json"] {
        assert!(files.iter().any(|found| found == file), "{file}: {files:?}");
    }
    drop((copy, log, state));
    assert_eq!(DataFolder::open(&path, &owner("demo", 1)).unwrap().owner(), owner("demo", 1));
}

#[test]
fn a_folder_that_others_may_read_is_closed_to_them() {
    let folder = used();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for file in ["raft.db", "state.db", "identity.json"] {
        fs::set_permissions(folder.path().join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let stores = open(folder.path()).unwrap();
    assert!(private_files(folder.path()).contains(&"raft.db-wal".to_owned()));
    drop(stores);
}

#[test]
fn only_one_holds_it_at_a_time() {
    let folder = TempDir::new().unwrap();
    let stores = open(folder.path()).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, StoreError::Locked { .. }) && error.is_retryable(), "{error}");
    drop(stores);
    open(folder.path()).unwrap();
}

#[test]
fn another_owner_is_refused_naming_both() {
    let folder = used();
    for other in [owner("other", 1), owner("demo", 2)] {
        let error = DataFolder::open(folder.path(), &other).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("node 1 of cluster \"demo\"") && text.contains(&other.to_string()), "{text}");
    }
    open(folder.path()).unwrap();
}

#[test]
fn a_file_of_another_folder_is_refused() {
    for file in ["raft.db", "state.db"] {
        let (one, other) = (used(), used());
        fs::copy(other.path().join(file), one.path().join(file)).unwrap();
        let error = refusal(one.path());
        assert!(matches!(error, StoreError::OtherInstance { .. }), "{error}");
        assert!(error.to_string().contains(file), "{error}");
    }
}

#[test]
fn a_newer_format_is_refused_naming_the_file() {
    for file in ["raft.db", "state.db"] {
        for sql in ["PRAGMA user_version = 99", "UPDATE identity SET format_version = 99"] {
            let folder = used();
            Connection::open(folder.path().join(file)).unwrap().execute_batch(sql).unwrap();
            let error = refusal(folder.path());
            assert!(matches!(error, StoreError::NewerFormat { found: 99, .. }), "{sql}: {error}");
            assert!(error.to_string().contains(file), "{error}");
        }
    }
    let folder = used();
    fs::write(folder.path().join("identity.json"), r#"{"format_version": 99, "strange": true}"#).unwrap();
    assert!(matches!(refusal(folder.path()), StoreError::NewerFormat { found: 99, .. }));
}

#[test]
fn a_database_in_the_place_of_the_other_is_refused() {
    let folder = used();
    fs::copy(folder.path().join("raft.db"), folder.path().join("state.db")).unwrap();
    let error = refusal(folder.path());
    assert!(error.is_corruption() && error.to_string().contains("not a state.db"), "{error}");
}

#[test]
fn a_lost_file_is_refused_and_not_made_again() {
    for file in ["raft.db", "state.db", "identity.json"] {
        let folder = used();
        fs::remove_file(folder.path().join(file)).unwrap();
        for _ in 0..2 {
            let error = refusal(folder.path());
            assert!(matches!(error, StoreError::Missing { .. }), "{error}");
            assert!(error.to_string().contains(file), "{error}");
        }
    }
}

#[test]
fn a_damaged_identity_is_refused() {
    for content in ["", "{", "{\"format_version\": 1}", "once upon a time"] {
        let folder = used();
        fs::write(folder.path().join("identity.json"), content).unwrap();
        let error = refusal(folder.path());
        assert!(error.is_corruption() && error.to_string().contains("identity.json"), "{error}");
    }
}

/// What a look says of a folder, which it leaves as it is.
fn look(path: &Path, owner: &Owner) -> Result<FoundFolder, StoreError> {
    let names =
        || -> Option<BTreeSet<_>> { Some(fs::read_dir(path).ok()?.map(|entry| entry.unwrap().file_name()).collect()) };
    let before = names();
    let found = DataFolder::look(path, owner);
    assert_eq!(names(), before);
    found
}

#[test]
fn a_look_finds_what_a_start_would_and_changes_nothing() {
    let parent = TempDir::new().unwrap();
    let own = owner("demo", 1);
    for nobodys in [parent.path(), &parent.path().join("none")] {
        assert_eq!(look(nobodys, &own).unwrap(), FoundFolder::Nobodys);
    }
    fs::write(parent.path().join("signer-hot.db"), "precious").unwrap();
    fs::write(parent.path().join("raft.db"), "").unwrap();
    assert_eq!(look(parent.path(), &own).unwrap(), FoundFolder::Nobodys, "a start makes it");

    let folder = used();
    assert_eq!(look(folder.path(), &own).unwrap(), FoundFolder::Owners);
    let running = open(folder.path()).unwrap();
    assert_eq!(look(folder.path(), &own).unwrap(), FoundFolder::Owners, "also beside the node");
    drop(running);
    for other in [owner("other", 1), owner("demo", 2)] {
        assert!(matches!(look(folder.path(), &other), Err(StoreError::Foreign { .. })));
    }
    for (mark, wanted) in [("RESTORING", "restore"), ("RECOVERING", "recovery"), ("SUPERSEDED", "set aside")] {
        fs::write(folder.path().join(mark), "").unwrap();
        let refused = look(folder.path(), &own).unwrap_err().to_string();
        assert!(refused.contains(wanted) && refusal(folder.path()).to_string() == refused, "{mark}: {refused}");
        fs::remove_file(folder.path().join(mark)).unwrap();
    }
    let identity = fs::read(folder.path().join("identity.json")).unwrap();
    fs::remove_file(folder.path().join("identity.json")).unwrap();
    let refused = look(folder.path(), &own).unwrap_err().to_string();
    assert!(refused.contains("identity.json") && refusal(folder.path()).to_string() == refused, "{refused}");
    fs::write(folder.path().join("identity.json"), "{").unwrap();
    assert!(look(folder.path(), &own).unwrap_err().is_corruption());
    fs::write(folder.path().join("identity.json"), identity).unwrap();
    fs::remove_file(folder.path().join("state.db")).unwrap();
    assert!(matches!(look(folder.path(), &own), Err(StoreError::Missing { .. })));

    let unused = TempDir::new().unwrap();
    drop(open(unused.path()).unwrap());
    fs::remove_file(unused.path().join("identity.json")).unwrap();
    assert_eq!(look(unused.path(), &own).unwrap(), FoundFolder::Nameless, "a start makes it again");
}

#[test]
fn a_look_misses_the_snapshot_that_a_start_demands() {
    let folder = TempDir::new().unwrap();
    let (log, state) = open(folder.path()).unwrap();
    state.write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    state.snapshot().unwrap();
    drop((log, state));
    assert_eq!(look(folder.path(), &owner("demo", 1)).unwrap(), FoundFolder::Owners);
    fs::remove_file(folder.path().join("snapshot-1.db")).unwrap();
    let refused = look(folder.path(), &owner("demo", 1)).unwrap_err();
    assert!(matches!(refused, StoreError::Missing { .. }), "{refused}");
    assert!(refused.to_string().contains("snapshot-1.db"), "{refused}");
    assert_eq!(refusal(folder.path()).to_string(), refused.to_string());
}

#[test]
fn a_folder_is_new_only_to_whom_makes_it() {
    let folder = TempDir::new().unwrap();
    let open = || DataFolder::open(folder.path(), &owner("demo", 1)).unwrap().is_new();
    assert_eq!([open(), open()], [true, false]);
}

#[test]
fn a_first_start_that_was_interrupted_is_made_again() {
    let folder = TempDir::new().unwrap();
    drop(open(folder.path()).unwrap());
    fs::remove_file(folder.path().join("identity.json")).unwrap();
    fs::remove_file(folder.path().join("state.db")).unwrap();
    drop(open(folder.path()).unwrap());
    fs::remove_file(folder.path().join("identity.json")).unwrap();
    fs::write(folder.path().join("raft.db"), "").unwrap();
    fs::write(folder.path().join("identity.tmp"), "{").unwrap();
    open(folder.path()).unwrap();
}
