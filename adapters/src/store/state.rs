//! The port of the replicated state: rows, remembered behind the request path, and snapshots of all of them.

use super::{FailureWatcher, IncomingSnapshot, SnapshotDigest, SnapshotFile, StoreError};

/// One row as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The table, numbered by the caller.
    pub table: u8,
    /// The key, unique in its table.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// Takes the rows of a state one after the other. An error says why a row cannot be understood; it ends the reading and
/// comes back as [`StoreError::Corrupt`] with the name of the file.
pub type RowVisitor<'a> = dyn FnMut(Row<'_>) -> Result<(), String> + 'a;

/// What becomes of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The table, numbered by the caller.
    pub table: u8,
    /// The key, unique in its table.
    pub key: Vec<u8>,
    /// The new value, or none to remove the row.
    pub value: Option<Vec<u8>>,
}

/// Changes that belong together, and the place in the history that the state has after them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowBatch {
    /// The caller's own description of that place, such as the applied log id and the membership.
    pub marker: Vec<u8>,
    /// The rows. If one occurs twice, the later change counts.
    pub rows: Vec<RowChange>,
}

/// The rows of the replicated state at one place in the history, and snapshots. Knows bytes only.
///
/// A batch is written whole or not at all. A crash of the process loses no written batch; a power failure may lose the
/// latest ones (they are replayed from the log), but never back to before the current snapshot.
/// After the first failed write everything is refused with [`StoreError::Failed`]: later batches do not carry what
/// the failed one held.
pub trait StateStore: Send + Sync + 'static {
    /// Reads all rows, in order of table and key, and gives back the marker; none if nothing was ever written.
    fn load(&self, visit: &mut RowVisitor<'_>) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a batch in one transaction, without waiting for the disk.
    fn write(&self, batch: &RowBatch) -> Result<(), StoreError>;

    /// Makes a durable snapshot of what was written last, and makes sure that the state itself is on disk at least up to
    /// there: so the log may be purged through the snapshot's marker. `None` if nothing was ever written.
    /// Batches may be written meanwhile. The snapshot before the previous one is removed.
    fn snapshot(&self) -> Result<Option<SnapshotFile>, StoreError>;

    /// Whether the disk has room for a snapshot now, as far as that can be told before it is made.
    fn has_room_for_snapshot(&self) -> bool {
        true
    }

    /// The latest snapshot, made or installed. Checks that it is there in its full size; see `verify` for its content.
    fn current_snapshot(&self) -> Result<Option<SnapshotFile>, StoreError>;

    /// Copies what was written last into a file of the data folder that is no snapshot: nothing may be purged because of it,
    /// and it is removed with the last clone of the value. `None` if nothing was ever written. Batches may be written
    /// meanwhile; snapshots wait.
    fn copy(&self) -> Result<Option<SnapshotFile>, StoreError>;

    /// Begins a snapshot that comes from elsewhere.
    fn receive(&self, announced: SnapshotDigest) -> Result<IncomingSnapshot, StoreError>;

    /// Reads all of a snapshot: is it what its digest says, whole, of this cluster, and of a known format?
    fn verify(&self, snapshot: &SnapshotFile) -> Result<(), StoreError>;

    /// Replaces the whole state by a snapshot that was received or is on the shelf, and makes it the current one. It is
    /// verified before anything is touched; a refusal changes nothing. A crash on the way leaves the old state or the new
    /// one. Nothing may be written meanwhile. Gives back where the snapshot lies afterwards.
    fn install(&self, snapshot: &SnapshotFile) -> Result<SnapshotFile, StoreError>;

    /// The first failure, if there was one. The node must exit.
    fn failed(&self) -> Option<StoreError>;

    /// Tells `watcher` of the first failure, at once if it has happened.
    fn on_failure(&self, watcher: FailureWatcher);
}
