//! Planned work on one node, by the command line: it goes out of rotation, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onespend_proto::v1::chain_service_client::ChainServiceClient;
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::{reason, v1};
use onespend_testnet::health;
use serde_json::Value;

use crate::scene::{Scene, eventually, fresh_id, need, reserve};
use crate::transfer::reserve_and_release;

const ASK: Duration = Duration::from_secs(2);

fn id_of(index: usize) -> u64 {
    index as u64 + 1
}

fn says(scene: &Scene, index: usize, path: &str) -> (u16, String) {
    let answer = health::get(scene.addresses(index).health, path, ASK);
    answer.map_or((0, String::new()), |answer| {
        (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
    })
}

/// Out of rotation, whatever a balancer asks for, and not dead.
async fn out_of_rotation(scene: &Scene, index: usize) {
    eventually("the drained node is out of rotation", async || {
        for path in ["/readyz", "/replica", "/primary", "/leader", "/read-only"] {
            let (status, reason) = says(scene, index, path);
            need(status == 503 && reason == "DRAINING", || format!("{path}: {status} {reason}"))?;
        }
        Ok(())
    })
    .await;
    assert_eq!(says(scene, index, "/livez").0, 200);
}

async fn in_rotation(scene: &Scene, index: usize) {
    eventually("the node is in rotation again", async || {
        let (status, reason) = says(scene, index, "/replica");
        need(status == 200, || format!("{status} {reason}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_leader_hands_over_answers_on_and_leads_no_more_until_it_is_undrained() {
    let mut scene = Scene::with_coins("drain", 10).await;
    let drained = scene.primary();
    let id = id_of(drained).to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn(reserve_and_release(scene.client(), Arc::clone(&stop)));

    let done: Value =
        serde_json::from_str(&scene.cluster.operate(&["cluster", "drain", &id, "-o", "json"]).unwrap()).unwrap();
    assert_eq!((done["node_id"].as_u64(), done["draining"].as_bool()), (Some(id_of(drained)), Some(true)));
    let leader = scene.primary();
    assert_ne!(leader, drained);
    out_of_rotation(&scene, drained).await;
    scene.cluster.operate(&["cluster", "drain", &id]).expect("the same again");
    let members = scene.cluster.operate(&["cluster", "members"]).unwrap();
    assert!(members.contains("voter, draining"), "{members}");

    // It refuses nothing: reads from its own state, and writes that it passes on.
    let direct = scene.direct(drained);
    let level = v1::read_consistency::Level::BoundedStaleness(v1::BoundedStaleness { max_lag_ms: 60_000 });
    let asked = v1::GetTipRequest { consistency: Some(v1::ReadConsistency { level: Some(level) }) };
    let read = ChainServiceClient::new(direct.clone()).get_tip(asked).await.unwrap().into_inner();
    assert_eq!(read.read_info.unwrap().served_by, id_of(drained));
    ReservationServiceClient::new(direct).reserve_utxos(reserve(10_000)).await.unwrap();

    let to_drained = v1::TransferLeadershipRequest { request_id: fresh_id(), node_id: id_of(drained) };
    let refused = scene.operator().transfer_leadership(to_drained).await.unwrap_err();
    assert!(refused.is(reason::TRANSFER_REFUSED), "{refused}");

    // Its vote still counts, and it does not stand: the third node leads, by the two votes that are left.
    let [third] = Scene::others(drained).into_iter().filter(|index| *index != leader).collect::<Vec<_>>()[..] else {
        panic!("three nodes")
    };
    scene.node(leader).kill().unwrap();
    assert_eq!(scene.primary(), third);
    let refused = scene.cluster.operate(&["cluster", "drain", &id_of(third).to_string()]).unwrap_err().to_string();
    assert!(refused.contains("TRANSFER_REFUSED"), "nobody is left to lead: {refused}");
    assert_eq!(scene.primary(), third);
    scene.node(leader).restart().unwrap();

    scene.cluster.operate(&["cluster", "undrain", &id]).unwrap();
    in_rotation(&scene, drained).await;
    let back = v1::TransferLeadershipRequest { request_id: fresh_id(), node_id: id_of(drained) };
    scene.operator().transfer_leadership(back).await.unwrap();
    assert_eq!(scene.primary(), drained);
    stop.store(true, Ordering::SeqCst);
    caller.await.unwrap().expect("no caller sees an error");
    // The drained one may have led for a moment in between, if its log was the furthest when the leader died.
    let led = leaders(&scene);
    assert!(led.contains(&id_of(third)) && led.last() == Some(&id_of(drained)), "{led:?}");
    scene.finish();
}

/// Its log may be the only one that can win, so it stands although it is drained.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_drained_nodes_are_left_one_leads_and_is_not_primary_until_another_node_can() {
    let mut scene = Scene::with_coins("drain-all", 4).await;
    let leader = scene.primary();
    let drained = Scene::others(leader);
    for index in &drained {
        scene.cluster.operate(&["cluster", "drain", &id_of(*index).to_string()]).unwrap();
    }
    scene.node(leader).kill().unwrap();
    let operator = scene.operator();
    let next = eventually("a drained node leads", async || {
        for index in &drained {
            let status = operator.get_status_of(&scene.addresses(*index).control.to_string()).await;
            if status.is_ok_and(|status| status.role() == v1::NodeRole::Leader) {
                return Ok(*index);
            }
        }
        Err("none does".to_owned())
    })
    .await;
    out_of_rotation(&scene, next).await;
    scene.client_of(&drained).reserve_utxos(reserve(10_000)).await.expect("it answers who reaches it");
    assert_eq!(says(&scene, next, "/primary"), (503, "DRAINING".to_owned()));

    scene.node(leader).restart().unwrap();
    assert_eq!(scene.primary(), leader, "it takes the lead as soon as it is there");
    scene.finish();
}

/// The last four that the command line lists.
fn leaders(scene: &Scene) -> Vec<u64> {
    let told = scene.cluster.operate(&["cluster", "history", "-o", "json"]).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let all = told["leadership"].as_array().unwrap();
    let terms: Vec<u64> = all.iter().map(|change| change["term"].as_u64().unwrap()).collect();
    assert!(terms.is_sorted() && all.iter().all(|change| change["time"].is_string()), "{told}");
    // Node 3 may have led for a moment before any test began; what counts is how it went on.
    let leaders: Vec<u64> = all.iter().map(|change| change["leader_id"].as_u64().unwrap()).collect();
    leaders[leaders.len().saturating_sub(4)..].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_is_not_drained_any_more() {
    let mut scene = Scene::start("drain-restart");
    let leader = scene.primary();
    let drained = Scene::others(leader)[0];
    scene.cluster.operate(&["cluster", "drain", &id_of(drained).to_string()]).unwrap();
    out_of_rotation(&scene, drained).await;
    assert_eq!(scene.primary(), leader, "a replica's drain moves no lead");
    scene.node(drained).stop().unwrap();
    scene.node(drained).restart().unwrap();
    in_rotation(&scene, drained).await;
    let unknown = scene.cluster.operate(&["cluster", "drain", "9"]).unwrap_err().to_string();
    assert!(unknown.contains("NODE_UNKNOWN"), "{unknown}");
    scene.finish();
}
