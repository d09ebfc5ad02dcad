//! `bench`: closed-loop load of reserve and release, each caller on its own coin, at rising numbers of callers.
//!
//! Three nodes and the load share one machine; mutual TLS is on and disks are real. The callers talk to the leader
//! itself, as the Rust client does; HAProxy is measured by the demo. All the while every node is asked for `/primary`, as a
//! load balancer would, on the same cores.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::Amount;
use hdrhistogram::Histogram;
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::reserve_utxos_request::What;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use onespend_proto::v1::{
    ListUtxosRequest, Outpoint, OutpointList, ReleaseReservationRequest, ReserveUtxosRequest, UtxoState,
};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use crate::cluster::{Cluster, Folder};
use crate::grpc;
use crate::hot::{self, WALLET};
use crate::load::Spread;
use crate::probe::Probe;
use crate::programs;
use crate::progress::{Progress, say};

/// Callers at the same time, one measurement each, unless others are asked for.
pub const LEVELS: [usize; 4] = [1, 16, 64, 256];
/// As many coins as one page lists: each caller has one of its own.
const MAX_CALLERS: usize = 1_000;
/// Not measured: connections are made and caches fill.
const WARM_UP: Duration = Duration::from_secs(2);
/// Callers that share a connection, as they would in one back end.
const CALLERS_PER_CONNECTION: usize = 16;
const COIN: Amount = Amount::from_sat(100_000);
const PAGE: i32 = 1_000;
/// Of latencies: one minute, in microseconds, with three digits.
const MOST_US: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// What a benchmark does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Callers at the same time, one measurement each; 1 to 1000.
    pub levels: Vec<usize>,
    /// How long each level is measured.
    pub seconds: u64,
    /// Everything random follows from it.
    pub seed: u64,
}

/// `report.json`.
#[derive(Debug, Serialize)]
pub struct Report {
    seed: u64,
    nodes: usize,
    cores: usize,
    seconds_per_level: u64,
    levels: Vec<Level>,
    wall_s: f64,
}

/// One number of callers. An operation is a reserve or a release.
#[derive(Debug, Serialize)]
pub struct Level {
    callers: usize,
    operations: u64,
    errors: u64,
    ops_per_s: f64,
    reserve: Latency,
    release: Latency,
    /// What the nodes took meanwhile to say whether they may take spends.
    primary: Latency,
    /// Such questions that no node answered.
    primary_unanswered: usize,
}

/// In milliseconds.
#[derive(Debug, Serialize)]
#[allow(clippy::struct_field_names)] // units come last in names
pub struct Latency {
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Runs it, prints a table, and writes the report.
///
/// # Errors
/// The plan is none, something did not come up, or every call of a level failed.
pub fn run(plan: &Plan, report_file: Option<&Path>) -> Result<()> {
    let started = Instant::now();
    say(&format!("seed {}", plan.seed));
    let sound = !plan.levels.is_empty() && plan.levels.iter().all(|callers| (1..=MAX_CALLERS).contains(callers));
    ensure!(sound, "1 to {MAX_CALLERS} callers, not {:?}", plan.levels);
    ensure!(plan.seconds >= 1, "a level is measured for a second at least");
    programs::check_all()?;
    let runtime = Runtime::new().context("no threads")?;
    let mut steps = Progress::steps();
    let mut cluster = Cluster::start(Folder::temporary("bench")?, plan.nodes, plan.seed, &mut |step| steps.step(step))?;
    steps.step("a wallet with coins");
    let coins = plan.levels.iter().copied().max().unwrap_or_default();
    runtime.block_on(hot::prepare(&mut cluster, coins, COIN))?;
    let outpoints = runtime.block_on(list_outpoints(&cluster))?;
    steps.finish();

    let levels = measure_all(plan, &mut cluster, &runtime, &outpoints)?;
    let report = Report {
        seed: plan.seed,
        nodes: plan.nodes,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        seconds_per_level: plan.seconds,
        levels,
        wall_s: started.elapsed().as_secs_f64(),
    };
    if let Some(file) = report_file {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
        say(&format!("  report: {}", file.display()));
    }
    cluster.finish()
}

fn measure_all(plan: &Plan, cluster: &mut Cluster, runtime: &Runtime, coins: &[Outpoint]) -> Result<Vec<Level>> {
    say("  callers     ops/s   reserve p50 / p99 ms   release p50 / p99 ms   errors   /primary p50 / p99 / max ms");
    let mut levels = Vec::new();
    for callers in &plan.levels {
        let leader = cluster.wait_for_primary(WARM_UP)?;
        let address = cluster.node(leader)?.addresses().data;
        let level = runtime.block_on(measure(cluster, address, coins, *callers, plan.seconds))?;
        say(&level.line());
        levels.push(level);
    }
    Ok(levels)
}

/// The wallet's coins that are free, up to a page of them.
pub(crate) async fn list_outpoints(cluster: &Cluster) -> Result<Vec<Outpoint>> {
    let mut client = WalletServiceClient::new(grpc::channel(cluster.primary_address(), cluster.client())?);
    let request = ListUtxosRequest {
        wallet_id: WALLET.to_owned(),
        states: vec![UtxoState::Available.into()],
        page_size: PAGE,
        ..ListUtxosRequest::default()
    };
    let utxos = client.list_utxos(request).await.context("ListUtxos")?.into_inner().utxos;
    utxos.into_iter().map(|utxo| utxo.outpoint.context("a coin without outpoint")).collect()
}

async fn measure(
    cluster: &Cluster,
    leader: SocketAddr,
    outpoints: &[Outpoint],
    callers: usize,
    seconds: u64,
) -> Result<Level> {
    ensure!(outpoints.len() >= callers, "{} coins for {callers} callers", outpoints.len());
    let from = Instant::now() + WARM_UP;
    let until = from + Duration::from_secs(seconds);
    let mut tasks = JoinSet::new();
    for group in outpoints.get(..callers).unwrap_or_default().chunks(CALLERS_PER_CONNECTION) {
        let channel = grpc::channel(leader, cluster.client())?;
        for outpoint in group {
            tasks.spawn(call_in_a_loop(channel.clone(), outpoint.clone(), from, until));
        }
    }
    let probe = Probe::start(cluster.nodes().iter().map(|node| node.addresses().health), from);
    let mut all = Tally::new()?;
    while let Some(tally) = tasks.join_next().await {
        all.add(&tally??)?;
    }
    ensure!(!all.reserve.is_empty(), "every call failed; the last one: {:?}", all.last_error);
    let waits = probe.finish();
    let primary = waits.spread().context("no node was asked for /primary")?;
    let operations = all.reserve.len() + all.release.len();
    Ok(Level {
        callers,
        operations,
        errors: all.errors,
        ops_per_s: per_second(operations, seconds),
        reserve: Latency::of(&all.reserve),
        release: Latency::of(&all.release),
        primary: primary.into(),
        primary_unanswered: waits.unanswered,
    })
}

struct Tally {
    reserve: Histogram<u64>,
    release: Histogram<u64>,
    errors: u64,
    last_error: Option<Status>,
}

impl Tally {
    fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, MOST_US, DIGITS);
        Ok(Self { reserve: histogram()?, release: histogram()?, errors: 0, last_error: None })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.reserve.add(&other.reserve)?;
        self.release.add(&other.release)?;
        self.errors += other.errors;
        self.last_error = other.last_error.clone().or_else(|| self.last_error.take());
        Ok(())
    }
}

/// Reserves and releases one coin, over and over. A failed call is counted and the pair begins again.
async fn call_in_a_loop(channel: Channel, outpoint: Outpoint, from: Instant, until: Instant) -> Result<Tally> {
    let mut client = ReservationServiceClient::new(channel);
    let mut tally = Tally::new()?;
    while Instant::now() < until {
        let began = Instant::now();
        let measured = began >= from;
        match reserve_and_release(&mut client, &outpoint).await {
            Ok((reserve, release)) if measured => {
                tally.reserve.saturating_record(microseconds(reserve));
                tally.release.saturating_record(microseconds(release));
            }
            Ok(_) => {}
            Err(status) => {
                tally.errors += u64::from(measured);
                tally.last_error = Some(status);
            }
        }
    }
    Ok(tally)
}

async fn reserve_and_release(
    client: &mut ReservationServiceClient<Channel>,
    outpoint: &Outpoint,
) -> Result<(Duration, Duration), Status> {
    let began = Instant::now();
    let request = ReserveUtxosRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        wallet_id: WALLET.to_owned(),
        what: Some(What::Outpoints(OutpointList { outpoints: vec![outpoint.clone()] })),
        ..ReserveUtxosRequest::default()
    };
    let answer = client.reserve_utxos(request).await?.into_inner();
    let reserved = Instant::now();
    let reservation = answer.reservation.unwrap_or_default();
    let request = ReleaseReservationRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        reservation_id: reservation.reservation_id,
        fence: reservation.fence,
    };
    client.release_reservation(request).await?;
    Ok((reserved - began, reserved.elapsed()))
}

impl Level {
    fn line(&self) -> String {
        format!(
            "  {:>7} {:>9.0}   {:>9.2} / {:>8.2}   {:>9.2} / {:>8.2}   {:>6}   {:>9.2} / {:>6.2} / {:>6.2}",
            self.callers,
            self.ops_per_s,
            self.reserve.p50_ms,
            self.reserve.p99_ms,
            self.release.p50_ms,
            self.release.p99_ms,
            self.errors,
            self.primary.p50_ms,
            self.primary.p99_ms,
            self.primary.max_ms
        )
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |us: u64| Duration::from_micros(us).as_secs_f64() * 1_000.0;
        Self {
            p50_ms: ms(histogram.value_at_quantile(0.50)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        }
    }
}

impl From<Spread> for Latency {
    fn from(spread: Spread) -> Self {
        Self { p50_ms: spread.p50, p99_ms: spread.p99, max_ms: spread.max }
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(MOST_US)
}

/// Of operations that began within the measured time.
#[allow(clippy::cast_precision_loss)] // far below 2^52
fn per_second(operations: u64, seconds: u64) -> f64 {
    operations as f64 / seconds.max(1) as f64
}
