//! A node says at once whether it may take spends, whatever else it waits for.

use std::time::{Duration, Instant};

use onespend_proto::v1;
use onespend_testnet::probe::Probe;
use onespend_testnet::progress::say;
use tokio::task::JoinSet;

use crate::draft::{names, reserve};
use crate::gray::json;
use crate::scene::{NODES, Scene, Stage, eventually, need};

const CALLERS: usize = 16;
const TTL: Duration = Duration::from_secs(10);
/// Questions to each node that is looked at, each time.
const QUESTIONS: usize = 400;
/// What half of the answers have to keep: five times the goal, for this machine does other things as well.
/// `make bench-failover` measures it, and judges it by the goal itself.
const MEDIAN_MS: f64 = 100.0;
/// What 99 of 100 have to keep.
const P99_MS: f64 = 1_000.0;
/// Above the bound of the check of the disk, 500 ms. A vote that waits behind two commits takes less than the five seconds
/// after which the watchdog ends a leader.
const STALLS_MS: u64 = 700;

/// Callers that reserve and release a coin each, over and over, until they are dropped. Calls may fail: the lead changes
/// hands.
async fn keep_busy(scene: &Scene) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for coin in names(&scene.free_coins(CALLERS).await) {
        let (client, coin) = (scene.client.clone(), [coin]);
        callers.spawn(async move {
            loop {
                let Ok(held) = reserve(&client, &coin, TTL).await else { continue };
                let (reservation_id, fence) = (held.reservation_id, held.fence);
                let release = v1::ReleaseReservationRequest { reservation_id, fence, ..Default::default() };
                let _it_expires = client.release_reservation(release).await;
            }
        });
    }
    callers
}

fn applied(scene: &Scene, index: usize) -> Option<u64> {
    json(scene, index, "/status")["applied_index"].as_u64()
}

/// Asks these nodes for `/primary` many times, says how long they took, and holds it against the bounds. Meanwhile they
/// apply what the callers ask for.
async fn answer_at_once(scene: &Scene, nodes: &[usize], when: &str) {
    let before: Vec<_> = nodes.iter().map(|index| applied(scene, *index)).collect();
    let ports = nodes.iter().map(|index| scene.cluster.nodes()[*index].addresses().health);
    let (probe, wanted) = (Probe::start(ports, Instant::now()), QUESTIONS * nodes.len());
    eventually(when, async || need(probe.asked() >= wanted, || format!("{} of {wanted} answers", probe.asked()))).await;
    let waits = probe.finish();
    let took = waits.spread().unwrap();
    let (count, spread) = (waits.took.len(), format!("{} / {} / {}", took.p50, took.p99, took.max));
    say(&format!("{when}: {count} answers of /primary took {spread} ms (p50 / p99 / max)"));
    assert_eq!(waits.unanswered, 0, "{when}: {took:?}");
    assert!(took.p50 <= MEDIAN_MS && took.p99 <= P99_MS, "{when}: {took:?}");
    eventually("there was work", async || {
        let after: Vec<_> = nodes.iter().map(|index| applied(scene, *index)).collect();
        let grown = before.iter().zip(&after).all(|(before, after)| after > before);
        need(grown, || format!("applied {before:?}, then {after:?}"))
    })
    .await;
}

/// Under load; on a disk that stalls; beside a bitcoind that hangs. The node that is struck led until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primary_is_answered_at_once_under_load_on_a_disk_that_stalls_and_beside_a_bitcoind_that_hangs() {
    let mut scene = Scene::start(Stage { name: "prompt", coins: CALLERS, faulty: true, ..Stage::default() }).await;
    let callers = keep_busy(&scene).await;
    let all: Vec<usize> = (0..NODES).collect();
    answer_at_once(&scene, &all, "under load").await;

    let stalled = scene.primary();
    scene.fault(stalled, |now| now.fsync_delay_ms = STALLS_MS);
    eventually("its disk is too slow for a primary", async || {
        let status = json(&scene, stalled, "/status");
        need(status["fit_for_primary"] == false, || status["checks"].to_string())
    })
    .await;
    answer_at_once(&scene, &[stalled], "while its disk stalls").await;
    scene.fault(stalled, |now| now.fsync_delay_ms = 0);

    let beside = scene.primary();
    scene.cluster.bitcoind(beside).unwrap().freeze().unwrap();
    // From now on: it leads for as long as it waits for what it asked.
    answer_at_once(&scene, &[beside], "while its bitcoind hangs").await;
    eventually("it is seen that it hangs", async || need(!scene.says(beside, "/bitcoind"), String::new)).await;
    scene.cluster.bitcoind(beside).unwrap().thaw().unwrap();
    drop(callers);
    scene.finish().await;
}
