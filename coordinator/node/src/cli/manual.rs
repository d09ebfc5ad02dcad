//! Shell completions and man pages, made from the commands themselves.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::exit::Exit;
use super::failure::Failure;
use super::{local, output};

#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Writes them.
    pub fn run(self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut local::command(), "onespend", &mut script);
        output::write(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}

#[derive(Debug, Args)]
pub struct Man {
    /// Folder for onespend.1, onespend-pay.1 and the others; created if missing
    dir: PathBuf,
}

impl Man {
    /// Writes them.
    pub fn run(self) -> Result<Exit, Failure> {
        let dir = self.dir;
        std::fs::create_dir_all(&dir)
            .and_then(|()| clap_mangen::generate_to(local::command(), &dir))
            .map_err(|error| Failure::usage(format!("{}: {error}", dir.display())))?;
        output::note(&format!("wrote man pages to {}", dir.display()));
        Ok(Exit::Done)
    }
}
