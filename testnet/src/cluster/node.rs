//! One node: its configuration file, its folder, its process.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::switch::Processes;
use super::{CLUSTER_ID, FINALITY_DEPTH, SIGNER};
use crate::haproxy::Backend;
use crate::ports::free_port;
use crate::process::{Process, Signal};
use crate::wallet::HotWallet;

/// Names the file that a node with the feature `failpoints` reads its faults from; any other node has never heard of it.
const FAILPOINTS_VARIABLE: &str = "ONESPEND_FAILPOINTS";
/// Above the node's own hard deadline for its shutdown (15 s).
const STOP_GRACE: Duration = Duration::from_secs(20);

/// The three listeners of a node.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Wallet back ends.
    pub data: SocketAddr,
    /// Nodes and operators.
    pub control: SocketAddr,
    /// Load balancers and people.
    pub health: SocketAddr,
}

impl Addresses {
    /// Three free ports.
    ///
    /// # Errors
    /// All ports are taken.
    pub fn free() -> Result<Self> {
        let listen = || -> Result<SocketAddr> { Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?))) };
        Ok(Self { data: listen()?, control: listen()?, health: listen()? })
    }
}

/// What a node's configuration file is made from.
#[derive(Clone, Copy, Debug)]
pub struct NodeConfig<'a> {
    /// The cluster's folder.
    pub root: &'a Path,
    /// Which node: 0 for the one with id 1.
    pub index: usize,
    /// Where it listens.
    pub listen: Addresses,
    /// How all nodes are reached, in order.
    pub peers: &'a [Addresses],
    /// How it reaches the RPC of the bitcoind beside it.
    pub rpc: SocketAddr,
    /// Its cookie.
    pub cookie_file: &'a Path,
    /// What it runs.
    pub program: &'a Path,
    /// What is in its environment beside that of the harness.
    pub variables: &'a [(String, String)],
}

impl NodeConfig<'_> {
    fn id(&self) -> usize {
        self.index + 1
    }

    fn folder(&self) -> PathBuf {
        self.root.join(format!("node-{}", self.id()))
    }

    /// The whole file. Paths are TOML literals: the harness makes them, and none has a quote in it.
    fn text(&self) -> String {
        let (id, folder, pki) = (self.id(), self.folder(), self.root.join("pki"));
        let (folder, pki) = (folder.display(), pki.display());
        let mut peers = String::new();
        for (id, Addresses { control, data, .. }) in (1..).zip(self.peers) {
            let _infallible = write!(peers, "\n[[peers]]\nid = {id}\ncontrol = '{control}'\ndata = '{data}'\n");
        }
        format!(
            "[cluster]
id = '{CLUSTER_ID}'
network = 'regtest'
finality_depth = {FINALITY_DEPTH}

[node]
id = {id}
data_dir = '{folder}/data'
{peers}
[listen]
data = '{data}'
control = '{control}'
health = '{health}'

[tls]
ca = '{pki}/ca.pem'
cert = '{pki}/node-{id}.pem'
key = '{pki}/node-{id}.key'

[bitcoind]
url = 'http://{rpc}'
cookie_file = '{cookie}'
min_peers = 0

[[signers]]
name = '{SIGNER}'
kind = 'software'
file = '{folder}/hot.xprv'
audit_log = '{folder}/signer.log'
",
            data = self.listen.data,
            control = self.listen.control,
            health = self.listen.health,
            rpc = self.rpc,
            cookie = self.cookie_file.display(),
        )
    }
}

/// A node and its process, which may be down. Dropping it kills it.
#[derive(Debug)]
pub struct Node {
    name: String,
    index: usize,
    folder: PathBuf,
    addresses: Addresses,
    /// As others reach its data port.
    advertised: SocketAddr,
    program: PathBuf,
    variables: Vec<(String, String)>,
    /// Who is told which process it is.
    processes: Processes,
    process: Option<Process>,
}

impl Node {
    /// Writes its files and starts it.
    ///
    /// # Errors
    /// A file cannot be written, or its program cannot be started.
    pub fn start(config: &NodeConfig<'_>, wallet: &HotWallet, processes: &Processes) -> Result<Self> {
        let folder = config.folder();
        fs::create_dir_all(folder.join("data"))?;
        let advertised = config.peers.get(config.index).context("no addresses for this node")?.data;
        fs::write(folder.join("config.toml"), config.text())?;
        wallet.write_signer_file(&folder.join("hot.xprv"))?;
        let mut node = Self {
            name: format!("node-{}", config.id()),
            index: config.index,
            folder,
            addresses: config.listen,
            advertised,
            program: config.program.to_path_buf(),
            variables: config.variables.to_vec(),
            processes: processes.clone(),
            process: None,
        };
        node.restart()?;
        Ok(node)
    }

    /// Starts it again with its disk. Does nothing when it runs.
    ///
    /// # Errors
    /// Its program cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.as_mut().is_some_and(Process::is_running) {
            return Ok(());
        }
        let args = ["serve".to_owned(), "--config".to_owned(), self.config_file().display().to_string()];
        let log = self.folder.join("node.log");
        let mut variables = self.variables.clone();
        variables.push((FAILPOINTS_VARIABLE.to_owned(), self.failpoints_file().display().to_string()));
        let process = Process::spawn_with(&self.name, &self.program, &args, &variables, &log)?;
        self.processes.note(self.index, process.pid());
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL, as a power cut would.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill().map(drop))
    }

    /// SIGTERM: it hands leadership over and drains.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.stop(STOP_GRACE).map(drop))
    }

    /// Freezes or thaws it.
    ///
    /// # Errors
    /// It is down.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().with_context(|| format!("{} is down", self.name))?.signal(signal)
    }

    /// Fails when it has ended by itself; one that the harness took down is fine.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::must_run)
    }

    /// Whether its process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Its process, to look at it or to see how it ends; `None` while the harness has it down.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// `node-1` …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// How callers reach it: through the relay, where there is one.
    pub fn advertised(&self) -> SocketAddr {
        self.advertised
    }

    /// What faults it has to make up, if it was built so that it can.
    pub fn failpoints_file(&self) -> PathBuf {
        self.folder.join("failpoints.json")
    }

    /// What its signer wrote.
    pub fn signer_log(&self) -> PathBuf {
        self.folder.join("signer.log")
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log_tail)
    }

    /// How HAProxy sees it.
    pub fn backend(&self) -> Backend {
        Backend { name: self.name.clone(), data: self.advertised, health: self.addresses.health }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_configuration_is_toml_and_names_everybody() {
        let addresses = [Addresses::free().unwrap(), Addresses::free().unwrap()];
        let rpc = addresses[0].data;
        let root = Path::new("/tmp/a cluster");
        let cookie_file = Path::new("/tmp/a cluster/bitcoind-2/regtest/.cookie");
        let (listen, peers, program) = (addresses[1], &addresses, Path::new("onespend"));
        let config = NodeConfig { root, index: 1, listen, peers, rpc, cookie_file, program, variables: &[] };
        let parsed: toml::Table = config.text().parse().unwrap();
        assert_eq!(parsed["node"]["id"].as_integer(), Some(2));
        assert_eq!(parsed["peers"].as_array().unwrap().len(), 2);
        assert_eq!(parsed["peers"][1]["control"].as_str().unwrap(), addresses[1].control.to_string());
        assert_eq!(parsed["listen"]["health"].as_str().unwrap(), addresses[1].health.to_string());
        assert_eq!(parsed["tls"]["key"].as_str().unwrap(), "/tmp/a cluster/pki/node-2.key");
        assert_eq!(parsed["bitcoind"]["cookie_file"].as_str().unwrap(), cookie_file.to_str().unwrap());
        assert_eq!(parsed["signers"][0]["audit_log"].as_str().unwrap(), "/tmp/a cluster/node-2/signer.log");
    }
}
