//! Faults on demand, for the harness alone: this module is there only with the cargo feature `failpoints`, which no
//! ordinary build has.
//!
//! The harness writes a small JSON file, whose name is in `ONESPEND_FAILPOINTS`; all its members are optional:
//!
//! | member | what happens while it is set |
//! |---|---|
//! | `fsync_delay_ms` | every commit of a database takes so much longer |
//! | `fsync_error` | every commit of a database fails with EIO; the node must stop |
//! | `disk_full` | every commit of a database fails with ENOSPC; the node must stop |
//! | `disk_read_only` | every commit of a database fails with EROFS; the node must stop |
//! | `disk_free_bytes` | so much room is left on the disk, whatever it says; the node sees it at its next look |
//! | `sign_pause_ms` | the node waits so long between a committed intent and the call of the signer |
//! | `sign_held` | the node waits there until this is no longer set |
//! | `internal_percent` | so many of a hundred requests that the node has answered as leader end with INTERNAL all the same |
//! | `wall_offset_ms` | the wall clock is wrong by so much, either way |
//! | `feature_level` | the node takes itself for a version that knows this feature level |
//!
//! The file is written anew to change them, best under another name and then renamed. No file means no faults.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::store::StoreError;

const VARIABLE: &str = "ONESPEND_FAILPOINTS";
/// How long what was read counts as what is there.
const REREAD: Duration = Duration::from_millis(10);
/// Input/output error (errno.h).
const EIO: i32 = 5;
/// No space left on device (errno.h).
const ENOSPC: i32 = 28;
/// Read-only file system (errno.h).
const EROFS: i32 = 30;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Faults {
    fsync_delay_ms: u64,
    fsync_error: bool,
    disk_full: bool,
    disk_read_only: bool,
    disk_free_bytes: Option<u64>,
    sign_pause_ms: u64,
    sign_held: bool,
    internal_percent: u64,
    wall_offset_ms: i64,
    feature_level: Option<u32>,
}

struct ControlFile {
    path: PathBuf,
    known: Mutex<(Option<Instant>, Faults)>,
}

impl ControlFile {
    fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::default() }
    }

    fn faults(&self) -> Faults {
        self.not_older_than(REREAD)
    }

    fn not_older_than(&self, age: Duration) -> Faults {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.is_none_or(|at| at.elapsed() >= age) {
            // One that does not parse is taken for none: the harness writes whole files.
            let text = fs::read_to_string(&self.path).unwrap_or_default();
            *known = (Some(Instant::now()), serde_json::from_str(&text).unwrap_or_default());
        }
        known.1.clone()
    }
}

fn file() -> Option<&'static ControlFile> {
    static FILE: OnceLock<Option<ControlFile>> = OnceLock::new();
    FILE.get_or_init(|| std::env::var_os(VARIABLE).map(|path| ControlFile::new(path.into()))).as_ref()
}

fn faults() -> Faults {
    file().map(ControlFile::faults).unwrap_or_default()
}

/// As the file says now: what the harness set before it asked for a payment holds for that payment.
fn faults_now() -> Faults {
    file().map(|file| file.not_older_than(Duration::ZERO)).unwrap_or_default()
}

/// A disk that is slow, that fails, or that is full.
pub(crate) fn before_commit(database: &Path) -> Result<(), StoreError> {
    let now = faults();
    thread::sleep(Duration::from_millis(now.fsync_delay_ms));
    now.of_commit(database)
}

impl Faults {
    fn of_commit(&self, database: &Path) -> Result<(), StoreError> {
        let fails = |action, code| Err(StoreError::io(database, action)(io::Error::from_raw_os_error(code)));
        if self.fsync_error {
            return fails("synchronise", EIO);
        }
        if self.disk_full {
            return fails("write", ENOSPC);
        }
        if self.disk_read_only {
            return fails("write", EROFS);
        }
        Ok(())
    }
}

/// A process that is held up after an intent is committed and before the signer is called. Blocks.
pub fn before_signing() {
    thread::sleep(Duration::from_millis(faults_now().sign_pause_ms));
    while faults_now().sign_held {
        thread::sleep(REREAD);
    }
}

/// Whether the answer that is about to be given is one of those that are defects instead.
pub fn answers_with_a_defect() -> bool {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    in_share(ANSWERS.fetch_add(1, Ordering::Relaxed), faults().internal_percent)
}

/// Whether the one with this number, from 0, is in a share of all: evenly, so that any hundred in a row have as many.
fn in_share(number: u64, percent: u64) -> bool {
    let before = |number: u64| u128::from(number) * u128::from(percent) / 100;
    before(number + 1) > before(number)
}

/// The room that is left on the disk.
pub(crate) fn disk_free_bytes() -> Option<u64> {
    faults().disk_free_bytes
}

/// What a later version would know.
pub fn feature_level() -> Option<u32> {
    faults().feature_level
}

/// The wall clock, with its fault.
pub fn wall_clock() -> SystemTime {
    let (now, offset_ms) = (SystemTime::now(), faults().wall_offset_ms);
    let offset = Duration::from_millis(offset_ms.unsigned_abs());
    let moved = if offset_ms < 0 { now.checked_sub(offset) } else { now.checked_add(offset) };
    moved.unwrap_or(now)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_is_read_anew_and_no_file_means_no_faults() {
        let folder = tempfile::tempdir().unwrap();
        let file = ControlFile::new(folder.path().join("failpoints.json"));
        assert_eq!(file.faults(), Faults::default());
        fs::write(&file.path, r#"{"fsync_error": true, "wall_offset_ms": -5}"#).unwrap();
        thread::sleep(REREAD);
        assert_eq!(file.faults(), Faults { fsync_error: true, wall_offset_ms: -5, ..Faults::default() });
        fs::write(&file.path, r#"{"fsync_eror": true}"#).unwrap();
        thread::sleep(REREAD);
        assert_eq!(file.faults(), Faults::default(), "a misspelt fault is none");
    }

    #[test]
    fn a_share_is_the_same_in_any_hundred_in_a_row() {
        for percent in [0, 1, 50, 80, 100] {
            for first in [0, 7, 1_000_003] {
                let hit = (first..first + 100).filter(|number| in_share(*number, percent)).count();
                assert_eq!(u64::try_from(hit).unwrap(), percent, "from {first}");
            }
        }
    }

    #[test]
    fn a_full_disk_is_told_from_one_that_fails() {
        let database = Path::new("raft.db");
        let full = Faults { disk_full: true, ..Faults::default() }.of_commit(database).unwrap_err();
        assert!(full.is_disk_full() && full.to_string().contains("No space left on device"), "{full}");
        let failing = Faults { fsync_error: true, ..Faults::default() }.of_commit(database).unwrap_err();
        assert!(!failing.is_disk_full(), "{failing}");
        assert!(Faults::default().of_commit(database).is_ok());
    }
}
