//! The contract of [`StateStore`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::{RowBatch, RowChange, SnapshotDigest, SnapshotFile, StateStore, StoreError};

/// An implementation, with what a test must be able to do to it.
pub(crate) trait StateFixture {
    fn fresh() -> Self;
    fn state(&self) -> &dyn StateStore;
    /// Closes the state and opens it again.
    fn restart(&mut self);
    /// From now on the disk refuses writes.
    fn break_disk(&self);
}

macro_rules! state_contract {
    ($fixture:ty) => {
        crate::store::contract::state::state_contract!($fixture:
            a_fresh_state_is_empty
            batches_are_there_after_a_restart
            the_later_change_of_a_row_counts
            tables_and_keys_do_not_mix
            a_row_that_is_not_understood_names_itself
            a_snapshot_is_the_state_at_its_marker
            two_snapshots_are_kept
            a_snapshot_travels_to_another_node
            a_current_snapshot_can_be_installed_again
            a_damaged_transfer_changes_nothing
            a_changed_file_is_refused_before_anything_is_touched
            a_snapshot_under_another_marker_is_refused
            a_dropped_transfer_leaves_no_file
            a_failure_is_final
        );
    };
    ($fixture:ty: $($check:ident)*) => {
        $(#[test]
        fn $check() {
            crate::store::contract::state::$check::<$fixture>(<$fixture as crate::store::contract::state::StateFixture>::fresh());
        })*
    };
}
pub(crate) use state_contract;

type Rows = BTreeMap<(u8, String), String>;

pub(crate) fn batch(marker: &str, changes: &[(u8, &str, Option<&str>)]) -> RowBatch {
    let rows = changes.iter().map(|(table, key, value)| RowChange {
        table: *table,
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    });
    RowBatch { marker: marker.as_bytes().to_vec(), rows: rows.collect() }
}

/// The marker and all rows.
pub(crate) fn rows(state: &dyn StateStore) -> (Option<Vec<u8>>, Rows) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut rows = Rows::new();
    let mut order = Vec::new();
    let marker = state
        .load(&mut |row| {
            rows.insert((row.table, text(row.key)), text(row.value));
            order.push((row.table, row.key.to_vec()));
            Ok(())
        })
        .unwrap();
    assert!(order.is_sorted(), "rows come in order");
    (marker, rows)
}

fn expect(state: &dyn StateStore, marker: &str, expected: &[(u8, &str, &str)]) {
    let expected = expected.iter().map(|(table, key, value)| ((*table, (*key).to_owned()), (*value).to_owned()));
    assert_eq!(rows(state), (Some(marker.as_bytes().to_vec()), expected.collect()));
}

/// Sends a snapshot in small parts.
pub(crate) fn transfer(from: &SnapshotFile, to: &dyn StateStore) -> Result<SnapshotFile, StoreError> {
    let mut incoming = to.receive(from.digest.clone())?;
    for chunk in std::fs::read(&from.path).unwrap().chunks(1_000) {
        incoming.write(chunk)?;
    }
    incoming.finish()
}

pub(crate) fn a_fresh_state_is_empty<F: StateFixture>(mut at: F) {
    for _ in 0..2 {
        assert_eq!(rows(at.state()), (None, Rows::new()));
        assert!(at.state().snapshot().unwrap().is_none());
        assert!(at.state().current_snapshot().unwrap().is_none());
        at.restart();
    }
}

pub(crate) fn batches_are_there_after_a_restart<F: StateFixture>(mut at: F) {
    at.state().write(&batch("1", &[(1, "a", Some("x")), (1, "b", Some("y")), (2, "a", Some(""))])).unwrap();
    at.state().write(&batch("2", &[(1, "a", None), (1, "b", Some("z")), (1, "unknown", None)])).unwrap();
    at.state().write(&batch("3", &[])).unwrap();
    for _ in 0..2 {
        expect(at.state(), "3", &[(1, "b", "z"), (2, "a", "")]);
        at.restart();
    }
}

pub(crate) fn the_later_change_of_a_row_counts<F: StateFixture>(at: F) {
    let changes = [(1, "a", Some("x")), (1, "a", None), (1, "b", None), (1, "b", Some("y"))];
    at.state().write(&batch("1", &changes)).unwrap();
    expect(at.state(), "1", &[(1, "b", "y")]);
}

pub(crate) fn tables_and_keys_do_not_mix<F: StateFixture>(at: F) {
    at.state().write(&batch("1", &[(0, "", Some("empty")), (255, "", Some("last")), (1, "\0", Some("zero"))])).unwrap();
    expect(at.state(), "1", &[(0, "", "empty"), (1, "\0", "zero"), (255, "", "last")]);
}

pub(crate) fn a_row_that_is_not_understood_names_itself<F: StateFixture>(at: F) {
    at.state().write(&batch("1", &[(7, "a", Some("x"))])).unwrap();
    let error = at.state().load(&mut |_| Err("from the future".into())).unwrap_err();
    assert!(error.is_corruption());
    assert!(error.to_string().contains("table 7") && error.to_string().contains("from the future"), "{error}");
    expect(at.state(), "1", &[(7, "a", "x")]);
}

pub(crate) fn a_snapshot_is_the_state_at_its_marker<F: StateFixture>(mut at: F) {
    at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    let first = at.state().snapshot().unwrap().unwrap();
    at.state().write(&batch("2", &[(1, "a", Some("y"))])).unwrap();
    at.state().verify(&first).unwrap();
    assert_eq!(first.digest.marker, b"1");
    assert_eq!(first.digest.size_bytes, std::fs::metadata(&first.path).unwrap().len());
    for _ in 0..2 {
        let current = at.state().current_snapshot().unwrap().unwrap();
        assert_eq!((&current.path, &current.digest), (&first.path, &first.digest));
        at.restart();
    }
    at.state().install(&first).unwrap();
    expect(at.state(), "1", &[(1, "a", "x")]);
}

pub(crate) fn two_snapshots_are_kept<F: StateFixture>(mut at: F) {
    let mut made = Vec::new();
    for n in 0..4 {
        at.state().write(&batch(&n.to_string(), &[(1, "a", Some("x"))])).unwrap();
        made.push(at.state().snapshot().unwrap().unwrap());
    }
    let there: Vec<bool> = made.iter().map(|file| file.path.exists()).collect();
    assert_eq!(there, [false, false, true, true]);
    at.restart();
    assert_eq!(at.state().current_snapshot().unwrap().unwrap().path, made[3].path);
}

pub(crate) fn a_snapshot_travels_to_another_node<F: StateFixture>(from: F) {
    let big = "x".repeat(5_000);
    from.state().write(&batch("9", &[(1, "a", Some(&big)), (3, "c", Some("z"))])).unwrap();
    let sent = from.state().snapshot().unwrap().unwrap();
    let mut to = F::fresh();
    to.state().write(&batch("2", &[(1, "b", Some("old"))])).unwrap();
    to.state().snapshot().unwrap();
    let received = transfer(&sent, to.state()).unwrap();
    expect(to.state(), "2", &[(1, "b", "old")]);
    let installed = to.state().install(&received).unwrap();
    assert_eq!(installed.digest, sent.digest);
    drop(received);
    for _ in 0..2 {
        expect(to.state(), "9", &[(1, "a", &big), (3, "c", "z")]);
        let current = to.state().current_snapshot().unwrap().unwrap();
        assert_eq!(current.path, installed.path);
        to.state().verify(&current).unwrap();
        to.restart();
    }
    to.state().write(&batch("10", &[(3, "c", None)])).unwrap();
    to.restart();
    expect(to.state(), "10", &[(1, "a", &big)]);
}

pub(crate) fn a_current_snapshot_can_be_installed_again<F: StateFixture>(mut at: F) {
    at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    let made = at.state().snapshot().unwrap().unwrap();
    at.state().write(&batch("2", &[(1, "a", Some("y"))])).unwrap();
    let installed = at.state().install(&made).unwrap();
    assert_eq!(installed.path, made.path, "it is not copied");
    at.restart();
    expect(at.state(), "1", &[(1, "a", "x")]);
}

pub(crate) fn a_damaged_transfer_changes_nothing<F: StateFixture>(at: F) {
    at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    let made = at.state().snapshot().unwrap().unwrap();
    let content = std::fs::read(&made.path).unwrap();
    let attempt = |bytes: &[u8]| {
        let mut incoming = at.state().receive(made.digest.clone()).unwrap();
        bytes.chunks(777).try_for_each(|chunk| incoming.write(chunk)).and_then(|()| incoming.finish())
    };
    let mut flipped = content.clone();
    flipped[content.len() / 2] ^= 1;
    for bad in [&content[1..], &[&content[..], b"!"].concat(), &flipped, b""] {
        let error = attempt(bad).unwrap_err();
        assert!(matches!(error, StoreError::Checksum { .. }), "{error}");
        assert!(error.is_retryable() && error.is_corruption());
    }
    attempt(&content).unwrap();
    expect(at.state(), "1", &[(1, "a", "x")]);
}

pub(crate) fn a_changed_file_is_refused_before_anything_is_touched<F: StateFixture>(from: F) {
    from.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    let sent = from.state().snapshot().unwrap().unwrap();
    let mut to = F::fresh();
    to.state().write(&batch("2", &[(1, "b", Some("old"))])).unwrap();
    let received = transfer(&sent, to.state()).unwrap();
    let mut content = std::fs::read(&received.path).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    std::fs::write(&received.path, content).unwrap();
    let error = to.state().install(&received).unwrap_err();
    assert!(matches!(error, StoreError::Checksum { .. }), "{error}");
    assert!(error.to_string().contains(received.path.to_str().unwrap()), "{error}");
    for _ in 0..2 {
        expect(to.state(), "2", &[(1, "b", "old")]);
        assert!(to.state().current_snapshot().unwrap().is_none());
        assert!(to.state().failed().is_none());
        to.restart();
    }
}

pub(crate) fn a_snapshot_under_another_marker_is_refused<F: StateFixture>(from: F) {
    from.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    let mut sent = from.state().snapshot().unwrap().unwrap();
    sent.digest = SnapshotDigest { marker: b"2".to_vec(), ..sent.digest };
    let to = F::fresh();
    let received = transfer(&sent, to.state()).unwrap();
    assert!(to.state().install(&received).unwrap_err().is_corruption());
    assert_eq!(rows(to.state()).0, None);
}

pub(crate) fn a_dropped_transfer_leaves_no_file<F: StateFixture>(at: F) {
    at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    let made = at.state().snapshot().unwrap().unwrap();
    let folder = made.path.parent().unwrap();
    let files = || std::fs::read_dir(folder).unwrap().count();
    let before = files();
    let mut one = at.state().receive(made.digest.clone()).unwrap();
    one.write(b"part").unwrap();
    let two = transfer(&made, at.state()).unwrap();
    assert_eq!(files(), before + 2);
    drop((one, two));
    assert_eq!(files(), before);
}

pub(crate) fn a_failure_is_final<F: StateFixture>(mut at: F) {
    at.state().write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
    at.break_disk();
    let told = Arc::new(AtomicU64::new(0));
    let _ = at.state().write(&batch("2", &[(1, "a", Some("y"))])).unwrap_err();
    let count = told.clone();
    at.state().on_failure(Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(at.state().failed().is_some());
    for _ in 0..2 {
        let refused = at.state().write(&batch("3", &[])).unwrap_err();
        assert!(matches!(refused, StoreError::Failed { .. }), "{refused}");
    }
    assert!(at.state().snapshot().is_err());
    at.restart();
    expect(at.state(), "1", &[(1, "a", "x")]);
}
