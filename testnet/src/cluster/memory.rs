//! What the nodes' signers remember, handled as an operator would: by the command line.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Cluster, SIGNER, pki};
use crate::health;

/// A node that was away catches up first.
const PATIENCE: Duration = Duration::from_mins(1);
const ASK: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(50);

/// What `onespend signer` says to this, for the signer in a node's configuration file.
///
/// # Errors
/// It refuses; with what it said.
pub fn signer_memory(config: &Path, what: &[&str]) -> Result<String> {
    let config = config.display().to_string();
    pki::run(&[&["signer"][..], what, &["--config", &config, "--name", SIGNER][..]].concat())
}

impl Cluster {
    /// Gives what a node's signer remembers to the signers of all others, so that they accept what it has accepted.
    /// Those that run are stopped for that, one after the other; the node itself may run on.
    ///
    /// # Errors
    /// A memory is refused, or a node does not come back.
    pub fn share_memory(&mut self, from: usize) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let copy = folder.path().join("memory.db").display().to_string();
        signer_memory(&self.node(from)?.config_file(), &["copy", &copy])?;
        for index in (0..self.nodes.len()).filter(|index| *index != from) {
            let node = self.node(index)?;
            let runs = node.is_running();
            node.stop()?;
            signer_memory(&node.config_file(), &["merge", &copy])?;
            if runs {
                node.restart()?;
                self.wait_until_ready(index)?;
            }
        }
        Ok(())
    }

    fn wait_until_ready(&mut self, index: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let node = self.node(index)?;
        while health::status(node.addresses().health, "/readyz", ASK) != 200 {
            node.must_run()?;
            ensure!(Instant::now() < deadline, "{} is not ready after {PATIENCE:?}\n{}", node.name(), node.log_tail());
            thread::sleep(POLL);
        }
        Ok(())
    }
}
