//! Leadership follows the bitcoinds: what a leader may give out rests on its own.

use std::time::{Duration, Instant};

use onespend_proto::reason;
use onespend_testnet::health;

use crate::scene::{NODES, Scene, eventually, need, release, reserve};

const ASK: Duration = Duration::from_secs(2);
/// For calls that are refused as long as the bitcoinds are as they are.
const REFUSAL: Duration = Duration::from_secs(3);
/// Several times what a leader waits before it gives up the lead.
const STAYS: Duration = Duration::from_secs(8);

fn says(scene: &Scene, index: usize, path: &str) -> bool {
    health::get(scene.addresses(index).health, path, ASK).is_ok_and(|answer| answer.is_ok())
}

/// Times that a node gave up the lead for its bitcoind.
fn hand_overs(scene: &Scene, index: usize) -> Option<String> {
    let text = health::get(scene.addresses(index).health, "/metrics", ASK).unwrap().body;
    let line = text.lines().find(|line| line.starts_with("onespend_raft_hand_overs_total{reason=\"bitcoind\"}"))?;
    Some(line.rsplit(' ').next().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_bitcoind_alone_is_gone_hands_over_once_and_one_among_equals_stays() {
    let mut scene = Scene::with_coins("handover", 6).await;
    let first = scene.primary();
    let held = scene.client().reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
    scene.cluster.bitcoind(first).unwrap().kill().unwrap();
    let second = eventually("another node is primary", async || {
        let primary = Scene::others(first).into_iter().find(|index| says(&scene, *index, "/primary"));
        primary.ok_or_else(|| "none is".to_owned())
    })
    .await;
    assert_eq!(hand_overs(&scene, first).as_deref(), Some("1"));
    eventually("it follows", async || need(says(&scene, first, "/replica"), || "it is no replica".to_owned())).await;
    let client = scene.client();
    client.reserve_utxos(reserve(10_000)).await.unwrap();

    let [third] = Scene::others(first).into_iter().filter(|index| *index != second).collect::<Vec<_>>()[..] else {
        panic!("three nodes")
    };
    scene.cluster.bitcoind(third).unwrap().kill().unwrap();
    eventually("that is noticed", async || need(!says(&scene, third, "/bitcoind"), String::new)).await;
    scene.cluster.bitcoind(second).unwrap().kill().unwrap();
    eventually("no node is primary", async || need(!says(&scene, second, "/primary"), String::new)).await;
    let since = Instant::now();
    while since.elapsed() < STAYS {
        assert!(says(&scene, second, "/leader"), "the lead moved after {:?}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await; // what is looked at is a time
    }
    assert_eq!(hand_overs(&scene, second), None);
    let refused = scene.client().with_deadline(REFUSAL).reserve_utxos(reserve(10_000)).await.unwrap_err();
    assert!(refused.is(reason::CHAIN_NOT_SYNCED), "{refused}");
    client.release_reservation(release(&held)).await.unwrap();

    for index in 0..NODES {
        scene.cluster.bitcoind(index).unwrap().restart().unwrap();
    }
    // Whoever is in sync first: a bitcoind that was killed forgets its last blocks.
    let any = || (0..NODES).any(|index| says(&scene, index, "/primary"));
    eventually("spends are taken again", async || need(any(), String::new)).await;
    client.reserve_utxos(reserve(10_000)).await.unwrap();
    scene.finish();
}
