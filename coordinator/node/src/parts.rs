//! From sections of the configuration to the parts that they describe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bitcoin::blockdata::constants::genesis_block;
use onespend_adapters::chain::{Bitcoind, BitcoindConfig, Chain, ChainError, RpcObserver};
use onespend_adapters::signer::Signer;

use onespend_adapters::store::sqlite::{DataFolder, LogOptions, SqliteLog, SqliteState};
use onespend_adapters::store::{CommitStats, Owner, PeerBook};
use onespend_proto::peer::v1::GetNodeViewResponse;
use onespend_proto::v1;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use crate::backup::Schedule;
use crate::bitcoind::{ReadState, Settings};
use crate::checks::Checks;
use crate::checks::built_in::Figures;
use crate::checks::fsync::FsyncWatch;
use crate::config::{Config, PeerConfig, SignerConfig};
use crate::feature_level;
use crate::grpc::api::Api;
use crate::health::bitcoind_sync::Rules;
use crate::identity::{Identity, Party};
use crate::metrics::{self, RpcOutcome};
use crate::raft::{Addresses, NodeId, NodeView, PeerIdentity, ProposalEnd, RaftObserver, RaftParts};
use crate::replica::Replica;
use crate::room::{self, Room};
use crate::tls::Material;

/// This node's certificates. One that is not its own is refused before anybody else does; the metrics say when it ends.
pub(crate) fn tls(config: &Config) -> anyhow::Result<Material> {
    let tls = Material::load(&config.tls)?;
    let identity = tls.identity().context("tls.cert")?;
    let (cluster, node) = (&config.cluster.id, config.node.id);
    ensure!(
        identity.cluster == *cluster && identity.party == Party::Node(node),
        "tls.cert is {}, but this is node {node} of cluster {cluster}: issue one with \
         `onespend pki issue node {node} --dir DIR --host HOST`",
        identity.uri()
    );
    for (certificate, at_unix_s) in tls.expiries() {
        metrics::certificate_expiry(certificate, at_unix_s);
    }
    Ok(tls)
}

/// This node's bitcoind. Nothing is asked of it yet.
pub(crate) fn chain(config: &Config) -> anyhow::Result<Arc<dyn Chain>> {
    let login = config.bitcoind.login.as_ref().context("bitcoind: no way to log in is set")?;
    let auth = login.auth().map_err(anyhow::Error::msg)?;
    let timeout = config.bitcoind.timeout;
    let settings = BitcoindConfig { timeout, ..BitcoindConfig::new(config.bitcoind.url.clone(), auth) };
    Ok(Arc::new(Bitcoind::new(settings, Some(rpc_observer()))?))
}

fn rpc_observer() -> RpcObserver {
    Arc::new(|method, took, result: Result<(), &ChainError>| {
        let outcome = match result {
            Ok(()) => RpcOutcome::Ok,
            Err(error) if error.is_unknown() => RpcOutcome::Unknown,
            Err(_) => RpcOutcome::Error,
        };
        metrics::bitcoind_rpc(method, outcome, took);
    })
}

/// The signers of this node. Their memories may lie in the data folder, so [`raft`] comes first: it makes the folder,
/// locks it, and refuses another node's.
pub(crate) fn signers(config: &Config) -> anyhow::Result<Vec<Arc<dyn Signer>>> {
    config.signers.iter().map(|section| signer(section, config)).collect()
}

fn signer(section: &SignerConfig, config: &Config) -> anyhow::Result<Arc<dyn Signer>> {
    let network = config.cluster.network;
    let keys = section.keys.as_ref().with_context(|| format!("signer {}: no keys are named", section.name))?;
    let signer = keys.software(&section.name, network)?;
    let memory = section.memory_file(&config.node.data_dir);
    let signer = signer.with_memory(&memory, &config.cluster.id, network)?;
    let signer = match &section.audit_log {
        Some(path) => signer.with_audit_log(path)?,
        None => signer,
    };
    Ok(Arc::new(signer))
}

/// What makes backups by itself, if it is told where to.
pub(crate) fn backup_schedule(config: &Config, api: &Api) -> Option<Schedule> {
    let place = config.backup.place.as_ref()?;
    Some(Schedule {
        replica: Arc::clone(&api.replica),
        source: Arc::clone(&api.backups),
        alarms: Arc::clone(&api.alarms),
        depot: place.depot(),
        cluster_id: config.cluster.id.clone(),
        node_id: config.node.id,
        every: config.backup.every,
        keep: config.backup.keep,
    })
}

/// How this node's bitcoind is judged.
pub(crate) fn watch_settings(config: &Config) -> Settings {
    let network = config.cluster.network;
    Settings {
        network,
        rules: Rules {
            chain: network.to_core_arg().to_owned(),
            genesis: genesis_block(network).block_hash().to_string(),
            max_lag_blocks: config.health.max_lag_blocks,
            min_peers: config.bitcoind.min_peers,
            max_silence: config.bitcoind.poll + config.bitcoind.timeout,
        },
        poll: config.bitcoind.poll,
        timeout: config.bitcoind.timeout,
    }
}

/// Lets the watch over bitcoind look at the state without knowing Raft.
pub(crate) fn state_reader(replica: &Arc<Replica>) -> ReadState {
    let replica = Arc::clone(replica);
    Arc::new(move |look| replica.read(|state| look(state)))
}

/// Largest gRPC message.
pub(crate) fn message_bytes(config: &Config) -> usize {
    usize::try_from(config.api.max_message_bytes).unwrap_or(usize::MAX)
}

/// Tells the metrics and the checks how long commits take.
fn log_options(fsync: &Arc<FsyncWatch>) -> LogOptions {
    let (begins, ends) = (Arc::clone(fsync), Arc::clone(fsync));
    LogOptions {
        begins: Some(Arc::new(move || begins.begins())),
        observer: Some(Arc::new(move |stats: CommitStats| {
            ends.ended(stats.duration);
            metrics::log_fsync(stats.duration);
        })),
    }
}

/// The log, the state and the way to the other nodes.
pub(crate) fn raft(config: &Config, tls: &Material, fsync: &Arc<FsyncWatch>) -> anyhow::Result<RaftParts> {
    let owner = Owner { cluster_id: config.cluster.id.clone(), node_id: config.node.id };
    let folder = DataFolder::open(&config.node.data_dir, &owner).context("node.data_dir")?;
    room::make_way(folder.path(), config.storage).context("making room for the log")?;
    let log = SqliteLog::open(&folder, log_options(fsync)).context("opening the log")?;
    let state = SqliteState::open(&folder).context("opening the state")?;
    Ok(RaftParts {
        config: config.raft.clone(),
        cluster_id: config.cluster.id.clone(),
        node_id: config.node.id,
        log: Arc::new(log),
        state: Arc::new(state),
        instance: folder.instance().to_owned(),
        peers: peer_book(config, &folder)?,
        tls: tls.client(),
        observer: Arc::new(RaftMetrics),
    })
}

/// Which data folder each other node came with. Without its file a start goes on, and nobody would notice a lost disk.
fn peer_book(config: &Config, folder: &DataFolder) -> anyhow::Result<PeerBook> {
    if !folder.is_new() && config.has_others() && PeerBook::is_missing(folder.path()) {
        tracing::warn!(
            folder = %folder.path().display(),
            "no peers.json in a data folder that was used before: whatever folder comes next under each id is taken for \
             the right one; that is right only where no other node was met yet"
        );
    }
    PeerBook::open(folder).context("the book of the other nodes")
}

/// Counts what Raft does.
pub(crate) struct RaftMetrics;

impl RaftObserver for RaftMetrics {
    fn proposed(&self, kind: &'static str, end: ProposalEnd, took: Duration) {
        metrics::proposal(kind, end, took);
    }

    fn applied(&self, entries: u64, lag: Option<Duration>) {
        metrics::entries_applied(entries, lag);
    }

    fn leader_changed(&self, leader: Option<NodeId>, _term: u64) {
        // An election passes through a time without a leader; the change is that there is one.
        if leader.is_some() {
            metrics::leader_changed();
        }
    }

    fn snapshot_made(&self, size_bytes: u64, took: Duration) {
        metrics::snapshot_made(size_bytes, took);
    }
}

fn addresses(peer: &PeerConfig) -> Addresses {
    Addresses { control: peer.control.to_string(), data: peer.data.to_string() }
}

/// How others reach this node.
pub(crate) fn own_addresses(config: &Config) -> anyhow::Result<Addresses> {
    config.this_peer().map(addresses).context("peers: this node is not among them")
}

/// The first members of the cluster.
pub(crate) fn members(config: &Config) -> BTreeMap<NodeId, Addresses> {
    config.peers.iter().map(|peer| (peer.id, addresses(peer))).collect()
}

/// Which node a connection on the control port comes from.
pub(crate) fn peer_identity(config: &Config) -> PeerIdentity {
    let cluster = config.cluster.id.clone();
    Arc::new(move |extensions| {
        let certificates = extensions.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
        let certificate = certificates.as_ref().and_then(|chain| chain.first()).ok_or("there is no certificate")?;
        let identity = Identity::of_member(certificate, &cluster).map_err(|error| error.to_string())?;
        match identity.party {
            Party::Node(id) => Ok(id),
            Party::Client(_) | Party::Operator(_) => Err(format!("{} is not a node", identity.party)),
        }
    })
}

/// What this node tells the others of itself.
pub(crate) fn node_view(api: &Arc<Api>, checks: &Arc<Checks>, room: &Arc<Room>) -> NodeView {
    let (api, checks, room) = (Arc::clone(api), Arc::clone(checks), Arc::clone(room));
    Arc::new(move || {
        let hashes = api.replica.hashes();
        let hash = |at: &crate::raft::HashAt| v1::StateHash { index: at.index.0, hash: at.hash.to_vec().into() };
        GetNodeViewResponse {
            view: Some(crate::grpc::own_view(&api)),
            state_hashes: hashes.iter().map(hash).collect(),
            feature_level: feature_level::known(),
            unfit: unfit(&api, &checks).unwrap_or_default(),
            abstains: api.replica.raft().abstains(),
            disk_low: room.is_low(),
            alarms: api.alarms.current().iter().map(|alarm| alarm.code.to_owned()).collect(),
            signer_epoch: api.signing.epoch(),
            contradicts: api.bitcoind.contradicts().map(|block| v1::BlockRef {
                height: block.height.0,
                hash: block.hash.to_string(),
                time: None,
            }),
        }
    })
}

/// Where the built-in checks look.
pub(crate) fn figures(config: &Config, api: &Api, checks: &Checks) -> Figures {
    Figures {
        replica: Arc::clone(&api.replica),
        bitcoind: Arc::clone(&api.bitcoind),
        fsync: Arc::clone(checks.fsync()),
        data_dir: config.node.data_dir.clone(),
    }
}

/// Why this node should not lead, whatever its bitcoind says: its alarms, such as that a signer has not accepted the
/// log, and its checks. Recovery mode is no reason: it is the whole cluster's.
fn unfit(api: &Api, checks: &Checks) -> Option<String> {
    if api.replica.is_draining() {
        return Some("it stops".to_owned());
    }
    let alarm = api.alarms.stopping().map(str::to_owned);
    alarm.or_else(|| checks.unfit(Instant::now()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_adapters::chain::fake::FakeChain;
    use tempfile::TempDir;

    use super::*;
    use crate::leader::broadcast;
    use crate::leader::sign::{NOT_ACCEPTED, Signing};
    use crate::specimen::{self, Careful};

    /// safety 8: so nobody hands the lead to it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_whose_signer_has_not_accepted_the_log_says_that_it_should_not_lead() {
        let folder = TempDir::new().unwrap();
        let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
        let checks = Checks::new(&[], &specimen::health_config());
        let before = unfit(&api, &checks);
        api.alarms.raise(NOT_ACCEPTED, "on purpose");
        assert_eq!(unfit(&api, &checks).as_deref(), Some(NOT_ACCEPTED));
        api.alarms.clear(NOT_ACCEPTED);
        assert_eq!(unfit(&api, &checks), before);
    }

    /// safety 30: so whoever leads confirms no epoch that this node's signers would take for one that they have accepted.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_tells_which_epoch_its_signers_have_accepted() {
        let folder = TempDir::new().unwrap();
        let mut api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
        let checks = Checks::new(&[], &specimen::health_config());
        let room = Room::new(folder.path(), room::Config { reserve_bytes: 0, low_bytes: 0 }, Arc::default());
        assert_eq!(node_view(&api, &checks, &room)().signer_epoch, 0);
        let signer = Arc::new(Careful::default());
        signer.accept_epoch(3, "operator/bob").unwrap();
        let (outbox, _inbox) = broadcast::queue();
        let signing = Signing::new(Arc::clone(&api.replica), vec![signer], outbox, Arc::default());
        Arc::get_mut(&mut api).unwrap().signing = Arc::new(signing);
        assert_eq!(node_view(&api, &checks, &room)().signer_epoch, 3);
    }
}
