//! What a backup holds. All of it is looked at: its sums, its rows, and the rules that every state keeps.

use std::path::{Path, PathBuf};

use onespend_adapters::backup::{Backup, BackupError, Content, Header};
use onespend_adapters::store::Row;
use onespend_adapters::store::sqlite::{StateCopy, read_copy};
use onespend_core::invariant;
use onespend_core::state::State;

use crate::feature_level;
use crate::raft::place_of;

/// A backup of which everything is known to be right.
pub(crate) struct Contents {
    pub(crate) header: Header,
    /// In memory.
    pub(crate) state: State,
    /// The same, as rows.
    pub(crate) content: Content,
}

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableBackup {
    /// The file is not there, not whole, or not of this version.
    #[error(transparent)]
    File(#[from] BackupError),
    /// The file is what was written, and what was written contradicts itself.
    #[error("the content of {} is refused: {what}", path.display())]
    State {
        /// The backup.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Contents {
    /// Reads a backup and checks everything, also one that another machine keeps. `scratch` is a folder with room for its content; the state is in memory
    /// afterwards. `progress` is told how many bytes of how many were read.
    pub(crate) fn read(
        mut backup: Backup,
        scratch: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, UnusableBackup> {
        let header = backup.header().clone();
        let content = backup.extract(scratch, &mut |read| progress(read, header.size_bytes))?;
        let mut state = State::default();
        let copy = content.rows(&mut |row| load(&mut state, row))?;
        state.finish_loading();
        contradiction(&header, &copy, &state)
            .map_err(|what| UnusableBackup::State { path: backup.path().to_path_buf(), what })?;
        Ok(Self { header, state, content })
    }
}

/// Checks what a backup is about to be made of as it would be checked when it is read. The state is in memory meanwhile.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn check_copy(header: &Header, copy: &Path) -> Result<(), String> {
    let mut state = State::default();
    let read = read_copy(copy, &mut |row| load(&mut state, row)).map_err(|error| error.to_string())?;
    state.finish_loading();
    contradiction(header, &read, &state)
}

fn load(state: &mut State, row: Row<'_>) -> Result<(), String> {
    state.load_row(row.table, row.key, row.value).map_err(|unreadable| unreadable.to_string())
}

fn contradiction(header: &Header, copy: &StateCopy, state: &State) -> Result<(), String> {
    let differ = |what: &str, header: &dyn std::fmt::Display, content: &dyn std::fmt::Display| {
        Err(format!("the header says {what} {header}, the content {content}"))
    };
    if header.cluster_id != copy.owner.cluster_id {
        return differ("cluster", &header.cluster_id, &copy.owner.cluster_id);
    }
    if header.node_id != copy.owner.node_id {
        return differ("node", &header.node_id, &copy.owner.node_id);
    }
    let place = place_of(&copy.marker).map_err(|error| error.to_string())?;
    if (header.index, header.term) != (place.index.0, place.term) {
        let shown = |index: u64, term: u64| format!("{index} of term {term}");
        return differ("log index", &shown(header.index, header.term), &shown(place.index.0, place.term));
    }
    if state.applied() != place.index {
        return Err(format!("the rows are of log index {}, and are said to be of {}", state.applied(), place.index));
    }
    if state.hash() != header.state_hash {
        return Err("the state has another hash than the header says".to_owned());
    }
    feature_level::check(state.feature_level())?;
    invariant::check(state).map_err(|violation| violation.to_string())
}
