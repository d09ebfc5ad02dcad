//! Backups: the state of a running node in a file, and a new cluster that begins with one (ADR 0019).
//!
//! | file | holds |
//! |---|---|
//! | `making` | a copy of this node's state, described; one at a time |
//! | `schedule` | making one every so often, and which of the earlier ones may go |
//! | `contents` | what a file holds, believed only when all of it is right |
//! | `restore` | a new data folder out of it |

mod config;
mod contents;
#[cfg(test)]
mod golden_tests;
mod making;
mod restore;
mod schedule;

use std::time::UNIX_EPOCH;

use crate::clock;

pub use config::{Config, Place};
pub(crate) use config::{DEFAULT_REGION, DEFAULT_RETRIES, DEFAULT_TIMEOUT_MS, check_region};
pub(crate) use contents::{Contents, UnusableBackup};
pub(crate) use making::{BackupSource, Made, MakeError, Turn};
pub(crate) use restore::{Restored, name_of, restore};
pub(crate) use schedule::{Schedule, run};

/// The wall clock, in Unix milliseconds.
pub(crate) fn wall_ms() -> u64 {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
