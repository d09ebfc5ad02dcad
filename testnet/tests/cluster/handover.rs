//! Leadership follows the bitcoinds: what a leader may give out rests on its own.

use std::time::{Duration, Instant};

use onespend_proto::{reason, v1};
use onespend_testnet::bitcoind::wait_for_same_tip;
use onespend_testnet::health;

use crate::scene::{NODES, Scene, eventually, fresh_id, need, release, reserve};
use crate::transfer::same_log_everywhere;

const ASK: Duration = Duration::from_secs(2);
/// For calls that are refused as long as the bitcoinds are as they are.
const REFUSAL: Duration = Duration::from_secs(3);
/// A bitcoind that fails is noticed within seconds and acted on at once, and no node gives up the lead twice.
const VARIABLES: &[(&str, &str)] = &[
    ("ONESPEND_BITCOIND__POLL_MS", "200"),
    ("ONESPEND_BITCOIND__TIMEOUT_MS", "2000"),
    ("ONESPEND_HEALTH__HAND_OVER_AFTER_MS", "0"),
    ("ONESPEND_HEALTH__HAND_OVER_PAUSE_MS", "3600000"),
];
/// Several times what a leader needs to hand over once its bitcoind is out of sync: it looks every two seconds.
const STAYS: Duration = Duration::from_secs(6);
/// One more than a bitcoind may be behind.
const TOO_FAR_BLOCKS: u32 = 3;
const COINS: usize = 8;

fn says(scene: &Scene, index: usize, path: &str) -> bool {
    health::get(scene.addresses(index).health, path, ASK).is_ok_and(|answer| answer.is_ok())
}

/// Times that a node gave up the lead for its bitcoind.
fn hand_overs(scene: &Scene, index: usize) -> u64 {
    let text = health::get(scene.addresses(index).health, "/metrics", ASK).unwrap().body;
    let counter = "onespend_raft_hand_overs_total{reason=\"bitcoind\"} ";
    text.lines().find_map(|line| line.strip_prefix(counter)).map_or(0, |value| value.parse().unwrap())
}

/// Each way in which a bitcoind fails is played by a leader that has not given up the lead yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_bitcoind_alone_is_unfit_hands_over_once_and_one_among_equals_stays() {
    let mut scene = Scene::with_variables("handover", COINS, VARIABLES).await;
    let first = scene.primary();
    scene.cluster.bitcoind(first).unwrap().kill().unwrap();
    let second = hands_over(&scene, first).await;
    let third = Scene::others(first).into_iter().find(|index| *index != second).unwrap();

    one_among_equals_stays(&mut scene, second, third).await;
    scene.cluster.bitcoind(first).unwrap().restart().unwrap();
    all_are_fit(&scene).await;

    scene.cluster.bitcoind(second).unwrap().freeze().unwrap();
    hands_over(&scene, second).await;
    lead(&scene, third).await;
    falls_behind(&mut scene, third, first).await;
    assert_eq!(hands_over(&scene, third).await, first, "the bitcoind of node {} hangs", second + 1);

    scene.cluster.bitcoind(second).unwrap().thaw().unwrap();
    scene.cluster.bitcoinds()[third].set_network(true).unwrap();
    all_are_fit(&scene).await;
    one_that_gave_up_the_lead_lately_stays(&mut scene, first).await;
    assert_eq!([0, 1, 2].map(|index| hand_overs(&scene, index)), [1; NODES]);
    scene.finish();
}

/// Of two voters with the whole log the lower id would be next, and its bitcoind is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_who_names_nobody_hands_over_to_a_node_whose_bitcoind_is_in_sync() {
    let mut scene = Scene::with_variables("handover-planned", COINS, VARIABLES).await;
    let leader = scene.primary();
    let [lower, higher] = Scene::others(leader)[..] else { panic!("three nodes") };
    scene.cluster.bitcoind(lower).unwrap().kill().unwrap();
    out_of_sync(&scene, lower).await;
    same_log_everywhere(&scene).await;
    let told = scene.cluster.operate(&["cluster", "transfer", "-o", "json"]).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["leader_id"].as_u64(), Some(higher as u64 + 1), "{told}");
    assert_eq!(scene.primary(), higher);
    scene.finish();
}

/// Waits until another node takes spends, and says which. The one before has counted that once, and follows.
async fn hands_over(scene: &Scene, leader: usize) -> usize {
    let next = eventually("another node is primary", async || {
        let primary = Scene::others(leader).into_iter().find(|index| says(scene, *index, "/primary"));
        primary.ok_or_else(|| "none is".to_owned())
    })
    .await;
    eventually("it counts that", async || {
        let counted = hand_overs(scene, leader);
        need(counted == 1, || format!("{counted}"))
    })
    .await;
    eventually("it follows", async || need(says(scene, leader, "/replica"), || "it is no replica".to_owned())).await;
    scene.client().reserve_utxos(reserve(10_000)).await.unwrap();
    next
}

/// The first node's bitcoind is gone, and those of the others hang. Then the leader's is fit again, and it alone, so that it
/// has no reason to give up the lead.
async fn one_among_equals_stays(scene: &mut Scene, leader: usize, other: usize) {
    let client = scene.client();
    let held = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
    scene.cluster.bitcoind(other).unwrap().freeze().unwrap();
    out_of_sync(scene, other).await;
    scene.cluster.bitcoind(leader).unwrap().freeze().unwrap();
    out_of_sync(scene, leader).await;
    stays(scene, leader).await;
    assert_eq!(hand_overs(scene, leader), 0);
    spends_are_refused(scene).await;
    client.release_reservation(release(&held)).await.unwrap();

    scene.cluster.bitcoind(leader).unwrap().thaw().unwrap();
    eventually("spends are taken again", async || need(says(scene, leader, "/primary"), String::new)).await;
    client.reserve_utxos(reserve(10_000)).await.unwrap();
    scene.cluster.bitcoind(other).unwrap().thaw().unwrap();
}

/// The others are fit and would take the lead, but nodes that are fit by turns must not pass it to and fro.
async fn one_that_gave_up_the_lead_lately_stays(scene: &mut Scene, leader: usize) {
    scene.cluster.bitcoind(leader).unwrap().freeze().unwrap();
    out_of_sync(scene, leader).await;
    stays(scene, leader).await;
    let others_are_fit = || Scene::others(leader).into_iter().all(|index| says(scene, index, "/bitcoind"));
    eventually("the others are fit", async || need(others_are_fit(), String::new)).await;
    spends_are_refused(scene).await;
    scene.cluster.bitcoind(leader).unwrap().thaw().unwrap();
    eventually("spends are taken again", async || need(says(scene, leader, "/primary"), String::new)).await;
}

/// Cuts the bitcoind of a node off while another one's goes on.
async fn falls_behind(scene: &mut Scene, index: usize, ahead: usize) {
    let script = scene.cluster.funds().unwrap().0.script().clone();
    let bitcoinds = scene.cluster.bitcoinds();
    bitcoinds[index].set_network(false).unwrap();
    eventually("it has no peers", async || {
        let peers: u32 = bitcoinds[index].call("getconnectioncount", &[]).unwrap();
        need(peers == 0, || format!("{peers}"))
    })
    .await;
    bitcoinds[ahead].mine(TOO_FAR_BLOCKS, &script).unwrap();
}

async fn out_of_sync(scene: &Scene, index: usize) {
    eventually("its bitcoind is out of sync", async || {
        let answer = health::get(scene.addresses(index).health, "/bitcoind", ASK).map_err(|error| error.to_string())?;
        need(answer.json()["reason"] == "BITCOIND_NOT_IN_SYNC", || answer.body)
    })
    .await;
}

async fn all_are_fit(scene: &Scene) {
    wait_for_same_tip(scene.cluster.bitcoinds()).unwrap();
    eventually("every bitcoind is in sync", async || {
        let fit: Vec<usize> = (0..NODES).filter(|index| says(scene, *index, "/bitcoind")).collect();
        need(fit.len() == NODES, || format!("{fit:?}"))
    })
    .await;
}

/// The lead does not move, for a time in which it would.
async fn stays(scene: &Scene, leader: usize) {
    let since = Instant::now();
    while since.elapsed() < STAYS {
        let moved = Scene::others(leader).into_iter().find(|index| says(scene, *index, "/leader"));
        assert_eq!(moved, None, "the lead moved after {:?}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await; // what is looked at is a time
    }
    eventually("it leads", async || need(says(scene, leader, "/leader"), String::new)).await;
}

async fn spends_are_refused(scene: &Scene) {
    let caller = scene.client().with_deadline(REFUSAL);
    let refused = caller.reserve_utxos(reserve(10_000)).await.unwrap_err();
    assert!(refused.is(reason::CHAIN_NOT_SYNCED), "{refused}");
}

/// Hands the lead to a node that is fit, and waits until it takes spends.
async fn lead(scene: &Scene, index: usize) {
    let operator = scene.operator();
    eventually("the lead is handed over", async || {
        if says(scene, index, "/primary") {
            return Ok(());
        }
        let request = v1::TransferLeadershipRequest { request_id: fresh_id(), node_id: index as u64 + 1 };
        operator.transfer_leadership(request).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    eventually("it takes spends", async || need(says(scene, index, "/primary"), String::new)).await;
}
