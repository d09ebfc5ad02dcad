//! Storage in SQLite: two databases in one data folder.
//!
//! | file | holds | written |
//! |---|---|---|
//! | `raft.db` | the log, the vote | before it is acknowledged; one fsync for all that is waiting |
//! | `state.db` | rows of the state at one index | behind, without waiting |
//! | `snapshot-<n>.db`, `.json` | the state at one index; its checksum | once, then never changed |
//! | `identity.json` | whose folder it is; written last when the folder is made | once |
//! | `RESTORED` | whether the folder came out of a backup (`restored.rs`) | once |
//! | `onespend.lock` | the exclusive lock of the process | |

#[cfg(test)]
mod crash_tests;
mod database;
mod differing;
mod folder;
#[cfg(test)]
mod folder_tests;
mod log;
mod restored;
mod state;

pub use differing::DifferingMark;
pub use folder::DataFolder;
pub use log::{LogOptions, SqliteLog};
pub use restored::RestoredMark;
pub use state::SqliteState;
