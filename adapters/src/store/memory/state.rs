//! The state in memory. Its snapshots are files all the same, because they travel as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::store::failure::{Failure, lock};
use crate::store::shelf::Shelf;
use crate::store::snapshot::sha256_of;
use crate::store::{
    FailureWatcher, IncomingSnapshot, Row, RowBatch, RowVisitor, SnapshotDigest, SnapshotFile, StateStore, StoreError,
    durable,
};

/// The first bytes of a snapshot of this store.
const MAGIC: &[u8] = b"onespend memory state 1\n";

/// The state in memory, with its snapshots in a folder. A snapshot is the only thing that a power failure leaves for
/// sure; [`MemoryState::crash`] goes back to it.
pub struct MemoryState {
    folder: PathBuf,
    cluster_id: String,
    rows: Mutex<Rows>,
    shelf: Mutex<Shelf>,
    failure: Failure,
}

#[derive(Default, Clone)]
struct Rows {
    marker: Option<Vec<u8>>,
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
}

impl MemoryState {
    /// Starts from the current snapshot of the folder, if there is one. The folder must exist.
    pub fn open(folder: &Path, cluster_id: &str) -> Result<Self, StoreError> {
        let shelf = Shelf::open(folder, cluster_id)?;
        let rows = match shelf.current()? {
            Some(current) => Rows::read(&current.file)?,
            None => Rows::default(),
        };
        Ok(Self {
            folder: folder.to_path_buf(),
            cluster_id: cluster_id.to_owned(),
            rows: Mutex::new(rows),
            shelf: Mutex::new(shelf),
            failure: Failure::default(),
        })
    }

    /// The power fails: what the next start finds is the current snapshot.
    pub fn crash(&self) -> Result<Self, StoreError> {
        Self::open(&self.folder, &self.cluster_id)
    }

    /// The disk breaks: every later call fails.
    pub fn fail(&self, error: &StoreError) {
        self.failure.set(error);
    }

    /// A clean stop: what the next start finds is all that was written.
    pub fn restart(&self) -> Result<Self, StoreError> {
        let next = self.crash()?;
        lock(&next.rows).clone_from(&lock(&self.rows));
        Ok(next)
    }
}

impl Rows {
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut put = |bytes: &[u8]| {
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        };
        put(self.marker.as_deref().unwrap_or_default());
        for ((table, key), value) in &self.rows {
            put(&[*table]);
            put(key);
            put(value);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut take = || -> Option<Vec<u8>> {
            let (length, after) = rest.split_first_chunk::<8>()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            let (part, after) = after.split_at_checked(length)?;
            rest = after;
            Some(part.to_vec())
        };
        let mut state = Self { marker: Some(take()?), rows: BTreeMap::new() };
        while let Some(table) = take() {
            state.rows.insert((*table.first()?, take()?), take()?);
        }
        rest.is_empty().then_some(state)
    }

    fn read(file: &SnapshotFile) -> Result<Self, StoreError> {
        file.check_content()?;
        let bytes = std::fs::read(&file.path).map_err(StoreError::io(&file.path, "read"))?;
        let found = Self::decode(&bytes)
            .ok_or_else(|| StoreError::corrupt(&file.path, "not a snapshot of a state in memory"))?;
        if found.marker.as_ref() != Some(&file.digest.marker) {
            return Err(StoreError::corrupt(&file.path, "it is of another place in the history than announced"));
        }
        Ok(found)
    }
}

impl StateStore for MemoryState {
    fn load(&self, visit: &mut RowVisitor<'_>) -> Result<Option<Vec<u8>>, StoreError> {
        self.failure.check()?;
        let state = lock(&self.rows);
        for ((table, key), value) in &state.rows {
            visit(Row { table: *table, key, value })
                .map_err(|why| StoreError::corrupt(Path::new("memory"), format!("a row of table {table}: {why}")))?;
        }
        Ok(state.marker.clone())
    }

    fn write(&self, batch: &RowBatch) -> Result<(), StoreError> {
        self.failure.check()?;
        let mut state = lock(&self.rows);
        for change in &batch.rows {
            let key = (change.table, change.key.clone());
            match &change.value {
                Some(value) => state.rows.insert(key, value.clone()),
                None => state.rows.remove(&key),
            };
        }
        state.marker = Some(batch.marker.clone());
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<SnapshotFile>, StoreError> {
        let shelf = lock(&self.shelf);
        self.failure.check()?;
        let state = lock(&self.rows).clone();
        let Some(marker) = state.marker.clone() else {
            return Ok(None);
        };
        let bytes = state.encode();
        let workplace = shelf.workplace()?;
        std::fs::write(&workplace, &bytes).map_err(StoreError::io(&workplace, "write"))?;
        durable::sync_file(&workplace)?;
        let (sha256, size_bytes) = sha256_of(&bytes[..]).map_err(StoreError::io(&workplace, "read"))?;
        let shelved = shelf.put(&workplace, SnapshotDigest { marker, sha256, size_bytes }, false)?;
        shelf.retire()?;
        Ok(Some(shelved.file))
    }

    fn current_snapshot(&self) -> Result<Option<SnapshotFile>, StoreError> {
        Ok(lock(&self.shelf).current()?.map(|shelved| shelved.file))
    }

    fn copy(&self) -> Result<Option<SnapshotFile>, StoreError> {
        self.failure.check()?;
        let place = lock(&self.shelf).copy_place()?;
        let state = lock(&self.rows).clone();
        let Some(marker) = state.marker.clone() else {
            return Ok(None);
        };
        let bytes = state.encode();
        std::fs::write(&place.0, &bytes).map_err(StoreError::io(&place.0, "write"))?;
        let (sha256, size_bytes) = sha256_of(&bytes[..]).map_err(StoreError::io(&place.0, "read"))?;
        Ok(Some(SnapshotFile::copied(place, SnapshotDigest { marker, sha256, size_bytes })))
    }

    fn receive(&self, announced: SnapshotDigest) -> Result<IncomingSnapshot, StoreError> {
        lock(&self.shelf).receive(announced)
    }

    fn verify(&self, snapshot: &SnapshotFile) -> Result<(), StoreError> {
        Rows::read(snapshot).map(|_| ())
    }

    fn install(&self, snapshot: &SnapshotFile) -> Result<SnapshotFile, StoreError> {
        let shelf = lock(&self.shelf);
        self.failure.check()?;
        let rows = Rows::read(snapshot)?;
        let current = shelf.current()?.filter(|current| current.file.path == snapshot.path);
        let shelved = match current {
            Some(current) => current,
            None => shelf.put(&snapshot.path, snapshot.digest.clone(), true)?,
        };
        *lock(&self.rows) = rows;
        shelf.retire()?;
        Ok(shelved.file)
    }

    fn failed(&self) -> Option<StoreError> {
        self.failure.get()
    }

    fn on_failure(&self, watcher: FailureWatcher) {
        self.failure.watch(watcher);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tempfile::TempDir;

    use super::*;
    use crate::store::contract::state::{StateFixture, batch, rows, state_contract};

    struct InMemory {
        state: MemoryState,
        _folder: TempDir,
    }

    impl StateFixture for InMemory {
        fn fresh() -> Self {
            let folder = TempDir::new().unwrap();
            Self { state: MemoryState::open(folder.path(), "demo").unwrap(), _folder: folder }
        }

        fn state(&self) -> &dyn StateStore {
            &self.state
        }

        fn restart(&mut self) {
            self.state = self.state.restart().unwrap();
        }

        fn break_disk(&self) {
            self.state.fail(&StoreError::corrupt(Path::new("memory"), "on purpose"));
        }
    }

    state_contract!(InMemory);

    #[test]
    fn a_crash_goes_back_to_the_snapshot() {
        let at = InMemory::fresh();
        at.state.write(&batch("1", &[(1, "a", Some("x"))])).unwrap();
        at.state.snapshot().unwrap();
        at.state.write(&batch("2", &[(1, "a", Some("y"))])).unwrap();
        let after = at.state.crash().unwrap();
        assert_eq!(rows(&after).0.as_deref(), Some(&b"1"[..]));
    }
}
