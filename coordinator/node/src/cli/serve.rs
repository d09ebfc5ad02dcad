//! `onespend serve`: the daemon.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::failure::Failure;
use crate::app;
use crate::config::Config;

#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "ONESPEND_CONFIG")]
    config: PathBuf,
}

impl Serve {
    /// Runs the node until it is told to stop.
    pub fn run(self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config).map_err(|faults| Failure::usage(faults.to_string()))?;
        match app::serve(config) {
            Ok(()) => Ok(Exit::Done),
            Err(error) => Err(Failure::new(Exit::Refused, format!("the node ended: {error:#}"))),
        }
    }
}
