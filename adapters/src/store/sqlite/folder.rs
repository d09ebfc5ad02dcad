//! The data folder: one process, one owner, one life.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Access;
use serde::Deserialize;

use super::database::{self, Schema};
use super::log::LOG_SCHEMA;
use super::state::STATE_SCHEMA;
use super::{privacy, restoring, succession};
use crate::store::identity::{Identity, check_format};
use crate::store::shelf::Shelf;
use crate::store::{Owner, StoreError, durable};

pub(super) const LOCK_FILE: &str = "onespend.lock";
const IDENTITY_FILE: &str = "identity.json";
const SCHEMAS: [&Schema; 2] = [&LOG_SCHEMA, &STATE_SCHEMA];

/// A data folder that this process holds alone, for as long as a clone of this value lives.
#[derive(Debug, Clone)]
pub struct DataFolder(Arc<Held>);

/// What a node would find at its start. See [`DataFolder::look`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundFolder {
    /// No node's: there is no folder, or there are no stores in it. A start makes them.
    Nobodys,
    /// Stores that hold nothing, and not whose. A start makes them again: its first one was interrupted.
    Nameless,
    /// The owner's, and all of it is there.
    Owners,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    identity: Identity,
    is_new: bool,
    _lock: File,
}

impl DataFolder {
    /// Locks the folder, and makes it and its databases when there is none yet. Refuses a folder that is in use, of
    /// another owner, of a newer format, or incomplete.
    pub fn open(path: &Path, owner: &Owner) -> Result<Self, StoreError> {
        make_folder(path)?;
        let lock = take_lock(path)?;
        restoring::refuse_unfinished(path)?;
        succession::refuse_unfinished(path)?;
        Self::held(path, owner, lock)
    }

    /// The same for a folder that is locked already. What is its owner's, and others may read, is closed to them.
    pub(super) fn held(path: &Path, owner: &Owner, lock: File) -> Result<Self, StoreError> {
        let (identity, is_new) = match read_identity(path)? {
            Some(identity) => {
                identity.check_owner(&path.join(IDENTITY_FILE), owner)?;
                require_databases(path)?;
                (identity, false)
            }
            None => (make_databases(path, owner)?, true),
        };
        privacy::close_to_others(path)?;
        Ok(Self(Arc::new(Held { path: path.to_path_buf(), identity, is_new, _lock: lock })))
    }

    /// Looks at a folder as [`DataFolder::open`] does, also while a node has it, and changes nothing; and whether the
    /// current snapshot is there, which opening the state demands. Of what is in the databases it reads only whether
    /// there is anything, where nothing says whose they are.
    ///
    /// # Errors
    /// As [`DataFolder::open`]; and a file of it that this user may not read and write.
    pub fn look(path: &Path, owner: &Owner) -> Result<FoundFolder, StoreError> {
        restoring::refuse_unfinished(path)?;
        succession::refuse_unfinished(path)?;
        let Some(identity) = read_identity(path)? else {
            return look_at_nobodys(path);
        };
        identity.check_owner(&path.join(IDENTITY_FILE), owner)?;
        require_databases(path)?;
        for schema in SCHEMAS {
            // Not by opening: in the process of a node, closing it again would end the locks that SQLite has on it.
            let file = path.join(schema.file);
            let allowed = rustix::fs::access(file.as_path(), Access::READ_OK | Access::WRITE_OK);
            allowed.map_err(|error| StoreError::io(&file, "read and write")(error.into()))?;
        }
        Shelf::look(path, &owner.cluster_id)?;
        Ok(FoundFolder::Owners)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.0.identity.owner()
    }

    /// A name (UUID) that was made with this folder and never occurs in another.
    pub fn instance(&self) -> &str {
        &self.0.identity.instance
    }

    /// Whether its stores were made when it was opened, so that it remembers nothing from before.
    pub fn is_new(&self) -> bool {
        self.0.is_new
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identity
    }
}

/// What a start would make of a folder without an identity.
fn look_at_nobodys(folder: &Path) -> Result<FoundFolder, StoreError> {
    let mut found = FoundFolder::Nobodys;
    for schema in SCHEMAS {
        let path = folder.join(schema.file);
        if database::is_found_to_hold_anything(&path, schema)? {
            return Err(no_identity(folder));
        }
        if fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
            found = FoundFolder::Nameless;
        }
    }
    Ok(found)
}

fn no_identity(folder: &Path) -> StoreError {
    StoreError::Missing { path: folder.join(IDENTITY_FILE), why: "the databases beside it hold data" }
}

pub(super) fn make_folder(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io(path, "create"))
}

pub(super) fn take_lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io(&path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path }),
        Err(TryLockError::Error(cause)) => Err(StoreError::io(&path, "lock")(cause)),
    }
}

pub(super) fn read_identity(folder: &Path) -> Result<Option<Identity>, StoreError> {
    /// Read before the rest, which a newer format may write differently.
    #[derive(Deserialize)]
    struct Format {
        format_version: u32,
    }
    let path = folder.join(IDENTITY_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(StoreError::io(&path, "read")(cause)),
    };
    let damaged = |cause: serde_json::Error| StoreError::corrupt(&path, cause.to_string());
    let format: Format = serde_json::from_slice(&text).map_err(damaged)?;
    check_format(&path, format.format_version)?;
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

/// A folder with an identity was complete once: a database that is gone now took votes or state with it.
pub(super) fn require_databases(folder: &Path) -> Result<(), StoreError> {
    for schema in SCHEMAS {
        let path = folder.join(schema.file);
        if !path.exists() {
            return Err(StoreError::Missing {
                path,
                why: "this data folder was used before; a lost disk must come back under a new node id",
            });
        }
    }
    Ok(())
}

/// Makes the databases, then the identity: so a folder without one never acknowledged anything. What an interrupted first
/// start left is made again; a database that already holds something is refused.
fn make_databases(folder: &Path, owner: &Owner) -> Result<Identity, StoreError> {
    let identity = Identity::fresh(owner);
    for schema in SCHEMAS {
        let path = folder.join(schema.file);
        if database::holds_anything(&path, schema)? {
            return Err(no_identity(folder));
        }
        database::remove(&path)?;
        database::create(&path, schema, &identity)?;
    }
    let text = serde_json::to_vec_pretty(&identity)
        .map_err(|cause| StoreError::io(&folder.join(IDENTITY_FILE), "encode")(io::Error::other(cause)))?;
    durable::replace_file(&folder.join(IDENTITY_FILE), &text)?;
    Ok(identity)
}
