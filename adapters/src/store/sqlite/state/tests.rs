#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::store::contract::state::{StateFixture, batch, rows, state_contract, transfer};

fn owner(node_id: u64) -> Owner {
    Owner { cluster_id: "demo".into(), node_id }
}

struct OnDisk {
    state: Option<SqliteState>,
    folder: TempDir,
}

impl OnDisk {
    fn open(&mut self) {
        let folder = DataFolder::open(self.folder.path(), &owner(1)).unwrap();
        self.state = Some(SqliteState::open(&folder).unwrap());
    }

    /// A second connection, which no node would make.
    fn intruder(&self) -> Connection {
        Connection::open(self.folder.path().join("state.db")).unwrap()
    }
}

impl StateFixture for OnDisk {
    fn fresh() -> Self {
        let mut at = Self { state: None, folder: TempDir::new().unwrap() };
        at.open();
        at
    }

    fn state(&self) -> &dyn StateStore {
        self.state.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.state = None;
        self.intruder().execute_batch("DROP TRIGGER IF EXISTS broken").unwrap();
        self.open();
    }

    fn break_disk(&self) {
        self.intruder()
            .execute_batch("CREATE TRIGGER broken BEFORE INSERT ON state BEGIN SELECT RAISE(ABORT, 'on purpose'); END")
            .unwrap();
    }
}

state_contract!(OnDisk);

/// A folder with a state at marker "2", and a received snapshot of another node at marker "9" that is not installed yet.
fn about_to_install() -> (OnDisk, SnapshotFile) {
    let from = OnDisk::fresh();
    from.state().write(&batch("9", &[(1, "a", Some("new"))])).unwrap();
    let sent = from.state().snapshot().unwrap().unwrap();
    let to = OnDisk::fresh();
    to.state().write(&batch("2", &[(1, "a", Some("old")), (1, "b", Some("old"))])).unwrap();
    let received = transfer(&sent, to.state()).unwrap();
    (to, received)
}

fn marker(at: &OnDisk) -> Vec<u8> {
    rows(at.state()).0.unwrap()
}

#[test]
fn an_installation_interrupted_before_the_shelf_is_undone() {
    let (mut at, received) = about_to_install();
    // The rename to the shelf happened, the label was not written.
    fs::copy(&received.path, at.folder.path().join("snapshot-1.db")).unwrap();
    fs::write(at.folder.path().join("snapshot-1.tmp"), "{").unwrap();
    fs::write(at.folder.path().join("incoming-77.tmp"), "part").unwrap();
    at.restart();
    assert_eq!(marker(&at), b"2");
    assert!(at.state().current_snapshot().unwrap().is_none());
    let left: Vec<String> = fs::read_dir(at.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("snapshot") || name.starts_with("incoming"))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn an_installation_interrupted_after_the_shelf_is_completed() {
    for step in 0..3 {
        let (mut at, received) = about_to_install();
        let state = at.state.as_ref().unwrap();
        let shelved = lock(&state.shelf).put(&received.path, received.digest.clone(), true).unwrap();
        match step {
            0 => {}
            // A part of the copy.
            1 => fs::write(at.folder.path().join("state.new"), "SQLite format 3\0 and then").unwrap(),
            // The old database is closed and its write-ahead log is gone.
            _ => {
                fs::copy(&shelved.file.path, at.folder.path().join("state.new")).unwrap();
                at.state = None;
                at.intruder().pragma_update(None, "journal_mode", "DELETE").unwrap();
            }
        }
        at.state = None;
        at.open();
        assert_eq!(rows(at.state()).1.len(), 1, "step {step}");
        assert_eq!(marker(&at), b"9");
        assert!(!at.folder.path().join("state.new").exists());
        // And only once: what is written later stays.
        at.state().write(&batch("10", &[])).unwrap();
        at.restart();
        assert_eq!(marker(&at), b"10");
    }
}

#[test]
fn an_interrupted_installation_of_a_damaged_snapshot_is_refused_by_name() {
    let (mut at, received) = about_to_install();
    let shelved = lock(&at.state.as_ref().unwrap().shelf).put(&received.path, received.digest.clone(), true).unwrap();
    at.state = None;
    let mut content = fs::read(&shelved.file.path).unwrap();
    content[5_000] ^= 1;
    fs::write(&shelved.file.path, content).unwrap();
    let folder = DataFolder::open(at.folder.path(), &owner(1)).unwrap();
    let error = SqliteState::open(&folder).map(|_| ()).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("snapshot-1.db"), "{error}");
}

#[test]
fn the_installed_state_belongs_to_this_folder() {
    let (mut at, received) = about_to_install();
    let before = database::read_identity(&at.intruder(), Path::new("")).unwrap();
    at.state().install(&received).unwrap();
    assert_eq!(database::read_identity(&at.intruder(), Path::new("")).unwrap(), before);
    at.restart();
    assert_eq!(marker(&at), b"9");
}

#[test]
fn a_snapshot_that_is_not_one_of_this_cluster_and_format_is_refused_and_changes_nothing() {
    type Check = fn(&StoreError) -> bool;
    let cases: [(&str, Check); 7] = [
        ("UPDATE identity SET cluster_id = 'other'", |e| matches!(e, StoreError::Foreign { .. })),
        ("PRAGMA user_version = 99", |e| matches!(e, StoreError::NewerFormat { found: 99, .. })),
        ("PRAGMA application_id = 7", StoreError::is_corruption),
        ("UPDATE state SET value = x'00'", StoreError::is_corruption),
        // What it holds would decide what our own statements do.
        ("DROP TABLE installed; CREATE TABLE installed(one CHECK(one = 0), snapshot)", StoreError::is_corruption),
        ("CREATE TRIGGER t AFTER INSERT ON installed BEGIN DELETE FROM state; END", StoreError::is_corruption),
        ("PRAGMA user_version = 1", StoreError::is_corruption),
    ];
    for (sql, expected) in cases {
        let (at, mut received) = about_to_install();
        Connection::open(&received.path).unwrap().execute_batch(sql).unwrap();
        (received.digest.sha256, received.digest.size_bytes) =
            sha256_of(fs::File::open(&received.path).unwrap()).unwrap();
        let error = at.state().install(&received).unwrap_err();
        assert!(expected(&error), "{sql}: {error}");
        assert_eq!(marker(&at), b"2");
    }
}

#[test]
fn a_snapshot_leaves_the_state_itself_on_disk() {
    let at = OnDisk::fresh();
    at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    at.state().snapshot().unwrap();
    // A power failure that takes the whole write-ahead log, whose pages nobody synced, with it.
    let after = TempDir::new().unwrap();
    for file in ["identity.json", "state.db", "raft.db"] {
        fs::copy(at.folder.path().join(file), after.path().join(file)).unwrap();
    }
    let state = SqliteState::open(&DataFolder::open(after.path(), &owner(1)).unwrap()).unwrap();
    assert_eq!(rows(&state).0.as_deref(), Some(&b"1"[..]));
}

#[test]
fn making_and_verifying_snapshots_leaves_no_other_files() {
    let at = OnDisk::fresh();
    at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    let made = at.state().snapshot().unwrap().unwrap();
    at.state().verify(&made).unwrap();
    let mut names: Vec<String> = fs::read_dir(at.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("snapshot"))
        .collect();
    names.sort();
    assert_eq!(names, ["snapshot-1.db", "snapshot-1.json"]);
}

#[test]
fn a_copy_is_the_state_of_its_moment_is_no_snapshot_and_leaves_nothing() {
    let mut at = OnDisk::fresh();
    assert!(at.state().copy().unwrap().is_none(), "nothing was ever written");
    at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    let copy = at.state().copy().unwrap().unwrap();
    at.state().write(&batch("2", &[(1, "a", Some("y"))])).unwrap();
    let mut values = Vec::new();
    let read = read_copy(&copy.path, &mut |row| {
        values.push(row.value.to_vec());
        Ok(())
    });
    assert_eq!(read.unwrap(), StateCopy { owner: owner(1), marker: b"1".to_vec() });
    assert_eq!(values, [b"x"]);
    assert!(at.state().current_snapshot().unwrap().is_none());
    let path = copy.path.clone();
    drop(copy);
    assert!(!path.exists());
    // One that a crash left goes at the next start.
    fs::write(at.folder.path().join("copy-3.tmp"), "part").unwrap();
    at.restart();
    assert!(!at.folder.path().join("copy-3.tmp").exists());
}

#[test]
fn a_copy_that_is_not_ours_through_and_through_is_refused() {
    let at = OnDisk::fresh();
    at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    for sql in
        ["PRAGMA application_id = 7", "UPDATE state SET value = x'00'", "CREATE TABLE more(x)", "DELETE FROM applied"]
    {
        let copy = at.state().copy().unwrap().unwrap();
        Connection::open(&copy.path).unwrap().execute_batch(sql).unwrap();
        let error = read_copy(&copy.path, &mut |_| Ok(())).unwrap_err();
        assert!(error.is_corruption(), "{sql}: {error}");
    }
}

#[test]
fn writing_goes_on_while_a_snapshot_is_made() {
    let at = OnDisk::fresh();
    let big = "x".repeat(2_000);
    let keys: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    let many: Vec<_> = keys.iter().map(|key| (1, key.as_str(), Some(big.as_str()))).collect();
    at.state().write(&batch("0", &many)).unwrap();
    std::thread::scope(|scope| {
        let making = scope.spawn(|| at.state().snapshot().unwrap().unwrap());
        let mut n = 0;
        while !making.is_finished() {
            n += 1;
            at.state().write(&batch(&n.to_string(), &[(2, "n", Some(&n.to_string()))])).unwrap();
        }
        let made = making.join().unwrap();
        at.state().verify(&made).unwrap();
        at.state().install(&made).unwrap();
        let (marker, rows) = rows(at.state());
        let counted = rows.get(&(2, "n".to_owned())).map_or("0", String::as_str);
        assert_eq!(marker.as_deref(), Some(counted.as_bytes()), "one place in the history");
    });
}

#[test]
fn a_damaged_state_is_refused_by_name() {
    for (sql, what) in [
        ("UPDATE state SET value = x'00'", "table 1 with key 61"),
        ("UPDATE state SET key = x'62'", "table 1 with key 62"),
        ("UPDATE applied SET marker = x'00'", "marker"),
    ] {
        let mut at = OnDisk::fresh();
        at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
        at.intruder().execute_batch(sql).unwrap();
        at.restart();
        let error = at.state().load(&mut |_| Ok(())).unwrap_err();
        assert!(error.is_corruption(), "{error}");
        assert!(error.to_string().contains("state.db") && error.to_string().contains(what), "{error}");
    }
}

/// The names and sizes of all files.
fn listing(at: &OnDisk) -> Vec<(std::ffi::OsString, u64)> {
    let entries = fs::read_dir(at.folder.path()).unwrap().map(Result::unwrap);
    let mut listed: Vec<_> = entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().len())).collect();
    listed.sort();
    listed
}

/// Key and value.
type Stored = (Vec<u8>, Vec<u8>);

fn table_of(folder: &Path, table: u8) -> Result<Vec<Stored>, StoreError> {
    let mut rows = Vec::new();
    read_table(folder, table, &mut |row| {
        rows.push((row.key.to_vec(), row.value.to_vec()));
        Ok(())
    })?;
    Ok(rows)
}

#[test]
fn a_table_is_read_from_outside_while_the_node_runs_and_when_it_does_not_and_nothing_is_left() {
    let mut at = OnDisk::fresh();
    at.state().write(&batch("3", &[(1, "a", Some("one")), (2, "a", Some("two")), (2, "b", Some("three"))])).unwrap();
    let expected = [(b"a".to_vec(), b"two".to_vec()), (b"b".to_vec(), b"three".to_vec())];
    for runs in [true, false] {
        if !runs {
            at.state = None;
        }
        let before = listing(&at);
        assert_eq!(before.iter().any(|(name, _)| name == "state.db-wal"), runs, "{before:?}");
        assert_eq!(table_of(at.folder.path(), 2).unwrap(), expected);
        assert!(table_of(at.folder.path(), 9).unwrap().is_empty());
        assert_eq!(listing(&at), before, "it runs: {runs}");
    }
    at.open();
    assert_eq!(marker(&at), b"3");
}

#[test]
fn a_folder_without_a_state_has_no_rows_and_a_damaged_row_is_told() {
    let folder = TempDir::new().unwrap();
    assert!(table_of(folder.path(), 1).unwrap().is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let mut at = OnDisk::fresh();
    at.state().write(&batch("3", &[(1, "a", Some("one"))])).unwrap();
    at.state = None;
    at.intruder().execute("UPDATE state SET value = x'00'", []).unwrap();
    let error = table_of(at.folder.path(), 1).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("wrong checksum"), "{error}");
}

/// Every byte of a name stands for itself.
#[test]
fn a_folder_of_any_name_is_read_from_outside() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("a %41?b#c=d&\u{e9}");
    fs::create_dir(&path).unwrap();
    let state = SqliteState::open(&DataFolder::open(&path, &owner(1)).unwrap()).unwrap();
    state.write(&batch("3", &[(1, "a", Some("one"))])).unwrap();
    drop(state);
    assert_eq!(table_of(&path, 1).unwrap(), [(b"a".to_vec(), b"one".to_vec())]);
}
