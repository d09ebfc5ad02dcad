//! The composition root: builds every part from its section of the configuration, starts them, and takes them down in
//! the reverse order.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use onespend_adapters::chain::Chain;
use onespend_adapters::store::sqlite::RestoredMark;
use onespend_policies::RoleTable;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::acceptance;
use crate::agreement::{self, Quarantine};
use crate::alarms::Alarms;
use crate::backup::{self, BackupSource};
use crate::bitcoind::BitcoindWatch;
use crate::checks::{Checks, ChecksThread};
use crate::config::Config;
use crate::grpc::api::{Api, Settings};
use crate::grpc::decide::Decisions;
use crate::grpc::forward::Forward;
use crate::grpc::server::{self, Bounds};
use crate::handover::{self, HandOver};
use crate::health::{Health, HealthServer, Limits, Snapshot};
use crate::health_feed::{self, Feed};
use crate::leader::scripts::{self, SharedScripts};
use crate::leader::{self, Duty, broadcast, sign};
use crate::metrics::Metrics;
use crate::parts;
use crate::peers::Peers;
use crate::raft::{LeaderHint, RaftFatal, RaftNode, RaftParts};
use crate::replica::Replica;
use crate::restored;
use crate::room::Room;
use crate::selection::Busy;
use crate::shutdown::{self, Drain, Shutdown};
use crate::telemetry::{self, Telemetry};
use crate::watchdog::{self, Heartbeat};

/// Runs a node until it is told to stop.
///
/// # Errors
/// What kept it from starting, or the fault that ended it, a [`RaftFatal`]; a supervisor should start it again where that
/// helps.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let metrics = Metrics::install()?;
    config.backup.begin_counters();
    let instance = format!("{}/node/{}", config.cluster.id, config.node.id);
    let telemetry = telemetry::start(&config.log, &config.telemetry, &instance)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("onespend").enable_all().build()?;
    let last_traces = config.shutdown.last_traces();
    let ended = runtime.block_on(run(config, metrics));
    // A call to bitcoind or a signer may hang; nobody waits for it.
    runtime.shutdown_background();
    end(telemetry, last_traces);
    ended
}

fn end(telemetry: Telemetry, within: Duration) {
    if !telemetry.flush(within) {
        warn!("not every trace was exported");
    }
}

/// The running node.
struct Node {
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    health: HealthServer,
    bitcoind: crate::bitcoind::Threads,
    checks: ChecksThread,
    /// The data plane: ends with the answers for what is under way.
    data: Server,
    /// The control plane: other nodes need it until Raft has ended.
    control: Server,
    /// Ends everything else.
    stop_working: CancellationToken,
    workers: TaskTracker,
}

/// A running server.
struct Server {
    stop: CancellationToken,
    task: TaskTracker,
}

impl Server {
    fn spawn(
        name: &'static str,
        stop: CancellationToken,
        serving: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        let task = TaskTracker::new();
        task.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(server = name, error = format!("{error:#}"), "the server ended");
            }
        });
        Self { stop, task }
    }

    /// No new requests; waits for the answers of those under way.
    async fn stop(&self) {
        self.stop.cancel();
        self.task.close();
        self.task.wait().await;
    }
}

async fn run(config: Config, metrics: Metrics) -> anyhow::Result<()> {
    for warning in &config.warnings {
        warn!(key = warning.key, "{} ({})", warning.what, warning.why);
    }
    let shutdown = Shutdown::listen(config.shutdown)?;
    let node = start(&config, metrics).await?;
    info!(
        cluster = config.cluster.id,
        node = config.node.id,
        data = %config.listen.data,
        control = %config.listen.control,
        health = %config.listen.health,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    shutdown::notify_ready();
    let fault = tokio::select! {
        () = shutdown.requested() => None,
        fault = node.replica.wait_fatal() => Some(fault),
    };
    if let Some(fault) = &fault {
        tracing::error!(%fault, "the node cannot go on");
        shutdown.request(if fault.ends_with_a_restart() {
            "a fault that only a restart can mend"
        } else {
            "a fault that no restart can mend"
        });
    }
    stop(node, shutdown.drain(), fault.is_none()).await;
    match fault {
        None => Ok(()),
        Some(fault) => Err(ended_by(fault)),
    }
}

fn ended_by(fault: RaftFatal) -> anyhow::Error {
    let what_helps = if fault.ends_with_a_restart() {
        "the node cannot go on; it must be started again"
    } else {
        "the node cannot go on, and starting it again does not help"
    };
    anyhow::Error::from(fault).context(what_helps)
}

/// Starts from the inside out: sockets bind first, so that a taken port is known before anything else; they are
/// served last.
async fn start(config: &Config, metrics: Metrics) -> anyhow::Result<Node> {
    let listen = &config.listen;
    let data = server::bind(listen.data).await.with_context(|| binding("data", listen.data))?;
    let control = server::bind(listen.control).await.with_context(|| binding("control", listen.control))?;
    let health_socket = TcpListener::bind(listen.health).with_context(|| binding("health", listen.health))?;
    let agent = |address| TcpListener::bind(address).with_context(|| binding("agent", address));
    let agent_socket = listen.agent.map(agent).transpose()?;

    let first = Snapshot::starting(&config.cluster.id, config.node.id, config.node.tags.clone());
    let health = Arc::new(Health::new(first.clone(), Limits::of(config), move |primary| metrics.page(primary)));
    let health_server = health.serve_with_agent(health_socket, agent_socket)?;

    let tls = parts::tls(config)?;
    let chain = parts::chain(config)?;
    let checks = Checks::new(&config.checks, &config.health);
    let raft = parts::raft(config, &tls, checks.fsync())?;
    let signers = parts::signers(config)?;
    let replica = replica(config, raft).await?;

    let bitcoind = BitcoindWatch::new(Arc::clone(&chain), parts::state_reader(&replica), parts::watch_settings(config));
    let (outbox, inbox) = broadcast::queue();
    let (alarms, quarantine, restored_mark) = marks(config, &replica);
    let room = Room::new(&config.node.data_dir, config.storage, Arc::clone(&alarms));
    let signing = Arc::new(sign::Signing::new(Arc::clone(&replica), signers, outbox.clone(), Arc::clone(&alarms)));
    let bounds = Bounds { tls: tls.server(), max_message_bytes: parts::message_bytes(config) };
    let [stop_data, stop_control, stop_working] = std::array::from_fn(|_| CancellationToken::new());
    let scripts = SharedScripts::default();
    let peers = Arc::new(Peers::new(&config.cluster.id, tls.client()));
    let api = Arc::new(Api {
        replica: Arc::clone(&replica),
        peers: Arc::clone(&peers),
        policy: Arc::new(RoleTable),
        forward: Forward::new(tls.client(), bounds.max_message_bytes),
        signing: Arc::clone(&signing),
        outbox,
        bitcoind: Arc::clone(&bitcoind),
        alarms: Arc::clone(&alarms),
        health: Arc::clone(&health),
        busy: Busy::default(),
        decisions: Decisions::new(Arc::clone(&replica)),
        backups: Arc::new(BackupSource::new(Arc::clone(&replica), &config.cluster.id, config.node.id)),
        scripts: scripts.clone(),
        stopping: stop_data.clone(),
        settings: settings(config),
    });

    let workers = TaskTracker::new();
    let raft_service =
        replica.raft().peer_service(parts::peer_identity(config), parts::node_view(&api, &checks, &room)).into_server();
    let serving = server::serve_control(control, bounds.clone(), Arc::clone(&api), raft_service, stop_control.clone());
    let control = Server::spawn("control", stop_control, serving);
    form_or_join(&replica, config).await?;

    let threads = bitcoind.start(health.progress())?;
    let checks_thread = checks.start(parts::figures(config, &api, &checks))?;
    let duty = duty(&api, chain, inbox);
    workers.spawn(scripts::keep(scripts, replica.raft().view().clone(), stop_working.clone()));
    workers.spawn(leader::run(Arc::new(duty), stop_working.clone()));
    let hand_over = HandOver::new(&replica, &bitcoind, &checks, &room, &alarms, config.health);
    let heartbeat = watch(&api, room, quarantine, hand_over, &health, &workers, &stop_working)?;
    workers.spawn(backup::run(parts::backup_schedule(config, &api), stop_working.clone()));
    workers.spawn(restored::run(Arc::clone(&replica), restored_mark, Arc::clone(&alarms), stop_working.clone()));
    let serving = server::serve_data(data, bounds, api, Arc::clone(&health), stop_data.clone());
    let feed = Feed { replica: Arc::clone(&replica), bitcoind, alarms, checks, heartbeat, health, first };
    workers.spawn(health_feed::run(feed, stop_working.clone()));
    let data = Server::spawn("data", stop_data, serving);
    let (health, bitcoind, checks) = (health_server, threads, checks_thread);
    Ok(Node { replica, peers, health, bitcoind, checks, data, control, stop_working, workers })
}

fn binding(name: &str, address: SocketAddr) -> String {
    format!("binding listen.{name} {address}")
}

/// Starts what watches over Raft's core, over the disk and over the signers, and what compares this node with the
/// others.
fn watch(
    api: &Api,
    room: Arc<Room>,
    quarantine: Quarantine,
    hand_over: HandOver,
    health: &Health,
    workers: &TaskTracker,
    stop: &CancellationToken,
) -> std::io::Result<Arc<Heartbeat>> {
    let (replica, peers, bitcoind) = (Arc::clone(&api.replica), Arc::clone(&api.peers), Arc::clone(&api.bitcoind));
    let beat = health.progress().register("raft-core", health_feed::LONGEST_CORE_TURN);
    let heartbeat = watchdog::start()?;
    workers.spawn(health_feed::watch_core(Arc::clone(&replica), beat, Arc::clone(&heartbeat), stop.clone()));
    workers.spawn(acceptance::run(Arc::clone(&api.signing), Arc::clone(&api.alarms), stop.clone()));
    let beat = health.progress().register("agreement", agreement::LONGEST_TURN);
    room.watch()?;
    let compared = agreement::Compared { replica, peers, bitcoind, room, quarantine, hand_over };
    workers.spawn(agreement::run(compared, beat, stop.clone()));
    Ok(heartbeat)
}

/// What the data folder is marked with, before the node does anything.
fn marks(config: &Config, replica: &Replica) -> (Arc<Alarms>, Quarantine, RestoredMark) {
    let alarms = Arc::new(Alarms::default());
    let quarantine = Quarantine::resume(&alarms, &config.node.data_dir, replica.raft());
    let restored = RestoredMark::of(&config.node.data_dir);
    restored::resume(&alarms, &restored);
    (alarms, quarantine, restored)
}

fn duty(api: &Api, chain: Arc<dyn Chain>, inbox: broadcast::Inbox) -> Duty {
    Duty {
        replica: Arc::clone(&api.replica),
        chain,
        bitcoind: Arc::clone(&api.bitcoind),
        signing: Arc::clone(&api.signing),
        inbox,
        alarms: Arc::clone(&api.alarms),
        scripts: api.scripts.clone(),
        network: api.settings.network,
    }
}

async fn replica(config: &Config, raft: RaftParts) -> anyhow::Result<Arc<Replica>> {
    let raft = RaftNode::start(raft).await.context("starting Raft")?;
    let own = LeaderHint { node_id: config.node.id, addresses: parts::own_addresses(config)?, term: 0 };
    Ok(Arc::new(Replica::new(raft, own)))
}

async fn form_or_join(replica: &Replica, config: &Config) -> anyhow::Result<()> {
    if config.node.join {
        info!("waiting for the cluster's log; unless it is a member, an operator has to add it: onespend cluster add");
        return Ok(());
    }
    replica.raft().initialize(parts::members(config)).await.context("forming the cluster")
}

/// Stops from the outside in: first nobody is sent here any more, then the lead goes to another node, then requests
/// under way get their answers, then the log closes.
async fn stop(node: Node, drain: Drain, graceful: bool) {
    node.health.stopping();
    node.replica.drain();
    if graceful {
        drain.step("hand over leadership", handover::before_the_end(&node.replica, &node.peers, drain.left())).await;
    }
    drain.step("finish requests", finish_requests(&node)).await;
    node.stop_working.cancel();
    node.workers.close();
    drain.step("end duties", node.workers.wait()).await;
    node.bitcoind.stop();
    node.checks.stop();
    if let Some(Err(error)) = drain.step("close the log", node.replica.raft().stop()).await {
        warn!(%error, "the state is not wholly written; it is made up from the log at the next start");
    }
    drain.step("close the control port", node.control.stop()).await;
    node.health.stop();
    info!("stopped");
}

/// Waits for the answers of the requests under way, and has no lead meanwhile that another node would take.
async fn finish_requests(node: &Node) {
    tokio::select! {
        () = node.data.stop() => {}
        () = handover::while_it_ends(&node.replica, &node.peers) => {}
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        cluster_id: config.cluster.id.clone(),
        network: config.cluster.network,
        node_id: config.node.id,
        finality_depth: config.cluster.finality_depth,
        forward_writes: config.api.forward_writes,
        request_timeout: config.api.request_timeout,
        max_message_bytes: parts::message_bytes(config),
        started: Instant::now(),
        warnings: config
            .warnings
            .iter()
            .map(|fault| format!("{}: {} ({})", fault.key, fault.what, fault.why))
            .collect(),
    }
}
