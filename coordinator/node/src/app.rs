//! The composition root: builds every part from its section of the configuration, starts them, and takes them down in
//! the reverse order.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use onespend_policies::RoleTable;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::agreement;
use crate::alarms::Alarms;
use crate::bitcoind::BitcoindWatch;
use crate::config::Config;
use crate::grpc::api::{Api, Settings};
use crate::grpc::forward::Forward;
use crate::grpc::server::{self, Bounds, Listening};
use crate::health::{Health, HealthServer, Limits, Snapshot};
use crate::health_feed::{self, Feed};
use crate::leader::{self, Duty, broadcast, sign};
use crate::metrics::Metrics;
use crate::parts;
use crate::raft::RaftNode;
use crate::selection::Busy;
use crate::shutdown::Shutdown;
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

fn end(telemetry: Telemetry, within: std::time::Duration) {
    if !telemetry.flush(within) {
        warn!("not every trace was exported");
    }
}

/// The running node.
struct Node {
    raft: Arc<RaftNode>,
    health: HealthServer,
    bitcoind: crate::bitcoind::Threads,
    /// Ends the servers: no new requests, answers for those under way.
    stop_serving: CancellationToken,
    servers: TaskTracker,
    /// Ends everything else.
    stop_working: CancellationToken,
    workers: TaskTracker,
}

async fn run(config: Config, metrics: Metrics) -> anyhow::Result<()> {
    for warning in &config.warnings {
        warn!("configuration: {warning}");
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
    shutdown.ready();
    let fault = tokio::select! {
        () = shutdown.requested() => None,
        fault = node.raft.wait_fatal() => Some(fault),
    };
    shutdown.begin();
    stop(node, &config, fault.is_none()).await;
    match fault {
        None => Ok(()),
        Some(fault) => Err(anyhow::Error::from(fault).context("the node cannot go on; it must be started again")),
    }
}

/// Starts from the inside out: sockets bind first, so that a taken port is known before anything else; they are
/// served last.
async fn start(config: &Config, metrics: Metrics) -> anyhow::Result<Node> {
    let data = Listening::bind(config.listen.data).await.context("binding listen.data")?;
    let control = Listening::bind(config.listen.control).await.context("binding listen.control")?;
    let health_socket = TcpListener::bind(config.listen.health).context("binding listen.health")?;

    let first = Snapshot::starting(&config.cluster.id, config.node.id, config.node.tags.clone());
    let health = Arc::new(Health::new(first.clone(), Limits::of(config), move || metrics.render()));
    let health_server = health.serve(health_socket)?;

    let tls = Material::load(&config.tls)?;
    parts::check_certificate(&tls, config)?;
    let chain = parts::chain(config)?;
    let signers = parts::signers(config)?;
    let raft = Arc::new(RaftNode::start(parts::raft(config, &tls)?).await.context("starting Raft")?);

    let bitcoind = BitcoindWatch::new(Arc::clone(&chain), parts::state_reader(&raft), parts::watch_rules(config));
    let (outbox, inbox) = broadcast::queue();
    let signing = Arc::new(sign::Signing::new(Arc::clone(&raft), signers, outbox));
    let alarms = Arc::new(Alarms::default());
    let bounds = Bounds { tls: tls.server(), max_message_bytes: parts::message_bytes(config) };
    let api = Arc::new(Api {
        raft: Arc::clone(&raft),
        policy: Arc::new(RoleTable),
        forward: Forward::new(tls.client(), bounds.max_message_bytes),
        signing: Arc::clone(&signing),
        bitcoind: Arc::clone(&bitcoind),
        alarms: Arc::clone(&alarms),
        busy: Busy::default(),
        turns: Default::default(),
        settings: settings(config),
    });

    let (stop_serving, stop_working) = (CancellationToken::new(), CancellationToken::new());
    let (servers, workers) = (TaskTracker::new(), TaskTracker::new());
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let peers = raft.peer_service(parts::node_view(&api));
    servers.spawn(logged("control", server::serve_control(control, bounds.clone(), Arc::clone(&api), peers, stop_serving.clone())));
    raft.initialize(parts::members(config)).await.context("forming the cluster")?;

    let threads = bitcoind.start(health.progress())?;
    let duty = Duty { raft: Arc::clone(&raft), chain, bitcoind: Arc::clone(&bitcoind), signing, inbox, network: config.cluster.network };
    workers.spawn(leader::run(Arc::new(duty), stop_working.clone()));
    workers.spawn(agreement::run(Arc::clone(&raft), Arc::clone(&alarms), stop_working.clone()));
    let feed = Feed { raft: Arc::clone(&raft), bitcoind, alarms, health, first };
    workers.spawn(health_feed::run(feed, reporter, stop_working.clone()));
    servers.spawn(logged("data", server::serve_data(data, bounds, api, health_service, stop_serving.clone())));
    Ok(Node { raft, health: health_server, bitcoind: threads, stop_serving, servers, stop_working, workers })
}

/// Stops from the outside in: first nobody is sent here any more, then the lead goes to another node, then requests
/// under way get their answers, then the log closes.
async fn stop(node: Node, config: &Config, graceful: bool) {
    node.raft.drain();
    if graceful {
        match node.raft.hand_over(config.shutdown.drain).await {
            Ok(Some(leader)) => info!(leader = leader.node_id, "leadership handed over"),
            Ok(None) => {}
            Err(error) => warn!(%error, "leadership could not be handed over; the others elect a leader"),
        }
    }
    node.stop_serving.cancel();
    node.servers.close();
    if tokio::time::timeout(config.shutdown.drain, node.servers.wait()).await.is_err() {
        warn!(drain_ms = config.shutdown.drain.as_millis(), "some requests were still under way");
    }
    node.stop_working.cancel();
    node.workers.close();
    node.workers.wait().await;
    node.bitcoind.stop();
    node.raft.stop().await;
    node.health.stop();
    info!("stopped");
}

async fn logged(name: &'static str, server: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = server.await {
        tracing::error!(server = name, error = format!("{error:#}"), "the server ended");
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
        warnings: config.warnings.iter().map(ToString::to_string).collect(),
    }
}
