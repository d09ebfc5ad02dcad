//! `onespend serve`: the daemon.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::failure::Failure;
use super::format::counted;
use crate::app;
use crate::config::{Config, ConfigFaults};

#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "ONESPEND_CONFIG")]
    config: PathBuf,
}

impl Serve {
    /// Runs the node until it is told to stop.
    pub fn run(self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config).map_err(|faults| refuse(&faults))?;
        match app::serve(config) {
            Ok(()) => Ok(Exit::Done),
            Err(error) => Err(Failure::new(Exit::Refused, format!("the node ended: {error:#}"))),
        }
    }
}

fn refuse(faults: &ConfigFaults) -> Failure {
    let errors = counted(faults.errors().count(), "error", "errors");
    let failure = Failure::usage(format!("the configuration has {errors}, so the node does not start"));
    let told = faults.faults.iter().fold(failure, |failure, fault| failure.with("fault", fault.line(&faults.file)));
    told.remedy("mend the file until `onespend config check` has nothing to say")
}
