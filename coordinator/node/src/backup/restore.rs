//! A new cluster out of a backup: one node gets the state, as the only member of a cluster with a name of its own, and the
//! others join it empty (ADR 0019).

use std::path::Path;

use anyhow::{Context, bail};
use onespend_adapters::store::Owner;
use onespend_adapters::store::sqlite::NewFolder;
use onespend_core::restored;

use super::{Contents, wall_ms};
use crate::config::Config;
use crate::incarnation;
use crate::parts;
use crate::raft::Founder;

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
    if let Some(objection) =
        incarnation::objections("the backup", &header.cluster_id, &state, config).into_iter().next()
    {
        bail!(objection);
    }
    let owner = Owner { cluster_id: config.cluster.id.clone(), node_id: config.node.id };
    let founder = Founder {
        node_id: config.node.id,
        addresses: parts::own_addresses(config)?,
        after_term: header.term,
        // The ids of the old cluster are free: whoever has one there carries the old name.
        highest_removed: 0,
    };
    let new = NewFolder::begin(&config.node.data_dir, &owner).context("node.data_dir")?;
    let left = "restoring was not finished; empty the data folder before you try again";
    incarnation::fill(&new, |visit| content.rows(visit).map(drop)).context(left)?;
    let why = format!("restored from {name}: cluster {}, log index {}", header.cluster_id, header.index);
    restored::begin(&mut state, &why, wall_ms());
    let restored = Restored {
        from_cluster: header.cluster_id,
        from_index: header.index,
        index: state.applied().0,
        epoch: state.epoch(),
    };
    incarnation::begin(&new, &mut state, founder).context(left)?;
    new.finish().context(left)?;
    Ok(restored)
}

/// What a backup is called in a message and in the audit.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
