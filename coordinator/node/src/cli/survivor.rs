//! `onespend cluster recover`: a cluster that has lost its quorum for good goes on from what one node has. Works on the
//! folder of that node, not on a cluster.

use std::path::PathBuf;

use clap::Args;
use onespend_adapters::store::sqlite::found_in;
use serde::Serialize;

use super::backup::Scratch;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, Show};
use super::view::survivor::{Found, Taken};
use crate::config::{Config, ConfigFaults};
use crate::survivor::{Inspection, Recovered, finish_interrupted};

/// Which node, and how far to go.
#[derive(Debug, Args)]
pub struct Recover {
    /// From the data folder of the node that the configuration describes; there is no other source
    #[arg(long, required = true)]
    from_this_node: bool,
    /// The node's configuration file, with the new cluster's name
    #[arg(long, value_name = "FILE", env = "ONESPEND_CONFIG")]
    config: PathBuf,
    /// Show what the node has and what stands in the way, and change nothing; also with the old configuration
    #[arg(long, conflicts_with = "i_accept_that_acknowledged_writes_may_be_lost")]
    dry_run: bool,
    /// No quorum of the old cluster will ever come back, and what only its lost nodes had is given up
    #[arg(long, required_unless_present = "dry_run")]
    i_accept_that_acknowledged_writes_may_be_lost: bool,
    #[command(flatten)]
    scratch: Scratch,
}

/// An interrupted recovery that is complete now.
#[derive(Debug, Serialize)]
struct Completed {
    /// What the interrupted one had found, for people.
    found: Option<String>,
    taken: Taken,
    finished: bool,
}

impl Show for Completed {
    fn text(&self) -> String {
        let found = self.found.as_ref().map(|found| format!("\n{found}\n")).unwrap_or_default();
        format!("a recovery that was interrupted is complete now\n{found}\n{}", self.taken.text())
    }
}

/// What was found, and what was done with it.
#[derive(Debug, Serialize)]
struct View {
    found: Found,
    /// Null if nothing was changed.
    taken: Option<Taken>,
    /// What must be otherwise in the configuration.
    in_the_way: Vec<String>,
}

impl Show for View {
    fn text(&self) -> String {
        let found = self.found.text();
        let Some(taken) = &self.taken else {
            let in_the_way = self.in_the_way.iter().map(|what| format!("\nin the way: {what}"));
            return format!("{found}\n\nnothing was changed{}", in_the_way.collect::<String>());
        };
        format!("{found}\n\n{}", taken.text())
    }
}

impl Recover {
    /// Looks, and takes over unless it should only look.
    pub fn run(self, output: Output) -> Result<Exit, Failure> {
        // A look needs no certificates of the new name yet; what will be started is checked as at its start.
        let config = if self.dry_run { Config::load_text(&self.config) } else { Config::load(&self.config) };
        let config = config.map_err(|faults| refuse_config(&faults))?;
        if !self.dry_run {
            Failure::refuse_root(&config.node.data_dir)?;
        }
        let aside = if self.dry_run { None } else { finish_interrupted(&config).map_err(|error| refuse(&error))? };
        if let Some(aside) = aside {
            let (found, taken) = (found_in(&aside), Taken::of(&config, None, aside));
            return output.show(&Completed { found, taken, finished: true }).map(|()| Exit::Done);
        }
        let inspection = Inspection::of(&config, &self.scratch.folder()).map_err(|error| refuse(&error))?;
        let (found, in_the_way) = (Found::of(&inspection), inspection.objections(&config));
        let taken = if self.dry_run {
            None
        } else {
            let Recovered { index, epoch, aside } =
                inspection.recover(&config, &found.text()).map_err(|error| refuse(&error))?;
            Some(Taken::of(&config, Some((index, epoch)), aside))
        };
        output.show(&View { found, taken, in_the_way }).map(|()| Exit::Done)
    }
}

fn refuse(error: &anyhow::Error) -> Failure {
    Failure::new(Exit::Refused, format!("the cluster cannot go on from this node: {error:#}"))
}

fn refuse_config(faults: &ConfigFaults) -> Failure {
    let failure = Failure::usage("the configuration cannot be used");
    faults.errors().fold(failure, |failure, fault| failure.with("fault", fault.line(&faults.file)))
}
