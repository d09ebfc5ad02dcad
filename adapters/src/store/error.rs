//! The one error of both storage ports.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Whom a data folder, database or snapshot belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's name, as configured under `cluster.id`.
    pub cluster_id: String,
    /// The node's number, as configured under `node.id`. Never used twice in a cluster.
    pub node_id: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster \"{}\"", self.node_id, self.cluster_id)
    }
}

/// Why storage could not do what was asked.
///
/// A node never continues after an error of a write: what is on disk is then unknown, and a later success would lie about
/// earlier data. So a store that failed once refuses everything afterwards with [`StoreError::Failed`].
/// Clones share the cause, so one failed commit can be told to every caller that waited for it.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: "open", "rename".
        action: &'static str,
        /// What the operating system said.
        cause: Arc<io::Error>,
    },
    /// SQLite refused, for another reason than damage.
    #[error("{}: {cause}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        cause: Arc<rusqlite::Error>,
    },
    /// A file does not hold what was written to it. It is never repaired; a human decides.
    #[error("{} is damaged: {what}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong in it.
        what: String,
    },
    /// A file that must be there is not.
    #[error("{} is missing: {why}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Why it must be there.
        why: &'static str,
    },
    /// A folder into which a new state should be put holds something already.
    #[error("{} is not empty: it has {found}", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// A backup was being put into the folder, and that was not finished. No node may start on what is there.
    #[error("{} holds a restore that was not finished: empty the folder, and restore again", path.display())]
    HalfRestored {
        /// The folder.
        path: PathBuf,
    },
    /// The stores in the folder were being replaced by those of a new cluster, and that was not finished. No node may
    /// start on what is there.
    #[error(
        "{} holds a recovery that was not finished: run `onespend cluster recover` again, with the same configuration",
        path.display()
    )]
    HalfRecovered {
        /// The folder.
        path: PathBuf,
    },
    /// Another cluster goes on from the state in the folder. No node may start on what is there.
    #[error("{} was set aside: another cluster goes on from this state, and no node may", path.display())]
    Superseded {
        /// The folder.
        path: PathBuf,
    },
    /// Written by a later version of this program.
    #[error("{} has format {found}; this version reads up to format {supported}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format in the file.
        found: u32,
        /// The newest format that this program reads.
        supported: u32,
    },
    /// Belongs to another cluster or node.
    #[error("{} belongs to {found}, not to {expected}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The owner named in the file.
        found: Owner,
        /// The owner that opens it.
        expected: Owner,
    },
    /// Belongs to this node, but to another life of its data folder: one file was replaced and the others were not.
    #[error("{} belongs to data folder instance {found}, the folder is instance {expected}", path.display())]
    OtherInstance {
        /// The file.
        path: PathBuf,
        /// The instance named in the file.
        found: String,
        /// The instance of the folder.
        expected: String,
    },
    /// Another process has the data folder open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A snapshot's content is not what its checksum promises.
    #[error("{} has checksum {found}, expected {expected}", path.display())]
    Checksum {
        /// The snapshot.
        path: PathBuf,
        /// SHA-256 of the content, hexadecimal.
        found: String,
        /// SHA-256 that was recorded or announced, hexadecimal.
        expected: String,
    },
    /// The caller would leave a hole in the log. Nothing was written.
    #[error("log index {found} would leave a hole, expected {expected}")]
    Hole {
        /// The index that continues the log.
        expected: u64,
        /// The index that was given.
        found: u64,
    },
    /// The store was stopped before.
    #[error("the store is stopped")]
    Stopped,
    /// The store failed before and refuses everything since.
    #[error("refused after an earlier failure: {first}")]
    Failed {
        /// The first failure.
        first: Arc<StoreError>,
    },
}

impl StoreError {
    /// Did a file hold something else than was written to it?
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Checksum { .. } => true,
            Self::Failed { first } => first.is_corruption(),
            _ => false,
        }
    }

    /// Is the disk (or the quota) full?
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { cause, .. } => matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
            Self::Sqlite { cause, .. } => cause.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Failed { first } => first.is_disk_full(),
            _ => false,
        }
    }

    /// May the same call succeed later in the same process? Only a folder that another process still holds, and a
    /// snapshot that arrived damaged and can be fetched again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::Checksum { .. })
    }

    /// What every call after this error gets.
    pub(crate) fn sticky(&self) -> Self {
        match self {
            Self::Failed { .. } => self.clone(),
            first => Self::Failed { first: Arc::new(first.clone()) },
        }
    }

    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { path, action, cause: Arc::new(cause) }
    }

    pub(crate) fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let path = path.to_path_buf();
        move |cause| match cause.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::corrupt(&path, cause.to_string()),
            _ => Self::Sqlite { path: path.clone(), cause: Arc::new(cause) },
        }
    }

    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), what: what.into() }
    }
}
