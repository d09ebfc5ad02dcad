//! Storage in SQLite: two databases in one data folder.
//!
//! | file | holds | written |
//! |---|---|---|
//! | `raft.db` | the log, the vote | before it is acknowledged; one fsync for all that is waiting |
//! | `state.db` | rows of the state at one index | behind, without waiting |
//! | `snapshot-<n>.db`, `.json` | the state at one index; its checksum | once, then never changed |
//! | `identity.json` | whose folder it is; written last when the folder is made | once |
//! | `copy-*.tmp` | the state at one index, on its way into a backup | removed afterwards, or at the next start |
//! | `RESTORING` | that a backup is being put into this folder (`restoring.rs`): it belongs to no node yet | once |
//! | `RECOVERING` | that the stores are being replaced by those of a new cluster (`succession.rs`), and how to go on | once |
//! | `superseded-<cluster>/` | the stores that were replaced, marked `SUPERSEDED` | once |
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
mod privacy;
mod restored;
mod restoring;
mod state;
mod succession;

pub use differing::DifferingMark;
pub use folder::{DataFolder, FoundFolder};
pub use log::{LogOptions, SqliteLog};
pub use restored::RestoredMark;
pub use restoring::NewFolder;
pub use state::{SqliteState, StateCopy, read_copy, read_table};
pub use succession::{StoresCopy, Survivor, found_in, resume};
