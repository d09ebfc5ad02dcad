//! How soon a node says at `/primary` whether it may take spends while it is busiest: under full load, on a disk that
//! stalls, and beside a bitcoind that hangs. Callers go on meanwhile, on the same cores.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1::reserve_utxos_request::{Expiration, What};
use onespend_proto::v1::{Outpoint, OutpointList, ReleaseReservationRequest, ReserveUtxosRequest};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::report::{Answers, Primary};
use super::{Plan, Setting, Stage};
use crate::chaos::failpoints::ControlFile;
use crate::cluster::{Addresses, Cluster, Node};
use crate::hot::WALLET;
use crate::probe::Probe;
use crate::progress::say;
use crate::routing::cluster_is_whole;
use crate::{grpc, health, programs};

/// Callers at the same time, each with a coin of its own: far more than two cores serve at once.
const CALLERS: usize = 64;
/// Callers that share connections, as they would in one back end.
const CALLERS_PER_CLIENT: usize = 16;
/// How long each case is measured, at least.
const MEASURED: Duration = Duration::from_secs(5);
/// Before anything is measured: connections are made and caches fill.
const WARM_UP: Duration = Duration::from_secs(2);
/// What every commit takes longer: above the bound of the check of the disk (500 ms), and so that a vote behind two
/// commits is stored before the watchdog ends a leader (5 s).
const STALLS_MS: u64 = 700;
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// After it nobody holds a coin whose caller has lost the answer.
const TTL: prost_types::Duration = prost_types::Duration { seconds: 10, nanos: 0 };
const BACKOFF: Duration = Duration::from_millis(20);
/// For a node to see that its disk stalls.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
const ASK: Duration = Duration::from_secs(5);

/// Measures the three cases, on a cluster of its own whose nodes make up a slow disk when they are told to. The node that is
/// struck led until then.
///
/// # Errors
/// Something does not come up or does not recover, or callers got nothing acknowledged meanwhile.
pub(super) fn measure(plan: &Plan, runtime: &Runtime) -> Result<Primary> {
    let program = programs::onespend_failpoints()?;
    let mut stage = Stage::start(plan, runtime, Setting { program, wired: false, coins: CALLERS })?;
    let callers = Callers::start(runtime, &stage)?;
    thread::sleep(WARM_UP);
    let all: Vec<SocketAddr> = stage.cluster.nodes().iter().map(|node| node.addresses().health).collect();
    let load = callers.watch(&all).finish("primary_load")?;
    let stalled_disk = stall(&mut stage.cluster, &callers)?;
    let hanging_bitcoind = hang(&mut stage.cluster, &callers)?;
    drop(callers);
    cluster_is_whole(&mut stage.cluster)?;
    stage.end()?;
    Ok(Primary { load, stalled_disk, hanging_bitcoind })
}

fn stall(cluster: &mut Cluster, callers: &Callers) -> Result<Answers> {
    let leader = cluster_is_whole(cluster)?;
    let (mut faults, port) = {
        let node = cluster.node(leader)?;
        (ControlFile::new(node.failpoints_file()), node.addresses().health)
    };
    let watched = callers.watch(&[port]);
    faults.change(|now| now.fsync_delay_ms = STALLS_MS)?;
    wait_until_unfit(port)?;
    let answers = watched.finish("primary_stalled_disk")?;
    faults.change(|now| now.fsync_delay_ms = 0)?;
    Ok(answers)
}

/// Waits until the node's own check finds its disk too slow for a primary.
fn wait_until_unfit(port: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = health::get(port, "/status", ASK).map(|answer| answer.json()).unwrap_or_default();
        if said["fit_for_primary"] == false {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "after {PATIENCE:?} its disk is not too slow: {}", said["checks"]);
        thread::sleep(POLL);
    }
}

fn hang(cluster: &mut Cluster, callers: &Callers) -> Result<Answers> {
    let leader = cluster_is_whole(cluster)?;
    let port = cluster.node(leader)?.addresses().health;
    cluster.bitcoind(leader)?.freeze()?;
    let answers = callers.watch(&[port]).finish("primary_hanging_bitcoind")?;
    cluster.bitcoind(leader)?.thaw()?;
    Ok(answers)
}

/// Callers at work, until this is dropped.
struct Callers {
    acknowledged: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Callers {
    fn start(runtime: &Runtime, stage: &Stage<'_>) -> Result<Self> {
        let _inside = runtime.enter();
        let addresses: Vec<Addresses> = stage.cluster.nodes().iter().map(Node::addresses).collect();
        let (acknowledged, mut tasks) = (Arc::<AtomicU64>::default(), JoinSet::new());
        for group in stage.coins.chunks(CALLERS_PER_CLIENT) {
            let client = grpc::following_client(&addresses, stage.cluster.client())?.with_deadline(CALL_DEADLINE);
            for coin in group {
                tasks.spawn(keep_calling(client.clone(), coin.clone(), Arc::clone(&acknowledged)));
            }
        }
        Ok(Self { acknowledged, _tasks: tasks })
    }

    /// Asks these health ports for `/primary` from now on.
    fn watch(&self, ports: &[SocketAddr]) -> Watched<'_> {
        let probe = Probe::start(ports.iter().copied(), Instant::now());
        Watched { callers: self, before: self.acknowledged.load(Ordering::Relaxed), probe }
    }
}

/// Health ports that are asked all the while.
struct Watched<'a> {
    callers: &'a Callers,
    before: u64,
    probe: Probe,
}

impl Watched<'_> {
    /// After some time: how long the answers took. Says so, too.
    fn finish(self, name: &'static str) -> Result<Answers> {
        thread::sleep(MEASURED);
        let waits = self.probe.finish();
        let acknowledged = self.callers.acknowledged.load(Ordering::Relaxed) - self.before;
        ensure!(acknowledged > 0, "{name}: nothing was acknowledged meanwhile, so there was no load");
        let answers = Answers::of(&waits, acknowledged).with_context(|| name.to_owned())?;
        say(&answers.figure().line(name));
        Ok(answers)
    }
}

/// Reserves and releases a coin, over and over. Calls may fail: the lead changes hands.
async fn keep_calling(client: Client, coin: Outpoint, acknowledged: Arc<AtomicU64>) {
    loop {
        if reserve_and_release(&client, &coin).await.is_ok() {
            acknowledged.fetch_add(2, Ordering::Relaxed);
        } else {
            tokio::time::sleep(BACKOFF).await;
        }
    }
}

async fn reserve_and_release(client: &Client, coin: &Outpoint) -> Result<(), ClientError> {
    let request = ReserveUtxosRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        wallet_id: WALLET.to_owned(),
        what: Some(What::Outpoints(OutpointList { outpoints: vec![coin.clone()] })),
        expiration: Some(Expiration::Ttl(TTL)),
        ..ReserveUtxosRequest::default()
    };
    let reservation = client.reserve_utxos(request).await?.reservation.unwrap_or_default();
    let request = ReleaseReservationRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        reservation_id: reservation.reservation_id,
        fence: reservation.fence,
    };
    client.release_reservation(request).await.map(drop)
}
