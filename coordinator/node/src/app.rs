//! The composition root: builds every part from its section of the configuration, starts them, and takes them down in
//! the reverse order.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use onespend_adapters::store::sqlite::RestoredMark;
use onespend_policies::RoleTable;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::agreement::{self, Quarantine};
use crate::alarms::Alarms;
use crate::bitcoind::BitcoindWatch;
use crate::config::Config;
use crate::grpc::api::{Api, Settings};
use crate::grpc::decide::Decisions;
use crate::grpc::forward::Forward;
use crate::grpc::server::{self, Bounds};
use crate::health::{Health, HealthServer, Limits, Snapshot};
use crate::health_feed::{self, Feed};
use crate::leader::scripts::{self, SharedScripts};
use crate::leader::{self, Duty, broadcast, sign};
use crate::metrics::Metrics;
use crate::parts;
use crate::peers::Peers;
use crate::raft::{LeaderHint, RaftNode, RaftParts};
use crate::replica::Replica;
use crate::restored;
use crate::selection::Busy;
use crate::shutdown::{self, Drain, Shutdown};
use crate::telemetry::{self, Telemetry};
use crate::tls::Material;

/// Runs a node until it is told to stop.
///
/// # Errors
/// What kept it from starting, or the fault that ended it; a supervisor should start it again.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let metrics = Metrics::install()?;
    let instance = format!("{}/node/{}", config.cluster.id, config.node.id);
    let telemetry = telemetry::start(&config.log, &config.telemetry, &instance)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("onespend").enable_all().build()?;
    let flush = config.shutdown.drain;
    let ended = runtime.block_on(run(config, metrics));
    // A call to bitcoind or a signer may hang; nobody waits for it.
    runtime.shutdown_background();
    end(telemetry, flush);
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
    health: HealthServer,
    bitcoind: crate::bitcoind::Threads,
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
        shutdown.request("a fault that only a restart can mend");
    }
    stop(node, shutdown.drain(), fault.is_none()).await;
    match fault {
        None => Ok(()),
        Some(fault) => Err(anyhow::Error::from(fault).context("the node cannot go on; it must be started again")),
    }
}

/// Starts from the inside out: sockets bind first, so that a taken port is known before anything else; they are
/// served last.
async fn start(config: &Config, metrics: Metrics) -> anyhow::Result<Node> {
    let data = server::bind(config.listen.data).await.context("binding listen.data")?;
    let control = server::bind(config.listen.control).await.context("binding listen.control")?;
    let health_socket = TcpListener::bind(config.listen.health).context("binding listen.health")?;

    let first = Snapshot::starting(&config.cluster.id, config.node.id, config.node.tags.clone());
    let health = Arc::new(Health::new(first.clone(), Limits::of(config), move || metrics.render()));
    let health_server = health.serve(health_socket)?;

    let tls = Material::load(&config.tls)?;
    parts::check_certificate(&tls, config)?;
    let chain = parts::chain(config)?;
    let raft = parts::raft(config, &tls)?;
    let signers = parts::signers(config)?;
    let replica = replica(config, raft).await?;

    let bitcoind = BitcoindWatch::new(Arc::clone(&chain), parts::state_reader(&replica), parts::watch_settings(config));
    let (outbox, inbox) = broadcast::queue();
    let alarms = Arc::new(Alarms::default());
    let quarantine = Quarantine::resume(&alarms, &config.node.data_dir, replica.raft());
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
        busy: Busy::default(),
        decisions: Decisions::new(Arc::clone(&replica)),
        scripts: scripts.clone(),
        stopping: stop_data.clone(),
        settings: settings(config),
    });

    let workers = TaskTracker::new();
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let raft_service = replica.raft().peer_service(parts::peer_identity(config), parts::node_view(&api)).into_server();
    let serving = server::serve_control(control, bounds.clone(), Arc::clone(&api), raft_service, stop_control.clone());
    let control = Server::spawn("control", stop_control, serving);
    form_or_join(&replica, config).await?;

    let threads = bitcoind.start(health.progress())?;
    let duty = Duty {
        replica: Arc::clone(&replica),
        chain,
        bitcoind: Arc::clone(&bitcoind),
        signing,
        inbox,
        alarms: Arc::clone(&alarms),
        scripts: scripts.clone(),
        network: config.cluster.network,
    };
    workers.spawn(scripts::keep(scripts, replica.raft().view().clone(), stop_working.clone()));
    workers.spawn(leader::run(Arc::new(duty), stop_working.clone()));
    let beat = health.progress().register("raft-core", health_feed::LONGEST_CORE_TURN);
    workers.spawn(health_feed::watch_core(Arc::clone(&replica), beat, stop_working.clone()));
    let beat = health.progress().register("agreement", agreement::LONGEST_TURN);
    let agreement =
        agreement::run(Arc::clone(&replica), peers, Arc::clone(&bitcoind), quarantine, beat, stop_working.clone());
    workers.spawn(agreement);
    let marked = restored::run(Arc::clone(&replica), RestoredMark::of(&config.node.data_dir), stop_working.clone());
    workers.spawn(marked);
    let feed = Feed { replica: Arc::clone(&replica), bitcoind, alarms, health, first };
    workers.spawn(health_feed::run(feed, reporter, stop_working.clone()));
    let serving = server::serve_data(data, bounds, api, health_service, stop_data.clone());
    let data = Server::spawn("data", stop_data, serving);
    Ok(Node { replica, health: health_server, bitcoind: threads, data, control, stop_working, workers })
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
    node.replica.drain();
    if graceful {
        drain.step("hand over leadership", hand_over(&node.replica, drain.left())).await;
    }
    drain.step("finish requests", node.data.stop()).await;
    node.stop_working.cancel();
    node.workers.close();
    drain.step("end duties", node.workers.wait()).await;
    node.bitcoind.stop();
    if let Some(Err(error)) = drain.step("close the log", node.replica.raft().stop()).await {
        warn!(%error, "the state is not wholly written; it is made up from the log at the next start");
    }
    drain.step("close the control port", node.control.stop()).await;
    node.health.stop();
    info!("stopped");
}

async fn hand_over(replica: &Replica, within: Duration) {
    if replica.leader_term().is_none() {
        return;
    }
    match replica.transfer(None, Instant::now() + within).await {
        Ok(leader) => info!(leader = leader.node_id, "leadership handed over"),
        Err(error) => warn!(%error, "leadership could not be handed over; the others elect a leader"),
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
        started: Instant::now(),
        warnings: config
            .warnings
            .iter()
            .map(|fault| format!("{}: {} ({})", fault.key, fault.what, fault.why))
            .collect(),
    }
}
