//! The data folder: one process, one owner, one life.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::database::{self, Schema};
use super::log::LOG_SCHEMA;
use crate::store::{Owner, StoreError};

/// The newest format of the files that this version reads, and the one that it writes.
pub const FORMAT_VERSION: u32 = 1;

const LOCK_FILE: &str = "onespend.lock";
const IDENTITY_FILE: &str = "identity.json";
const SCHEMAS: [&Schema; 1] = [&LOG_SCHEMA];

/// Whose files these are. Every file of the folder carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) format_version: u32,
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    /// Made new with the folder, so that files of two folders of the same node cannot be mixed.
    pub(crate) instance: String,
}

impl Identity {
    fn fresh(owner: &Owner) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            cluster_id: owner.cluster_id.clone(),
            node_id: owner.node_id,
            instance: uuid::Uuid::new_v4().to_string(),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner {
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id,
        }
    }

    /// Refuses a file that this version cannot read or that is not `owner`'s.
    pub(crate) fn check_owner(&self, path: &Path, owner: &Owner) -> Result<(), StoreError> {
        check_format(path, self.format_version)?;
        if self.owner() != *owner {
            return Err(StoreError::Foreign {
                path: path.to_path_buf(),
                found: self.owner(),
                expected: owner.clone(),
            });
        }
        Ok(())
    }

    /// Refuses a file of another life of this folder as well.
    pub(crate) fn check_same(&self, path: &Path, folder: &Self) -> Result<(), StoreError> {
        self.check_owner(path, &folder.owner())?;
        if self.instance != folder.instance {
            return Err(StoreError::OtherInstance {
                path: path.to_path_buf(),
                found: self.instance.clone(),
                expected: folder.instance.clone(),
            });
        }
        Ok(())
    }
}

pub(crate) fn check_format(path: &Path, found: u32) -> Result<(), StoreError> {
    if found > FORMAT_VERSION {
        return Err(StoreError::NewerFormat {
            path: path.to_path_buf(),
            found,
            supported: FORMAT_VERSION,
        });
    }
    Ok(())
}

/// A data folder that this process holds alone, for as long as a clone of this value lives.
#[derive(Debug, Clone)]
pub struct DataFolder(Arc<Held>);

#[derive(Debug)]
struct Held {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

impl DataFolder {
    /// Locks the folder, and makes it and its databases when there is none yet. Refuses a folder that is in use, of
    /// another owner, of a newer format, or incomplete.
    pub fn open(path: &Path, owner: &Owner) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(StoreError::io(path, "create"))?;
        let lock = take_lock(path)?;
        let identity = match read_identity(path)? {
            Some(identity) => {
                identity.check_owner(&path.join(IDENTITY_FILE), owner)?;
                require_databases(path)?;
                identity
            }
            None => make_databases(path, owner)?,
        };
        Ok(Self(Arc::new(Held {
            path: path.to_path_buf(),
            identity,
            _lock: lock,
        })))
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

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identity
    }
}

fn take_lock(folder: &Path) -> Result<File, StoreError> {
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

fn read_identity(folder: &Path) -> Result<Option<Identity>, StoreError> {
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
fn require_databases(folder: &Path) -> Result<(), StoreError> {
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
            return Err(StoreError::Missing {
                path: folder.join(IDENTITY_FILE),
                why: "the databases beside it hold data",
            });
        }
        database::remove(&path)?;
        database::create(&path, schema, &identity)?;
    }
    let text = serde_json::to_vec_pretty(&identity).map_err(|cause| {
        StoreError::io(&folder.join(IDENTITY_FILE), "encode")(io::Error::other(cause))
    })?;
    replace_file(&folder.join(IDENTITY_FILE), &text)?;
    Ok(identity)
}

/// Writes a small file so that a crash leaves the old content or the new one, never a part.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let temporary = path.with_extension("tmp");
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(StoreError::io(&temporary, "create"))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(StoreError::io(&temporary, "write"))?;
    fs::rename(&temporary, path).map_err(StoreError::io(path, "rename to"))?;
    sync_folder_of(path)
}

/// Makes renames and removals in the folder of `path` durable.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::io(folder, "sync"))
}
