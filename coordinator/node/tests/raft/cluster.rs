//! Nodes of one cluster in one process, over real TLS on loopback, each with its own view of the others' addresses so that
//! every link can be cut by itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onespend::raft::{Addresses, NoObserver, RaftConfig, RaftNode, RaftParts, Role};
use onespend_adapters::store::sqlite::{DataFolder, LogOptions, SqliteLog, SqliteState};
use onespend_adapters::store::{LogStore, Owner, PeerBook, StateStore, StoreError};
use onespend_proto::peer::v1::GetNodeViewResponse;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::certificates::{Authority, node_of};
use crate::relay::Relay;

pub const CLUSTER: &str = "test";
/// No condition takes longer than this even on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn within(duration: Duration) -> Instant {
    Instant::now() + duration
}

/// Waits for a condition that something else brings about.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = within(PATIENCE);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "in {PATIENCE:?} not: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

struct Running {
    node: RaftNode,
    server: tokio::task::JoinHandle<()>,
    draining: CancellationToken,
}

pub struct Cluster {
    authority: Authority,
    config: RaftConfig,
    folders: BTreeMap<u64, TempDir>,
    addresses: BTreeMap<u64, SocketAddr>,
    /// From one node to another.
    relays: BTreeMap<(u64, u64), Relay>,
    running: BTreeMap<u64, Running>,
}

impl Cluster {
    /// Starts nodes 1 to `size`, and waits for a leader.
    pub async fn start(size: u64, config: RaftConfig) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut cluster = Self {
            authority: Authority::new(),
            config,
            folders: BTreeMap::new(),
            addresses: BTreeMap::new(),
            relays: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        for id in 1..=size {
            cluster.make_room(id).await;
        }
        for id in 1..=size {
            cluster.run(id).await;
            let members = (1..=size).map(|to| (to, cluster.seen_from(id, to))).collect();
            cluster.node(id).initialize(members).await.unwrap();
        }
        cluster.leader().await;
        cluster
    }

    /// A folder, a port and links for a node that does not run yet.
    pub async fn make_room(&mut self, id: u64) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for other in self.addresses.keys().copied().collect::<Vec<_>>() {
            self.relays.insert((other, id), Relay::to(address).await);
            self.relays.insert((id, other), Relay::to(self.addresses[&other]).await);
        }
        self.addresses.insert(id, address);
        self.folders.insert(id, TempDir::new().unwrap());
    }

    /// Where `to` is, for `from`.
    pub fn seen_from(&self, from: u64, to: u64) -> Addresses {
        let control = self.relays.get(&(from, to)).map_or(self.addresses[&to], |relay| relay.address);
        Addresses { control: control.to_string(), data: String::new() }
    }

    pub async fn run(&mut self, id: u64) {
        let owner = Owner { cluster_id: CLUSTER.to_owned(), node_id: id };
        // A stopped node's stores are closed with the last handle to it, which some task may hold a moment longer.
        let folder = until("the folder is free", async || match DataFolder::open(self.folders[&id].path(), &owner) {
            Err(StoreError::Locked { .. }) => None,
            opened => Some(opened.unwrap()),
        })
        .await;
        let log: Arc<dyn LogStore> = Arc::new(SqliteLog::open(&folder, LogOptions::default()).unwrap());
        let state: Arc<dyn StateStore> = Arc::new(SqliteState::open(&folder).unwrap());
        let certificate = self.authority.issue(CLUSTER, &format!("node/{id}"));
        let node = RaftNode::start(RaftParts {
            config: self.config.clone(),
            cluster_id: CLUSTER.to_owned(),
            node_id: id,
            log,
            state,
            instance: folder.instance().to_owned(),
            peers: PeerBook::open(&folder).unwrap(),
            tls: certificate.client(),
            observer: Arc::new(NoObserver),
        })
        .await
        .unwrap();
        let service = node.peer_service(Arc::new(node_of), Arc::new(GetNodeViewResponse::default)).into_server();
        let incoming = TcpIncoming::bind(self.addresses[&id]).unwrap().with_nodelay(Some(true));
        let server = Server::builder().tls_config(certificate.server()).unwrap().add_service(service);
        let draining = CancellationToken::new();
        let drained = draining.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            server.serve_with_incoming_shutdown(incoming, drained).await.unwrap();
        });
        self.running.insert(id, Running { node, server, draining });
    }

    /// A node's disk is lost.
    pub fn wipe(&mut self, id: u64) {
        assert!(!self.running.contains_key(&id));
        self.folders.insert(id, TempDir::new().unwrap());
    }

    /// Stops a node as the daemon does: Raft first, which ends its streams, and then the server.
    pub async fn stop(&mut self, id: u64) {
        let Running { node, server, draining } = self.running.remove(&id).unwrap();
        node.stop().await.unwrap();
        draining.cancel();
        server.await.unwrap();
    }

    pub fn node(&self, id: u64) -> &RaftNode {
        &self.running[&id].node
    }

    pub fn ids(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    pub fn address(&self, id: u64) -> SocketAddr {
        self.addresses[&id]
    }

    /// Nothing gets from or to a node, and nobody is told.
    pub fn isolate(&self, id: u64, cut: bool) {
        for ((from, to), relay) in &self.relays {
            if *from == id || *to == id {
                relay.set_cut(cut);
            }
        }
    }

    /// The node that leads and is ready to.
    pub async fn leader(&self) -> u64 {
        self.leader_among(&self.ids()).await
    }

    pub async fn leader_among(&self, ids: &[u64]) -> u64 {
        until("there is a leader", async || {
            ids.iter().copied().find(|id| self.node(*id).leadership().borrow().leader_term().is_some())
        })
        .await
    }

    /// Waits until every node has applied the same, and compares their states.
    pub async fn agree(&self) -> [u8; 32] {
        let nodes: Vec<_> = self.ids().into_iter().map(|id| self.node(id).clone()).collect();
        let hashes = until("all nodes are at the same index", async || {
            let seen: Vec<_> =
                nodes.iter().map(|node| node.view().read(|state| (state.applied(), state.hash()))).collect();
            let last = nodes.iter().filter_map(|node| node.status().last_log).max();
            let level = seen.iter().all(|(applied, _)| Some(applied.0) == last);
            level.then_some(seen)
        })
        .await;
        assert!(hashes.iter().all(|seen| *seen == hashes[0]), "states differ at index {}", hashes[0].0);
        hashes[0].1
    }

    pub async fn end(mut self) {
        for id in self.ids() {
            self.stop(id).await;
        }
    }
}

/// Runs a test on a cluster's leader whoever that is: when it changes meanwhile, asks the new one.
pub async fn on_leader<T, F>(cluster: &Cluster, ids: &[u64], mut ask: impl FnMut(RaftNode) -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    until("the leader answers", async || {
        let leader = cluster.leader_among(ids).await;
        ask(cluster.node(leader).clone()).await
    })
    .await
}

pub fn is_leader(node: &RaftNode) -> bool {
    node.status().role == Role::Leader
}
