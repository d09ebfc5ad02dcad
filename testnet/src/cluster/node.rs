//! One node: its configuration file, its folder, its process.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::switch::Processes;
use super::{CLUSTER_ID, FINALITY_DEPTH, SIGNER};
use crate::balancer::Backend;
use crate::ports::free_port;
use crate::process::{Process, Signal};
use crate::wallet::HotWallet;

/// Names the file that a node with the feature `failpoints` reads its faults from; any other node has never heard of it.
const FAILPOINTS_VARIABLE: &str = "ONESPEND_FAILPOINTS";
/// Above the node's own hard deadline for its shutdown (15 s).
const STOP_GRACE: Duration = Duration::from_secs(20);

/// The listeners of a node.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Wallet back ends.
    pub data: SocketAddr,
    /// Nodes and operators.
    pub control: SocketAddr,
    /// Load balancers and people.
    pub health: SocketAddr,
    /// HAProxy's agent check.
    pub agent: SocketAddr,
}

impl Addresses {
    /// Free ports.
    ///
    /// # Errors
    /// All ports are taken.
    pub fn free() -> Result<Self> {
        let listen = || -> Result<SocketAddr> { Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?))) };
        Ok(Self { data: listen()?, control: listen()?, health: listen()?, agent: listen()? })
    }
}

/// What a node's configuration file is made from.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster's folder.
    pub root: PathBuf,
    /// Which place it has, from 0: where it listens, and which bitcoind is beside it.
    pub index: usize,
    /// Its id: another one after its disk was lost.
    pub id: u64,
    /// Whether it waits to be added to a cluster that runs.
    pub join: bool,
    /// Where it listens.
    pub listen: Addresses,
    /// How all nodes are reached, in order.
    pub peers: Vec<Addresses>,
    /// How it reaches the RPC of the bitcoind beside it.
    pub rpc: SocketAddr,
    /// Its cookie.
    pub cookie_file: PathBuf,
    /// What it runs.
    pub program: PathBuf,
    /// What is in its environment beside that of the harness.
    pub variables: Vec<(String, String)>,
    /// What its file has besides, as whole sections of TOML.
    pub sections: String,
}

impl NodeConfig {
    fn name(&self) -> String {
        format!("node-{}", self.index + 1)
    }

    fn folder(&self) -> PathBuf {
        self.root.join(self.name())
    }

    fn data_folder(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// How others reach it.
    fn advertised(&self) -> Result<Addresses> {
        self.peers.get(self.index).copied().context("no addresses for this node")
    }

    /// One that joins knows only itself.
    fn sections_of_peers(&self) -> String {
        let mut text = String::new();
        for (index, Addresses { control, data, .. }) in self.peers.iter().enumerate() {
            let id = if index == self.index { self.id.to_string() } else { (index + 1).to_string() };
            if index == self.index || !self.join {
                let _infallible = write!(text, "\n[[peers]]\nid = {id}\ncontrol = '{control}'\ndata = '{data}'\n");
            }
        }
        text
    }

    /// The whole file. Paths are TOML literals: the harness makes them, and none has a quote in it.
    fn text(&self) -> String {
        let (id, join, peers, sections) = (self.id, self.join, self.sections_of_peers(), &self.sections);
        let (folder, pki) = (self.folder(), self.root.join("pki"));
        let (folder, pki) = (folder.display(), pki.display());
        format!(
            "[cluster]
id = '{CLUSTER_ID}'
network = 'regtest'
finality_depth = {FINALITY_DEPTH}

[node]
id = {id}
join = {join}
data_dir = '{folder}/data'
{peers}
[listen]
data = '{data}'
control = '{control}'
health = '{health}'
agent = '{agent}'

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
{sections}",
            data = self.listen.data,
            control = self.listen.control,
            health = self.listen.health,
            agent = self.listen.agent,
            rpc = self.rpc,
            cookie = self.cookie_file.display(),
        )
    }
}

/// A node and its process, which may be down. Dropping it kills it.
#[derive(Debug)]
pub struct Node {
    name: String,
    config: NodeConfig,
    /// As others reach it.
    advertised: Addresses,
    /// Who is told which process it is.
    processes: Processes,
    process: Option<Process>,
}

impl Node {
    /// Writes its files and starts it.
    ///
    /// # Errors
    /// A file cannot be written, or its program cannot be started.
    pub fn start(config: NodeConfig, wallet: &HotWallet, processes: &Processes) -> Result<Self> {
        fs::create_dir_all(config.data_folder())?;
        wallet.write_signer_file(&config.folder().join("hot.xprv"))?;
        let (name, advertised) = (config.name(), config.advertised()?);
        let mut node = Self { name, config, advertised, processes: processes.clone(), process: None };
        node.write_config()?;
        node.restart()?;
        Ok(node)
    }

    fn write_config(&self) -> Result<()> {
        Ok(fs::write(self.config_file(), self.config.text())?)
    }

    /// Kills it and throws its disk away. It comes back under another id, and waits to be added; its signer's log is
    /// kept, which is the harness's and not the node's.
    ///
    /// # Errors
    /// It cannot be waited for, or its files cannot be replaced.
    pub(super) fn lose_disk(&mut self, id: u64) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(self.config.data_folder())?;
        fs::create_dir_all(self.config.data_folder())?;
        (self.config.id, self.config.join) = (id, true);
        self.write_config()
    }

    /// Stops it and starts it again with its disk at other addresses, under which the others do not know it yet.
    ///
    /// # Errors
    /// It cannot be signalled, its file cannot be written, or its program cannot be started.
    pub fn relocate(&mut self, to: Addresses) -> Result<()> {
        self.stop()?;
        self.config.listen = to;
        if let Some(own) = self.config.peers.get_mut(self.config.index) {
            *own = to;
        }
        self.advertised = self.config.advertised()?;
        self.write_config()?;
        self.restart()
    }

    /// Stops it and starts it again with its disk and with these sections in its file, instead of those that it was given
    /// before.
    ///
    /// # Errors
    /// It cannot be signalled, its file cannot be written, or its program cannot be started.
    pub fn reconfigure(&mut self, sections: &str) -> Result<()> {
        self.stop()?;
        sections.clone_into(&mut self.config.sections);
        self.write_config()?;
        self.restart()
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
        let log = self.log_file();
        let mut variables = self.config.variables.clone();
        variables.push((FAILPOINTS_VARIABLE.to_owned(), self.failpoints_file().display().to_string()));
        let process = Process::spawn_with(&self.name, &self.config.program, &args, &variables, &log)?;
        self.processes.note(self.config.index, process.pid());
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

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.config.listen
    }

    /// Its id, which is another one after its disk was lost.
    pub fn id(&self) -> u64 {
        self.config.id
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.config.folder().join("config.toml")
    }

    /// How callers reach it: through the relay, where there is one.
    pub fn advertised(&self) -> SocketAddr {
        self.advertised.data
    }

    /// How nodes and operators reach it: through the relay, where there is one.
    pub fn advertised_control(&self) -> SocketAddr {
        self.advertised.control
    }

    /// What faults it has to make up, if it was built so that it can.
    pub fn failpoints_file(&self) -> PathBuf {
        self.config.folder().join("failpoints.json")
    }

    /// What its signer wrote.
    pub fn signer_log(&self) -> PathBuf {
        self.config.folder().join("signer.log")
    }

    /// All that it has logged since it was made.
    pub fn log_file(&self) -> PathBuf {
        self.config.folder().join("node.log")
    }

    /// Where it keeps its data.
    pub fn data_folder(&self) -> PathBuf {
        self.config.data_folder()
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log_tail)
    }

    /// How a load balancer sees it.
    pub fn backend(&self) -> Backend {
        let Addresses { health, agent, .. } = self.config.listen;
        Backend { name: self.name.clone(), data: self.advertised.data, health, agent }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_configuration_is_toml_and_names_everybody() {
        let addresses = [Addresses::free().unwrap(), Addresses::free().unwrap()];
        let cookie_file = PathBuf::from("/tmp/a cluster/bitcoind-2/regtest/.cookie");
        let mut config = NodeConfig {
            root: PathBuf::from("/tmp/a cluster"),
            index: 1,
            id: 2,
            join: false,
            listen: addresses[1],
            peers: addresses.to_vec(),
            rpc: addresses[0].data,
            cookie_file: cookie_file.clone(),
            program: PathBuf::from("onespend"),
            variables: Vec::new(),
            sections: "\n[[checks]]\nname = 'more'\n".to_owned(),
        };
        let parsed: toml::Table = config.text().parse().unwrap();
        assert_eq!(parsed["node"]["id"].as_integer(), Some(2));
        assert_eq!(parsed["peers"].as_array().unwrap().len(), 2);
        assert_eq!(parsed["peers"][1]["control"].as_str().unwrap(), addresses[1].control.to_string());
        assert_eq!(parsed["listen"]["health"].as_str().unwrap(), addresses[1].health.to_string());
        assert_eq!(parsed["tls"]["key"].as_str().unwrap(), "/tmp/a cluster/pki/node-2.key");
        assert_eq!(parsed["bitcoind"]["cookie_file"].as_str().unwrap(), cookie_file.to_str().unwrap());
        assert_eq!(parsed["signers"][0]["audit_log"].as_str().unwrap(), "/tmp/a cluster/node-2/signer.log");
        assert_eq!(parsed["checks"][0]["name"].as_str(), Some("more"));

        (config.id, config.join) = (7, true);
        let joining: toml::Table = config.text().parse().unwrap();
        assert_eq!(joining["node"]["join"].as_bool(), Some(true));
        assert_eq!(joining["peers"].as_array().unwrap().len(), 1);
        assert_eq!(joining["peers"][0]["id"].as_integer(), Some(7));
        assert_eq!(joining["peers"][0]["control"].as_str().unwrap(), addresses[1].control.to_string());
    }
}
