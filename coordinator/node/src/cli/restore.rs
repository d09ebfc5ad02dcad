//! `onespend restore`: a new cluster that begins with a backup.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::backup::{Scratch, read};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, Show};
use super::storage::Storage;
use crate::backup::{Restored, name_of, restore};
use crate::config::{Config, ConfigFaults};

/// Puts the state into the empty data folder of one node, which is then the only member of a new cluster in recovery
/// mode. The configuration must name a new cluster, and this node alone in [[peers]]. The other nodes join it.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup: a file, or s3://BUCKET/PREFIX/NAME
    #[arg(long, value_name = "BACKUP")]
    backup: PathBuf,
    /// The configuration file of the node that gets the state
    #[arg(long, value_name = "FILE", env = "ONESPEND_CONFIG")]
    config: PathBuf,
    #[command(flatten)]
    scratch: Scratch,
    #[command(flatten)]
    storage: Storage,
}

/// What was done.
#[derive(Debug, Serialize)]
struct View {
    cluster_id: String,
    node_id: u64,
    data_dir: PathBuf,
    from_cluster: String,
    from_index: u64,
    index: u64,
    epoch: u32,
}

impl Show for View {
    fn text(&self) -> String {
        format!(
            "node {} holds the state of cluster {} at log index {} as the only member of cluster {}.\n\
             Hand on what its signers remember (onespend signer adopt), then start it: it is in recovery\n\
             mode. Then add the others: onespend cluster add",
            self.node_id, self.from_cluster, self.from_index, self.cluster_id
        )
    }
}

impl Restore {
    /// Fills the folder.
    pub fn run(self, output: Output) -> Result<Exit, Failure> {
        let config = Config::load(&self.config).map_err(|faults| refuse_config(&faults))?;
        let contents = read(self.storage.backup(&self.backup)?, &self.scratch.folder())?;
        let restored = restore(contents, &name_of(&self.backup), &config)
            .map_err(|error| Failure::new(Exit::Refused, format!("nothing can be started from it: {error:#}")))?;
        let Restored { from_cluster, from_index, index, epoch } = restored;
        output.show(&View {
            cluster_id: config.cluster.id,
            node_id: config.node.id,
            data_dir: config.node.data_dir,
            from_cluster,
            from_index,
            index,
            epoch,
        })?;
        Ok(Exit::Done)
    }
}

fn refuse_config(faults: &ConfigFaults) -> Failure {
    let failure = Failure::usage("the configuration cannot be used");
    faults.errors().fold(failure, |failure, fault| failure.with("fault", fault.line(&faults.file)))
}
