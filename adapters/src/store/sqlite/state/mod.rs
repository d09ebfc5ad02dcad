//! The rows of the state in `state.db`, and its snapshots.

mod install;
mod table;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::{Connection, OpenFlags};

pub(crate) use self::table::STATE_SCHEMA;
use super::{DataFolder, database};
use crate::store::failure::{Failure, lock};
use crate::store::shelf::Shelf;
use crate::store::snapshot::sha256_of;
use crate::store::{
    FailureWatcher, IncomingSnapshot, Owner, RowBatch, RowVisitor, SnapshotDigest, SnapshotFile, StateStore,
    StoreError, durable, free_bytes,
};

/// What a copy of the state leaves free for the log: more than a reserve of the usual size is given up for.
const BESIDE_A_COPY: u64 = 32 << 20;

/// The state in a data folder.
pub struct SqliteState {
    path: PathBuf,
    /// `None` only after an installation that failed half-way; then the failure is set, too.
    db: Mutex<Option<Connection>>,
    /// Held while a snapshot is made or installed: one at a time. Always taken before `db`.
    shelf: Mutex<Shelf>,
    failure: Failure,
    folder: DataFolder,
}

impl SqliteState {
    /// Opens the state. First completes an installation that a crash interrupted.
    pub fn open(folder: &DataFolder) -> Result<Self, StoreError> {
        let path = folder.path().join(STATE_SCHEMA.file);
        let db = database::open(&path, &STATE_SCHEMA, folder.identity())?;
        let shelf = Shelf::open(folder.path(), &folder.owner().cluster_id)?;
        let state = Self {
            path,
            db: Mutex::new(Some(db)),
            shelf: Mutex::new(shelf),
            failure: Failure::default(),
            folder: folder.clone(),
        };
        state.complete_installation()?;
        Ok(state)
    }

    /// Runs `work` on the open database, unless something failed before.
    fn with_db<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.failure.check()?;
        let mut db = lock(&self.db);
        let db = db.as_mut().ok_or(StoreError::Stopped)?;
        work(db)
    }

    /// Remembers an error that leaves in doubt what is on disk.
    fn fatal<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.failure.set(error);
        }
        result
    }

    /// Copies the state as it is now into a file, on a connection of its own so that writing goes on.
    fn copy_to(&self, target: &Path) -> Result<SnapshotDigest, StoreError> {
        let source = database::open_reader(&self.path)?;
        let name = target
            .to_str()
            .ok_or_else(|| StoreError::io(target, "name")(std::io::Error::other("the path is not valid UTF-8")))?;
        durable::create_private(target)?;
        source.execute("VACUUM INTO ?1", [name]).map_err(StoreError::sqlite(&self.path))?;
        durable::sync_file(target)?;
        let marker = table::read_marker(&open_snapshot(target)?, target)?;
        let (sha256, size_bytes) =
            std::fs::File::open(target).and_then(sha256_of).map_err(StoreError::io(target, "read"))?;
        Ok(SnapshotDigest { marker: marker.unwrap_or_default(), sha256, size_bytes })
    }

    /// Waits until all that was written is in the database file and on disk. Without it a power failure could set the state
    /// back to before a snapshot up to which the log was purged.
    fn checkpoint(db: &Connection, path: &Path) -> Result<(), StoreError> {
        let busy: i64 =
            db.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(0)).map_err(StoreError::sqlite(path))?;
        if busy != 0 {
            let cause = std::io::Error::other("a reader holds it");
            return Err(StoreError::io(path, "checkpoint")(cause));
        }
        Ok(())
    }
}

/// Whose state a database outside of any data folder is, and at which place in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCopy {
    /// The node that made it.
    pub owner: Owner,
    /// As it was given to `write`.
    pub marker: Vec<u8>,
}

/// Reads all of a copy: is it a whole database of this form, with no table, trigger or constraint that is not ours, and is
/// every row what was written? The rows come in order of table and key.
///
/// # Errors
/// [`StoreError`] names the file and what is wrong.
pub fn read_copy(path: &Path, visit: &mut RowVisitor<'_>) -> Result<StateCopy, StoreError> {
    let mut db = open_snapshot(path)?;
    database::check(&db, path, &STATE_SCHEMA)?;
    let owner = database::read_identity(&db, path)?.owner();
    let marker = table::load(&mut db, path, visit)?;
    let marker = marker.ok_or_else(|| StoreError::corrupt(path, "it holds no state"))?;
    Ok(StateCopy { owner, marker })
}

/// The rows of one table of the state in a data folder, whether its node runs or not, as they were written behind last; none
/// where there is no state. Changes nothing in the folder, and holds nobody up.
///
/// # Errors
/// [`StoreError`] names the file and what is wrong.
pub fn read_table(folder: &Path, table: u8, visit: &mut RowVisitor<'_>) -> Result<(), StoreError> {
    let path = folder.join(STATE_SCHEMA.file);
    if !path.exists() {
        return Ok(());
    }
    let db = database::open_from_outside(&path)?;
    database::check_kind(&db, &path, &STATE_SCHEMA)?;
    table::load_one(&db, &path, table, visit)
}

/// Whether so many copies of so many bytes leave enough.
fn has_room(free: u64, bytes: u64, copies: u64) -> bool {
    free >= bytes.saturating_mul(copies).saturating_add(BESIDE_A_COPY)
}

fn no_room(folder: &Path, action: &'static str) -> StoreError {
    StoreError::io(folder, action)(std::io::ErrorKind::StorageFull.into())
}

/// Opens a snapshot for reading.
fn open_snapshot(path: &Path) -> Result<Connection, StoreError> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(StoreError::sqlite(path))
}

impl StateStore for SqliteState {
    fn load(&self, visit: &mut RowVisitor<'_>) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_db(|db| table::load(db, &self.path, visit))
    }

    fn write(&self, batch: &RowBatch) -> Result<(), StoreError> {
        #[cfg(feature = "failpoints")]
        self.fatal(crate::failpoints::before_commit(&self.path))?;
        self.with_db(|db| self.fatal(table::write(db, batch).map_err(StoreError::sqlite(&self.path))))
    }

    fn snapshot(&self) -> Result<Option<SnapshotFile>, StoreError> {
        let shelf = lock(&self.shelf);
        if self.with_db(|db| table::read_marker(db, &self.path))?.is_none() {
            return Ok(None);
        }
        let workplace = shelf.workplace()?;
        let digest = self.copy_to(&workplace)?;
        // After the copy, so that the state on disk is at least as new.
        self.with_db(|db| self.fatal(Self::checkpoint(db, &self.path)))?;
        let shelved = shelf.put(&workplace, digest, false)?;
        shelf.retire()?;
        Ok(Some(shelved.file))
    }

    /// A copy has no more bytes than the database that it is made of, and what waits beside it in the write-ahead log.
    fn has_room_for_snapshot(&self) -> bool {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
        let database = size(&self.path).saturating_add(size(&database::with_suffix(&self.path, "-wal")));
        free_bytes(self.folder.path()).map_or(true, |free| has_room(free, database, 1))
    }

    fn current_snapshot(&self) -> Result<Option<SnapshotFile>, StoreError> {
        Ok(lock(&self.shelf).current()?.map(|shelved| shelved.file))
    }

    fn copy(&self) -> Result<Option<SnapshotFile>, StoreError> {
        // Held all the time: an installation would put another database under the copy.
        let shelf = lock(&self.shelf);
        if self.with_db(|db| table::read_marker(db, &self.path))?.is_none() {
            return Ok(None);
        }
        if !self.has_room_for_snapshot() {
            return Err(no_room(self.folder.path(), "copy the state to"));
        }
        let place = shelf.copy_place()?;
        let digest = self.copy_to(&place.0)?;
        Ok(Some(SnapshotFile::copied(place, digest)))
    }

    /// What is received lies there twice until it is installed, and an installation that fails ends the node.
    fn receive(&self, announced: SnapshotDigest) -> Result<IncomingSnapshot, StoreError> {
        if free_bytes(self.folder.path()).is_ok_and(|free| !has_room(free, announced.size_bytes, 2)) {
            return Err(no_room(self.folder.path(), "receive a snapshot in"));
        }
        lock(&self.shelf).receive(announced)
    }

    fn verify(&self, snapshot: &SnapshotFile) -> Result<(), StoreError> {
        snapshot.check_content()?;
        database::check_file(&snapshot.path)?;
        let mut db = open_snapshot(&snapshot.path)?;
        database::check(&db, &snapshot.path, &STATE_SCHEMA)?;
        // Any node of the cluster may have made it.
        database::read_identity(&db, &snapshot.path)?.check_cluster(&snapshot.path, &self.folder.owner())?;
        let marker = table::load(&mut db, &snapshot.path, &mut |_| Ok(()))?;
        if marker.as_ref() != Some(&snapshot.digest.marker) {
            return Err(StoreError::corrupt(&snapshot.path, "it is of another place in the history than announced"));
        }
        Ok(())
    }

    fn install(&self, snapshot: &SnapshotFile) -> Result<SnapshotFile, StoreError> {
        self.install_verified(snapshot)
    }

    fn failed(&self) -> Option<StoreError> {
        self.failure.get()
    }

    fn on_failure(&self, watcher: FailureWatcher) {
        self.failure.watch(watcher);
    }
}
