//! A cluster that goes on from the state of another one, which it shares neither name nor members with (ADR 0019): what its
//! configuration must be, and how the folder of its first node is filled.

use anyhow::Result;
use onespend_adapters::store::sqlite::{LogOptions, NewFolder, SqliteLog, SqliteState};
use onespend_adapters::store::{LogStore, RowBatch, RowChange, RowVisitor, StateStore, StoreError};
use onespend_core::state::State;

use crate::config::Config;
use crate::raft::{Founder, found};

/// Rows of one transaction.
const ROWS_PER_BATCH: usize = 1_000;

/// What a configuration must not be, so that nothing of the old cluster can meet the new one; in words, the worst first.
/// `source` is what the state comes from.
pub(crate) fn objections(source: &str, from_cluster: &str, state: &State, config: &Config) -> Vec<String> {
    let mut objections = Vec::new();
    let id = &config.cluster.id;
    if id == from_cluster {
        objections.push(format!(
            "cluster.id is {id}, as in {source}: the new cluster needs a name of its own, and certificates for it, so that \
             no node of the old one can take part in it"
        ));
    }
    if config.node.join {
        objections.push("node.join is true: the node that the new cluster begins with joins nobody".to_owned());
    }
    if config.peers.len() != 1 {
        objections.push(format!(
            "[[peers]] has {} members: the new cluster begins with this node alone; the others join it empty",
            config.peers.len()
        ));
    }
    // Before the first block there is no network.
    if let Some(network) = state.network().ok().filter(|network| *network != config.cluster.network) {
        objections.push(format!("cluster.network is {}, and {source} is of {network}", config.cluster.network));
    }
    objections
}

/// Puts rows into a new folder as they are. `read` gives them one after the other.
///
/// # Errors
/// They cannot be read, or not be written.
pub(crate) fn fill<E>(new: &NewFolder, read: impl FnOnce(&mut RowVisitor<'_>) -> Result<(), E>) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let store = SqliteState::open(new.folder())?;
    let (mut rows, mut failed) = (Vec::new(), None);
    let write = |rows: &mut Vec<RowChange>| -> Result<(), StoreError> {
        // The marker is replaced at the end; without it the folder stays marked.
        store.write(&RowBatch { marker: Vec::new(), rows: std::mem::take(rows) })
    };
    let read = read(&mut |row| {
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
    match failed {
        Some(error) => return Err(error.into()),
        None => read?,
    }
    Ok(write(&mut rows)?)
}

/// What makes of the rows a node that can start: the only member of its cluster.
///
/// # Errors
/// A store failed.
pub(crate) fn begin(new: &NewFolder, state: &mut State, founder: Founder) -> Result<()> {
    let store = SqliteState::open(new.folder())?;
    let log = SqliteLog::open(new.folder(), LogOptions::default())?;
    found(&log, &store, state, founder)?;
    log.stop();
    Ok(())
}
