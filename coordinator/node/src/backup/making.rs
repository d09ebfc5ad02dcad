//! Making a backup of this node's state, while the node goes on.

use std::sync::Arc;

use onespend_adapters::backup::Header;
use onespend_adapters::store::sqlite::read_copy;
use onespend_adapters::store::{SnapshotFile, StoreError};
use onespend_core::state::StoredHash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::wall_ms;
use crate::raft::place_of;
use crate::replica::Replica;
use crate::runtime;

/// Copies at the same time. Each takes the space of the state on the disk of the data folder, and time on that disk.
const MAX_COPIES: usize = 1;

/// What backups are made from.
pub(crate) struct BackupSource {
    replica: Arc<Replica>,
    cluster_id: String,
    node_id: u64,
    turns: Arc<Semaphore>,
}

/// Leave to make one.
pub(crate) struct Turn(OwnedSemaphorePermit);

/// A copy of the state, and what it is. The file goes with this value.
pub(crate) struct Made {
    pub(crate) header: Header,
    pub(crate) copy: SnapshotFile,
    _turn: OwnedSemaphorePermit,
}

/// Why there is no backup. It does no harm to the node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// Another one is being made, or given away.
    #[error("this node makes a backup already")]
    Busy,
    /// The copy cannot be made, or is not what was written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state says something about itself that this version does not understand.
    #[error("the copy of the state: {0}")]
    Copy(String),
}

impl BackupSource {
    pub(crate) fn new(replica: Arc<Replica>, cluster_id: &str, node_id: u64) -> Self {
        let turns = Arc::new(Semaphore::new(MAX_COPIES));
        Self { replica, cluster_id: cluster_id.to_owned(), node_id, turns }
    }

    /// Takes the turn of making one.
    pub(crate) fn turn(&self) -> Result<Turn, MakeError> {
        Arc::clone(&self.turns).try_acquire_owned().map(Turn).map_err(|_| MakeError::Busy)
    }

    /// Copies the state, and reads the copy once: it is given away only if every row is what was written.
    pub(crate) async fn make(&self, turn: Turn) -> Result<Made, MakeError> {
        let copy = self.replica.raft().copy_state().await?;
        let (cluster_id, node_id) = (self.cluster_id.clone(), self.node_id);
        let describe = move || describe(&copy, cluster_id, node_id).map(|header| (header, copy));
        let described = runtime::blocking(describe).await.map_err(|lost| MakeError::Copy(lost.to_string()))?;
        let (header, copy) = described?;
        Ok(Made { header, copy, _turn: turn.0 })
    }
}

fn describe(copy: &SnapshotFile, cluster_id: String, node_id: u64) -> Result<Header, MakeError> {
    // Row by row, so that the state is not in memory twice.
    let mut hash = StoredHash::default();
    let read = read_copy(&copy.path, &mut |row| {
        hash.add(row.table, row.key, row.value);
        Ok(())
    })?;
    let place = place_of(&read.marker).map_err(|error| MakeError::Copy(error.to_string()))?;
    Ok(Header {
        cluster_id,
        node_id,
        index: place.index.0,
        term: place.term,
        state_hash: hash.finish(),
        size_bytes: copy.digest.size_bytes,
        made_unix_ms: wall_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
