//! The one error of backups.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::store::StoreError;

/// A part of a backup file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What says that it is a backup, and of which form.
    Beginning,
    /// Whose state it is, and of when.
    Header,
    /// The state.
    Content,
    /// The sums.
    End,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Beginning => "beginning",
            Self::Header => "header",
            Self::Content => "content",
            Self::End => "end",
        })
    }
}

/// Why a backup cannot be made, read or kept.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The operating system refused, or the storage at an address.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// The file or folder, or the address.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// What was said.
        cause: io::Error,
    },
    /// The file does not hold what was written to it, or not all of it.
    #[error("{} is damaged in its {part}: {what}", path.display())]
    Damaged {
        /// The backup.
        path: PathBuf,
        /// Where.
        part: Part,
        /// What is wrong.
        what: String,
    },
    /// Written by a later version of this program.
    #[error("{} has form {found}; this version reads form {supported}", path.display())]
    OtherForm {
        /// The backup.
        path: PathBuf,
        /// The form in the file.
        found: u32,
        /// The form that this program reads.
        supported: u32,
    },
    /// The file is whole, but what it holds is no state that this version can use.
    #[error("the content of {} is refused: {cause}", path.display())]
    Content {
        /// The backup.
        path: PathBuf,
        /// What the store said of the database; its path is that of a copy.
        cause: StoreError,
    },
    /// A file of this name is there.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("{} is being written by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

impl BackupError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { path, action, cause }
    }

    pub(super) fn damaged(path: &Path, part: Part, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), part, what: what.into() }
    }
}
