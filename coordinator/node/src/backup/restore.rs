//! A new cluster out of a backup: one node gets the state, as the only member of a cluster with a name of its own, and the
//! others join it empty (ADR 0019).

use std::path::Path;

use anyhow::{Context, bail, ensure};
use onespend_adapters::backup::Content;
use onespend_adapters::store::sqlite::{LogOptions, NewFolder, SqliteLog, SqliteState};
use onespend_adapters::store::{LogStore, Owner, RowBatch, RowChange, StateStore, StoreError};
use onespend_core::restored;
use onespend_core::state::State;

use super::{Contents, wall_ms};
use crate::config::Config;
use crate::parts;
use crate::raft::{Founder, found};

/// Rows of one transaction.
const ROWS_PER_BATCH: usize = 1_000;

/// A cluster that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restored {
    /// The cluster that the backup is of.
    pub(crate) from_cluster: String,
    /// Log index of the last entry in the backup.
    pub(crate) from_index: u64,
    /// Where the new cluster's log goes on.
    pub(crate) index: u64,
    /// The fence epoch that it begins with.
    pub(crate) epoch: u32,
}

/// Puts a backup that was read into the data folder of the node that `config` describes.
///
/// # Errors
/// In words. After a refusal the folder is as it was; after a fault it is marked, and refused until it is emptied.
pub(crate) fn restore(contents: Contents, name: &str, config: &Config) -> anyhow::Result<Restored> {
    let Contents { header, mut state, content } = contents;
    refuse(&header.cluster_id, &state, config)?;
    let owner = Owner { cluster_id: config.cluster.id.clone(), node_id: config.node.id };
    let founder =
        Founder { node_id: config.node.id, addresses: parts::own_addresses(config)?, after_term: header.term };
    let new = NewFolder::begin(&config.node.data_dir, &owner).context("node.data_dir")?;
    let left = "restoring was not finished; empty the data folder before you try again";
    fill(&new, &content).context(left)?;
    let why = format!("restored from {name}: cluster {}, log index {}", header.cluster_id, header.index);
    restored::begin(&mut state, &why, wall_ms());
    let restored = Restored {
        from_cluster: header.cluster_id,
        from_index: header.index,
        index: state.applied().0,
        epoch: state.epoch(),
    };
    begin(&new, &mut state, founder).context(left)?;
    new.finish().context(left)?;
    Ok(restored)
}

/// What a configuration must be so that nothing of the old cluster can meet the new one.
fn refuse(from_cluster: &str, state: &State, config: &Config) -> anyhow::Result<()> {
    let id = &config.cluster.id;
    ensure!(
        id != from_cluster,
        "cluster.id is {id}, as in the backup: a restored cluster needs a name of its own, and certificates for it, so \
         that no node of the old one can take part in it"
    );
    ensure!(!config.node.join, "node.join is true: the node that the backup is put into joins nobody");
    ensure!(
        config.peers.len() == 1,
        "[[peers]] has {} members: the restored cluster begins with this node alone; the others join it empty",
        config.peers.len()
    );
    match state.network() {
        Ok(network) if network != config.cluster.network => {
            bail!("cluster.network is {}, and the backup is of {network}", config.cluster.network)
        }
        _ => Ok(()), // before the first block there is none
    }
}

/// The rows as they are in the backup.
fn fill(new: &NewFolder, content: &Content) -> anyhow::Result<()> {
    let store = SqliteState::open(new.folder())?;
    let (mut rows, mut failed) = (Vec::new(), None);
    let write = |rows: &mut Vec<RowChange>| -> Result<(), StoreError> {
        // The marker is replaced at the end; without it the folder stays marked.
        store.write(&RowBatch { marker: Vec::new(), rows: std::mem::take(rows) })
    };
    let read = content.rows(&mut |row| {
        rows.push(RowChange { table: row.table, key: row.key.to_vec(), value: Some(row.value.to_vec()) });
        if rows.len() < ROWS_PER_BATCH {
            return Ok(());
        }
        write(&mut rows).map_err(|error| {
            let what = error.to_string();
            failed = Some(error);
            what
        })
    });
    match (failed, read) {
        (Some(error), _) => return Err(error.into()),
        (None, read) => read.map(drop)?,
    }
    Ok(write(&mut rows)?)
}

/// What makes of the rows a node that can start.
fn begin(new: &NewFolder, state: &mut State, founder: Founder) -> anyhow::Result<()> {
    let store = SqliteState::open(new.folder())?;
    let log = SqliteLog::open(new.folder(), LogOptions::default())?;
    found(&log, &store, state, founder)?;
    log.stop();
    Ok(())
}

/// What a backup is called in a message and in the audit.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
