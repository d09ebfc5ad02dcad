//! What a reservation waits for: the log and the wire, and no bitcoind.

use std::time::Duration;

use onespend_testnet::health;

use crate::scene::{NODES, Scene, release, reserve};

const ASK: Duration = Duration::from_secs(2);
/// Reservations, each with its release.
const PAIRS: usize = 300;
/// The duties of a node ask its bitcoind a few times a second whatever callers do. One call for every fourth pair is
/// far above that on a slow machine, and below what a single call on the path would make.
const MOST_CALLS: u64 = PAIRS as u64 / 4;

/// Calls to bitcoind that a node has made so far, of every method and outcome.
fn rpc_calls(scene: &Scene, index: usize) -> u64 {
    let text = health::get(scene.addresses(index).health, "/metrics", ASK).unwrap().body;
    let counts = text.lines().filter(|line| line.starts_with("onespend_bitcoind_rpc_duration_seconds_count{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_asks_no_bitcoind() {
    let scene = Scene::with_coins("path", 4).await;
    let client = scene.client();
    let before: Vec<u64> = (0..NODES).map(|index| rpc_calls(&scene, index)).collect();
    for _ in 0..PAIRS {
        let held = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
        client.release_reservation(release(&held)).await.unwrap();
    }
    for (index, before) in before.into_iter().enumerate() {
        assert!(before > 0, "node {} counts its calls", index + 1);
        let calls = rpc_calls(&scene, index) - before;
        assert!(calls < MOST_CALLS, "node {}: {calls} calls to bitcoind during {PAIRS} reservations", index + 1);
    }
    scene.finish();
}
