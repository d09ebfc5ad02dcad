//! One node and its disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::blockdata::constants::genesis_block;
use onespend_adapters::chain::fake::FakeChain;
use onespend_adapters::store::memory::{MemoryLog, MemoryState};
use onespend_adapters::store::{LogKey, LogStore, PeerBook};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::ClientTlsConfig;

use super::executor::{Host, current};
use super::judge::{Judge, Witness};
use super::world::{keys, pick};
use crate::alarms::Alarms;
use crate::bitcoind::{BitcoindWatch, Settings};
use crate::checks::Checks;
use crate::health::bitcoind_sync::Rules;
use crate::health::{Health, Limits, Snapshot};
use crate::health_feed::{self, Feed};
use crate::leader::scripts::SharedScripts;
use crate::leader::sign::Signing;
use crate::leader::{self, Duty, broadcast};
use crate::parts;
use crate::raft::simulated::{self, Lines};
use crate::raft::{Addresses, LeaderHint, NoObserver, RaftConfig, RaftParts};
use crate::replica::Replica;
use crate::runtime::{sleep, spawn};
use crate::watchdog::Heartbeat;

/// Numbers of the nodes.
pub(super) const NODES: [Host; 3] = [1, 2, 3];
pub(super) const CLUSTER: &str = "simulated";
/// Longer than any simulation.
const NEVER: Duration = Duration::from_hours(24);

/// What a disk or a node may do that it must not, to see whether the judge notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// It says that entries are synced which a power failure takes away.
    Entries,
    /// It says that votes are.
    Votes,
    /// The health port believes that its node leads, however long ago a quorum acknowledged that.
    Quorum,
}

/// What a node is started with.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) lines: Lines,
    pub(super) chain: FakeChain,
    /// Hears of every signature.
    pub(super) judge: Arc<Judge>,
    /// The same for all nodes: what they derive is the same, and takes most of a start.
    pub(super) scripts: SharedScripts,
    /// What the health ports rest their answers on.
    pub(super) limits: Limits,
}

/// A node that runs.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) replica: Arc<Replica>,
    pub(super) signing: Arc<Signing>,
    pub(super) health: Arc<Health>,
}

/// A machine with its disk, on or off.
pub(super) struct Machine {
    id: Host,
    disk: TempDir,
    log: Arc<MemoryLog>,
    state: Arc<MemoryState>,
    pub(super) running: Option<Running>,
    /// It was switched on, and may not run yet.
    pub(super) on: bool,
    lie: Option<Lie>,
    /// Where its signer remembers what it has signed, if it does: on a real disk, so no power failure takes it away.
    memory: Option<TempDir>,
    /// The vote that it had at its last start.
    vote: Option<Arc<[u8]>>,
}

impl Machine {
    pub(super) fn new(id: Host, lie: Option<Lie>, remembers: bool) -> Self {
        let disk = TempDir::new().unwrap();
        let state = Arc::new(MemoryState::open(disk.path(), CLUSTER).unwrap());
        let (log, memory) = (Arc::new(MemoryLog::unsynced()), remembers.then(|| TempDir::new().unwrap()));
        Self { id, disk, log, state, running: None, on: false, lie, memory, vote: None }
    }

    /// What starts the node, to be run on its host.
    pub(super) fn boot(&self, site: Site) -> impl Future<Output = Running> + use<> {
        let memory = self.memory.as_ref().map(|folder| folder.path().join("signer.db"));
        boot(self.id, Arc::clone(&self.log), Arc::clone(&self.state), memory, site)
    }

    /// The power fails: every task is gone, and what was not synced.
    pub(super) fn kill(&mut self, lines: &Lines) {
        lines.disconnect(self.id);
        self.running = None;
        self.on = false;
        if let Some(executor) = current() {
            executor.kill(self.id);
        }
        self.log = Arc::new(self.log.crash());
        self.state = Arc::new(MemoryState::open(self.disk.path(), CLUSTER).unwrap());
        match self.lie {
            Some(Lie::Entries) => self.lose_entries(),
            Some(Lie::Votes) => self.lose_vote(),
            Some(Lie::Quorum) | None => {}
        }
    }

    fn lose_entries(&self) {
        let state = self.log.state();
        let lowest = state.purged.map_or(0, |purged| purged.index + 1);
        let from = state.last.map_or(0, |last| last.saturating_sub(8)).max(lowest);
        self.log.truncate_from(from, Box::new(|_| {}));
        self.log.sync();
    }

    /// It has the vote of its last start.
    fn lose_vote(&mut self) {
        let vote = self.log.get(LogKey::Vote);
        if let Some(old) = std::mem::replace(&mut self.vote, vote) {
            self.log.put(LogKey::Vote, old.to_vec(), Box::new(|_| {}));
            self.log.sync();
        }
    }
}

async fn boot(id: Host, log: Arc<MemoryLog>, state: Arc<MemoryState>, memory: Option<PathBuf>, site: Site) -> Running {
    spawn(sync(Arc::clone(&log)));
    let parts = RaftParts {
        config: RaftConfig { snapshot_every_entries: 100, keep_log_entries: 5, ..RaftConfig::default() },
        cluster_id: CLUSTER.to_owned(),
        node_id: id,
        log,
        state: state.clone(),
        instance: format!("disk-{id}"),
        peers: PeerBook::default(),
        tls: ClientTlsConfig::new(),
        observer: Arc::new(NoObserver),
    };
    let raft = simulated::start(parts, &site.lines, state).await;
    raft.initialize(NODES.map(|id| (id, Addresses::default())).into()).await.unwrap();
    let hint = LeaderHint { node_id: id, addresses: Addresses::default(), term: 0 };
    let replica = Arc::new(Replica::new(raft, hint));
    let chain = Arc::new(site.chain);
    let bitcoind = BitcoindWatch::new(chain.clone(), parts::state_reader(&replica), settings());
    spawn(look(Arc::clone(&bitcoind)));
    let (outbox, inbox) = broadcast::queue();
    let alarms = Arc::new(Alarms::default());
    let signer = Arc::new(Witness::new(keys(memory.as_deref()), site.judge, chain.as_ref().clone()));
    let signing = Arc::new(Signing::new(Arc::clone(&replica), vec![signer], outbox, Arc::clone(&alarms)));
    let first = Snapshot::starting(CLUSTER, id, BTreeMap::new());
    let health = Arc::new(Health::new(first.clone(), site.limits, |_| String::new()));
    let feed = Feed {
        replica: Arc::clone(&replica),
        bitcoind: Arc::clone(&bitcoind),
        alarms: Arc::clone(&alarms),
        checks: Checks::none(),
        heartbeat: Arc::new(Heartbeat::default()),
        health: Arc::clone(&health),
        first,
    };
    spawn(health_feed::run(feed, CancellationToken::new()));
    let duty = Duty {
        replica: Arc::clone(&replica),
        chain,
        bitcoind,
        signing: Arc::clone(&signing),
        inbox,
        alarms,
        scripts: site.scripts,
        network: Network::Regtest,
    };
    spawn(leader::run(Arc::new(duty), CancellationToken::new()));
    Running { replica, signing, health }
}

/// The defaults of a configuration, but for bitcoind: it is probed by the machine's own clock.
pub(super) fn limits(lie: Option<Lie>) -> Limits {
    let raft = RaftConfig::default();
    Limits {
        max_lag_entries: 1_000,
        quorum_ack: if lie == Some(Lie::Quorum) { NEVER } else { raft.election_timeout_max },
        leader_contact: Duration::from_secs(1),
        snapshot: Duration::from_secs(1),
        bitcoind_view: NEVER,
    }
}

/// The disk: what was written is synced after a while, and then acknowledged.
async fn sync(log: Arc<MemoryLog>) {
    loop {
        sleep(until_synced()).await;
        log.sync();
    }
}

/// Up to 6 ms, and now and then up to 400.
fn until_synced() -> Duration {
    let longest = if pick(0..=199) == 0 { 400_000 } else { 6_000 };
    Duration::from_micros(pick(200..=longest) as u64)
}

async fn look(bitcoind: Arc<BitcoindWatch>) {
    loop {
        bitcoind.look();
        sleep(Duration::from_millis(250)).await;
    }
}

fn settings() -> Settings {
    let network = Network::Regtest;
    Settings {
        network,
        rules: Rules {
            chain: network.to_core_arg().to_owned(),
            genesis: genesis_block(network).block_hash().to_string(),
            max_lag_blocks: 100,
            min_peers: 0,
            max_silence: NEVER,
        },
        poll: NEVER,
        timeout: NEVER,
    }
}
