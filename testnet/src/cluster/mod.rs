//! A whole cluster of real processes: N nodes, a bitcoind beside each, HAProxy in front, certificates for everyone.
//!
//! Everything lies in one folder: `pki/`, `bitcoind-1/` …, `node-1/` …, `haproxy.cfg`.

mod folder;
mod membership;
mod memory;
mod node;
mod pki;
mod switch;
mod wires;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::balancer::{Backend, Balancer, Kind};
use crate::bitcoind::{Bitcoind, wait_for_same_tip};
use crate::funds::Funds;
use crate::health;
use crate::miner::Miner;
use crate::programs;
use crate::wallet::HotWallet;

pub use folder::Folder;
pub use membership::Replacement;
pub use memory::signer_memory;
pub use node::{Addresses, Node, NodeConfig};
pub use pki::Credentials;
pub use wires::Wires;

/// The cluster's name in certificates and configuration.
pub const CLUSTER_ID: &str = "demo";
/// The name of the signer that holds the wallet's keys.
pub const SIGNER: &str = "hot";
/// Blocks until a payment is settled.
pub const FINALITY_DEPTH: u32 = 6;
/// More nodes than anyone needs on one machine.
pub const MAX_NODES: usize = 9;

const PRIMARY_TIMEOUT: Duration = Duration::from_mins(1);
const HEALTH_TIMEOUT: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(10);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Nodes, 1 to [`MAX_NODES`].
    pub nodes: usize,
    /// Keys and coins follow from it.
    pub seed: u64,
    /// What the nodes run.
    pub program: PathBuf,
    /// What is in their environment beside that of the harness.
    pub variables: Vec<(String, String)>,
    /// Whether relays lie in every path.
    pub wired: bool,
}

/// A running cluster. Dropping it ends every process.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: callers first see closed doors, then the nodes go, then what they stand on.
    haproxy: Balancer,
    nodes: Vec<Node>,
    wires: Option<Wires>,
    bitcoinds: Vec<Bitcoind>,
    funds: Funds,
    wallet: HotWallet,
    operator: Credentials,
    client: Credentials,
    folder: Folder,
}

impl Cluster {
    /// Starts everything and waits until one node may take spends. `step` is told what happens next.
    ///
    /// # Errors
    /// A program is missing or does not come up. The folder stays, and says so.
    pub fn start(folder: Folder, nodes: usize, seed: u64, step: &mut dyn FnMut(&str)) -> Result<Self> {
        let program = programs::onespend()?;
        Self::start_as(folder, &Setup { nodes, seed, program, variables: Vec::new(), wired: false }, step)
    }

    /// The same of other parts.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_as(folder: Folder, setup: &Setup, step: &mut dyn FnMut(&str)) -> Result<Self> {
        let (nodes, seed) = (setup.nodes, setup.seed);
        ensure!((1..=MAX_NODES).contains(&nodes), "1 to {MAX_NODES} nodes, not {nodes}");
        let root = folder.path();
        step("certificates");
        pki::init(&root.join("pki"))?;
        let operator = pki::issue(&root.join("pki"), "operator", "alice")?;
        let client = pki::issue(&root.join("pki"), "client", "payouts")?;

        step("bitcoind, one per node");
        let bitcoinds = start_bitcoinds(root, nodes)?;
        // The first coinbases come before the nodes: a chain at height 0 with an old tip counts as not in sync.
        let mut funds = Funds::new(seed)?;
        funds.mine(bitcoinds.first().context("no bitcoind")?, COINBASES)?;
        wait_for_same_tip(&bitcoinds)?;

        step("nodes and HAProxy");
        let wallet = HotWallet::new(seed)?;
        let (nodes, wires) = start_nodes(root, setup, &bitcoinds, &wallet)?;
        let backends: Vec<Backend> = nodes.iter().map(Node::backend).collect();
        let haproxy = Balancer::start(Kind::Haproxy, root, &backends, None)?;
        let mut cluster = Self { haproxy, nodes, wires, bitcoinds, funds, wallet, operator, client, folder };
        step("the first election");
        cluster.wait_for_primary(PRIMARY_TIMEOUT)?;
        Ok(cluster)
    }

    /// Index of the node that may take spends, once there is one. Several at once is a fault of the service, not of
    /// the harness, and left to the oracle that samples the endpoints.
    ///
    /// # Errors
    /// There is none in time, or a node that should run has ended; the message has what the nodes say.
    pub fn wait_for_primary(&mut self, timeout: Duration) -> Result<usize> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(index) = self.find("/primary") {
                return Ok(index);
            }
            for node in &mut self.nodes {
                node.must_run()?;
            }
            if Instant::now() >= deadline {
                bail!("no node is primary after {timeout:?}:\n{}", self.opinions("/primary"));
            }
            thread::sleep(POLL);
        }
    }

    /// Index of a node whose health port answers 200 on `path`.
    pub fn find(&self, path: &str) -> Option<usize> {
        self.nodes.iter().position(|node| health::status(node.addresses().health, path, HEALTH_TIMEOUT) == 200)
    }

    fn opinions(&self, path: &str) -> String {
        let opinion = |node: &Node| match health::get(node.addresses().health, path, HEALTH_TIMEOUT) {
            Ok(answer) => format!("  {}: {} {}", node.name(), answer.status, answer.body.trim()),
            Err(error) => format!("  {}: {error}", node.name()),
        };
        let all: Vec<String> = self.nodes.iter().map(opinion).collect();
        format!("{}\n{}", all.join("\n"), self.nodes.first().map_or_else(String::new, Node::log_tail))
    }

    /// The nodes, in order of their ids.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node, to kill, freeze or restart it.
    ///
    /// # Errors
    /// There is no such node.
    pub fn node(&mut self, index: usize) -> Result<&mut Node> {
        self.nodes.get_mut(index).with_context(|| format!("no node at index {index}"))
    }

    /// The relays.
    ///
    /// # Errors
    /// The cluster was started without them.
    pub fn wires(&self) -> Result<&Wires> {
        self.wires.as_ref().context("this cluster has no relays")
    }

    /// The bitcoinds, in the order of the nodes.
    pub fn bitcoinds(&self) -> &[Bitcoind] {
        &self.bitcoinds
    }

    /// One bitcoind, to kill, freeze or restart it.
    ///
    /// # Errors
    /// There is no such bitcoind.
    pub fn bitcoind(&mut self, index: usize) -> Result<&mut Bitcoind> {
        self.bitcoinds.get_mut(index).with_context(|| format!("no bitcoind at index {index}"))
    }

    /// The harness's coins, with a bitcoind to send through.
    ///
    /// # Errors
    /// There is no bitcoind.
    pub fn funds(&mut self) -> Result<(&mut Funds, &Bitcoind)> {
        Ok((&mut self.funds, self.bitcoinds.first().context("no bitcoind")?))
    }

    /// Mines in the background, to the harness's key, a block every `pace`.
    ///
    /// # Errors
    /// The key has no address, which it has.
    pub fn start_miner(&self, pace: Duration) -> Result<Miner> {
        Miner::start(&self.bitcoinds, self.funds.script(), pace)
    }

    /// The wallet that the signers hold.
    pub fn wallet(&self) -> &HotWallet {
        &self.wallet
    }

    /// A load balancer in front of all nodes, beside the HAProxy that every cluster has. Its checks are made as
    /// `client/balancer`.
    ///
    /// # Errors
    /// As [`Balancer::start`].
    pub fn balance(&self, kind: Kind) -> Result<Balancer> {
        let folder = self.folder().join(format!("balancer-{}", kind.name()));
        fs::create_dir_all(&folder)?;
        let pki = self.folder().join("pki");
        let own = pki::known(&pki, "client", "balancer").map_or_else(|| self.issue("client", "balancer"), Ok)?;
        let backends: Vec<Backend> = self.nodes.iter().map(Node::backend).collect();
        Balancer::start(kind, &folder, &backends, Some(&own))
    }

    /// Front end for writes.
    pub fn primary_address(&self) -> SocketAddr {
        self.haproxy.primary()
    }

    /// Front end for reads.
    pub fn read_only_address(&self) -> SocketAddr {
        self.haproxy.read_only()
    }

    /// Who administers.
    pub fn operator(&self) -> &Credentials {
        &self.operator
    }

    /// Who pays.
    pub fn client(&self) -> &Credentials {
        &self.client
    }

    /// A certificate for somebody else: `kind` is client or operator.
    ///
    /// # Errors
    /// There is no `onespend`, or it refuses.
    pub fn issue(&self, kind: &str, name: &str) -> Result<Credentials> {
        pki::issue(&self.folder().join("pki"), kind, name)
    }

    /// Where everything lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Orderly end: nodes by SIGTERM, and the folder is removed if it is a temporary one.
    ///
    /// # Errors
    /// A node cannot be signalled.
    pub fn finish(mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.stop()?;
        }
        for bitcoind in &mut self.bitcoinds {
            bitcoind.kill()?; // its chain is thrown away, so there is nothing to save
        }
        self.folder.succeeded();
        Ok(())
    }
}

/// Enough for a few thousand payments: 50 BTC each.
const COINBASES: u32 = 4;

fn start_bitcoinds(root: &Path, count: usize) -> Result<Vec<Bitcoind>> {
    let mut started: Vec<Bitcoind> = Vec::new();
    for id in 1..=count {
        let name = format!("bitcoind-{id}");
        let mut bitcoind = Bitcoind::start(&name, &root.join(&name))?;
        for other in &mut started {
            bitcoind.peer_with(other)?;
        }
        started.push(bitcoind);
    }
    Ok(started)
}

fn start_nodes(
    root: &Path,
    setup: &Setup,
    bitcoinds: &[Bitcoind],
    wallet: &HotWallet,
) -> Result<(Vec<Node>, Option<Wires>)> {
    let listen = bitcoinds.iter().map(|_| Addresses::free()).collect::<Result<Vec<_>>>()?;
    let rpcs: Vec<SocketAddr> = bitcoinds.iter().map(Bitcoind::rpc_address).collect();
    let wires = setup.wired.then(|| Wires::start(&listen, &rpcs)).transpose()?;
    let peers = wires.as_ref().map_or_else(|| listen.clone(), |wires| wires.advertised(&listen));
    let processes = wires.as_ref().map(|wires| wires.processes().clone()).unwrap_or_default();
    let mut nodes = Vec::new();
    for (index, (bitcoind, listen)) in bitcoinds.iter().zip(&listen).enumerate() {
        pki::issue(&root.join("pki"), "node", &(index + 1).to_string())?;
        let relay = wires.as_ref().map(|wires| wires.bitcoind(index)).transpose()?;
        let config = NodeConfig {
            root: root.to_path_buf(),
            index,
            id: u64::try_from(index + 1)?,
            join: false,
            listen: *listen,
            peers: peers.clone(),
            rpc: relay.map_or_else(|| bitcoind.rpc_address(), crate::relay::Relay::address),
            cookie_file: bitcoind.cookie_file(),
            program: setup.program.clone(),
            variables: setup.variables.clone(),
            sections: String::new(),
        };
        nodes.push(Node::start(config, wallet, &processes)?);
    }
    Ok((nodes, wires))
}
