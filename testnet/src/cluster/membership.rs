//! Replaces nodes as an operator would: by the command line.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::pki::{self, Credentials};
use super::switch::Processes;
use super::{Addresses, Cluster, MAX_NODES, Node, NodeConfig};
use crate::programs;

/// Every step in all: faults elsewhere may be in the way.
const PATIENCE: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(50);

/// A node that takes the place of one whose disk was lost, and who sees to it.
#[derive(Clone, Debug)]
pub struct Replacement {
    operator: Credentials,
    control_ports: Vec<SocketAddr>,
    lost: u64,
    new: u64,
    control: SocketAddr,
    data: SocketAddr,
}

impl Cluster {
    /// Kills a node and throws its disk away; when it is started again, it has the id `new` and waits to be added.
    ///
    /// # Errors
    /// There is no such node, or its files cannot be replaced.
    pub fn lose_disk(&mut self, index: usize, new: u64) -> Result<Replacement> {
        pki::issue(&self.folder().join("pki"), "node", &new.to_string())?;
        let node = self.node(index)?;
        let lost = node.id();
        node.lose_disk(new)?;
        let (control, data) = (node.advertised_control(), node.advertised());
        Ok(Replacement {
            operator: self.operator().clone(),
            control_ports: self.control_ports(),
            lost,
            new,
            control,
            data,
        })
    }

    /// Starts one more node, which waits to be added; it shares a bitcoind with another one. Its index. No relays lead
    /// to it.
    ///
    /// # Errors
    /// The cluster has relays or is full, or the node cannot be started.
    pub fn start_joining(&mut self) -> Result<usize> {
        let index = self.nodes.len();
        ensure!(self.wires.is_none(), "a cluster with relays takes no further nodes");
        ensure!(index < MAX_NODES, "no more than {MAX_NODES} nodes");
        let id = u64::try_from(index + 1)?;
        pki::issue(&self.folder().join("pki"), "node", &id.to_string())?;
        let listen = Addresses::free()?;
        let peers = self.nodes.iter().map(Node::addresses).chain([listen]).collect();
        let bitcoind = self.bitcoinds.get(index % self.bitcoinds.len().max(1)).context("no bitcoind")?;
        let config = NodeConfig {
            root: self.folder().to_path_buf(),
            index,
            id,
            join: true,
            listen,
            peers,
            rpc: bitcoind.rpc_address(),
            cookie_file: bitcoind.cookie_file(),
            program: programs::onespend()?,
            variables: Vec::new(),
            sections: String::new(),
        };
        self.nodes.push(Node::start(config, &self.wallet, &Processes::default())?);
        Ok(index)
    }

    /// What an operator's command line says to all nodes' control ports: the whole output, if the command succeeds.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn operate(&self, args: &[&str]) -> Result<String> {
        self.operator().run(&self.control_ports(), args)
    }

    fn control_ports(&self) -> Vec<SocketAddr> {
        self.nodes().iter().map(|node| node.addresses().control).collect()
    }
}

impl Replacement {
    /// Removes the lost node, adds the new one, and gives it its vote as soon as it has caught up. The new one must run.
    /// Blocks until it is done.
    ///
    /// # Errors
    /// A step is refused for too long; with the last answer.
    pub fn take_in(&self) -> Result<()> {
        let (new, lost) = (self.new.to_string(), self.lost.to_string());
        let (control, data) = (self.control.to_string(), self.data.to_string());
        let deadline = Instant::now() + PATIENCE;
        self.insist(deadline, &["cluster", "remove", &lost])?;
        self.insist(deadline, &["cluster", "add", &new, "--control-address", &control, "--data-address", &data])?;
        self.insist(deadline, &["cluster", "promote", &new])
    }

    /// Asks again until it is done. A node that was removed, and the answer lost, is unknown.
    fn insist(&self, deadline: Instant, args: &[&str]) -> Result<()> {
        loop {
            match self.operator.run(&self.control_ports, args) {
                Ok(_) => return Ok(()),
                Err(error) if args.contains(&"remove") && error.to_string().contains("NODE_UNKNOWN") => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => thread::sleep(POLL),
            }
        }
    }
}
