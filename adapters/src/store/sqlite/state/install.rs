//! Replacing the whole state by a snapshot.
//!
//! The order makes a crash harmless at any point:
//! 1. the snapshot is verified: nothing is touched before;
//! 2. it goes on the shelf, labelled as received: from here on a restart completes the installation;
//! 3. a copy is made ours in `state.new`, and waits on disk;
//! 4. the old database is closed and its write-ahead log is gone, on disk, too: a log that is left over would be replayed
//!    into the new database;
//! 5. one rename.

use std::path::Path;

use rusqlite::Connection;

use super::{STATE_SCHEMA, SqliteState, table};
use crate::store::failure::lock;
use crate::store::shelf::Shelved;
use crate::store::sqlite::database::{self, with_suffix};
use crate::store::{SnapshotFile, StateStore, StoreError, durable};

impl SqliteState {
    pub(super) fn install_verified(&self, snapshot: &SnapshotFile) -> Result<SnapshotFile, StoreError> {
        let shelf = lock(&self.shelf);
        self.failure.check()?;
        self.verify(snapshot)?;
        let current = shelf.current()?.filter(|current| current.file.path == snapshot.path);
        let shelved = match current {
            Some(current) => current,
            None => self.fatal(shelf.put(&snapshot.path, snapshot.digest.clone(), true))?,
        };
        self.fatal(self.replace_by(&shelved))?;
        shelf.retire()?;
        Ok(shelved.file)
    }

    /// Does the rest of an installation that came as far as the shelf.
    pub(super) fn complete_installation(&self) -> Result<(), StoreError> {
        let shelf = lock(&self.shelf);
        database::remove(&self.path.with_extension("new"))?;
        let Some(current) = shelf.current()?.filter(|current| current.received) else {
            return Ok(());
        };
        let installed = self.with_db(|db| table::read_installed(db).map_err(StoreError::sqlite(&self.path)))?;
        if installed >= current.number {
            return Ok(());
        }
        tracing::warn!(snapshot = current.number, "completing the installation of a snapshot that was interrupted");
        self.verify(&current.file)?;
        self.replace_by(&current)?;
        shelf.retire()
    }

    fn replace_by(&self, shelved: &Shelved) -> Result<(), StoreError> {
        let fresh = self.path.with_extension("new");
        self.prepare(shelved, &fresh)?;
        let mut db = lock(&self.db);
        if let Some(old) = db.take() {
            close_without_wal(old, &self.path)?;
        }
        durable::rename(&fresh, &self.path)?;
        *db = Some(database::open(&self.path, &STATE_SCHEMA, self.folder.identity())?);
        Ok(())
    }

    /// A copy of the snapshot that carries this folder's identity.
    fn prepare(&self, shelved: &Shelved, fresh: &Path) -> Result<(), StoreError> {
        database::remove(fresh)?;
        std::fs::copy(&shelved.file.path, fresh).map_err(StoreError::io(fresh, "copy to"))?;
        let failed = StoreError::sqlite(fresh);
        let db = Connection::open(fresh).map_err(&failed)?;
        database::write_identity(&db, self.folder.identity()).map_err(&failed)?;
        table::write_installed(&db, shelved.number).map_err(&failed)?;
        db.close().map_err(|(_, cause)| failed(cause))?;
        durable::sync_file(fresh)
    }
}

/// Leaves one self-contained file.
fn close_without_wal(db: Connection, path: &Path) -> Result<(), StoreError> {
    let failed = StoreError::sqlite(path);
    SqliteState::checkpoint(&db, path)?;
    let mode: String = db.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).map_err(&failed)?;
    db.close().map_err(|(_, cause)| failed(cause))?;
    if mode != "delete" || with_suffix(path, "-wal").exists() {
        let cause = std::io::Error::other("its write-ahead log stays");
        return Err(StoreError::io(path, "close")(cause));
    }
    durable::sync_folder_of(path)
}
