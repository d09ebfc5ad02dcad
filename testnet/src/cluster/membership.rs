//! Replaces nodes as an operator would: by the command line.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Cluster;
use super::pki;

/// Every step in all: faults elsewhere may be in the way.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

impl Cluster {
    /// Kills a node and throws its disk away; when it is started again, it has the id `new` and waits to be added. The id
    /// that it had.
    ///
    /// # Errors
    /// There is no such node, or its files cannot be replaced.
    pub fn lose_disk(&mut self, index: usize, new: u64) -> Result<u64> {
        pki::issue(&self.folder().join("pki"), "node", &new.to_string())?;
        let node = self.node(index)?;
        let lost = node.id();
        node.lose_disk(new)?;
        Ok(lost)
    }

    /// Removes the node that was `lost`, adds the one that took its place, and gives it its vote as soon as it has caught
    /// up. The new one must run.
    ///
    /// # Errors
    /// A step is refused for too long; with the last answer.
    pub fn take_in(&self, index: usize, lost: u64) -> Result<()> {
        let node = self.nodes().get(index).with_context(|| format!("no node at index {index}"))?;
        let (new, lost) = (node.id().to_string(), lost.to_string());
        let (control, data) = (node.advertised_control().to_string(), node.advertised().to_string());
        let deadline = Instant::now() + PATIENCE;
        self.insist(deadline, &["cluster", "remove", &lost])?;
        self.insist(deadline, &["cluster", "add", &new, "--control-address", &control, "--data-address", &data])?;
        self.insist(deadline, &["cluster", "promote", &new])
    }

    /// What an operator's command line says to all nodes' control ports: the whole output, if the command succeeds.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn operate(&self, args: &[&str]) -> Result<String> {
        let control: Vec<_> = self.nodes().iter().map(|node| node.addresses().control).collect();
        self.operator().run(&control, args)
    }

    /// Asks again until it is done. A node that was removed, and the answer lost, is unknown.
    fn insist(&self, deadline: Instant, args: &[&str]) -> Result<()> {
        loop {
            match self.operate(args) {
                Ok(_) => return Ok(()),
                Err(error) if args.contains(&"remove") && error.to_string().contains("NODE_UNKNOWN") => return Ok(()),
                Err(error) if Instant::now() >= deadline => bail!(error),
                Err(_) => thread::sleep(POLL),
            }
        }
    }
}
