//! Members come and go while callers go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use onespend_proto::{reason, v1};
use onespend_testnet::cluster::Addresses;
use onespend_testnet::health;
use onespend_testnet::hot::WALLET;
use serde_json::Value;

use crate::scene::{NODES, PATIENCE, Scene, eventually, fresh_id, need};
use crate::transfer::reserve_and_release;

/// The first id that the cluster never had.
pub const NEW: u64 = 4;
const ASK: Duration = Duration::from_secs(2);

/// safety 29: what was acknowledged is on the disks of a quorum, also of one that the new node belongs to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_was_lost_is_replaced_under_load_and_the_new_one_votes() {
    let mut scene = Scene::with_coins("replace", 10).await;
    let leader = scene.primary();
    let [lost, other] = Scene::others(leader)[..] else { panic!("three nodes") };
    let payments = scene.client_of(&[leader, other]);
    payments.create_payment(scene.order("before")).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn(reserve_and_release(scene.client_of(&[leader, other]), Arc::clone(&stop)));
    let replacement = scene.cluster.lose_disk(lost, NEW).unwrap();
    scene.node(lost).restart().unwrap();
    replacement.take_in().unwrap();
    payments.create_payment(scene.order("with-the-new-one")).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    caller.await.unwrap().expect("no caller sees an error");

    let listed: Value =
        serde_json::from_str(&scene.cluster.operate(&["cluster", "members", "-o", "json"]).unwrap()).unwrap();
    let voters: Vec<u64> = listed["members"].as_array().unwrap().iter().map(id_of_voter).collect();
    let mut expected: Vec<u64> = [leader, other].iter().map(|index| *index as u64 + 1).chain([NEW]).collect();
    expected.sort_unstable();
    assert_eq!(voters, expected);

    // Its id is not used again, though nobody has it now.
    is_used_up(&scene, lost as u64 + 1).await;

    // Without the other old node, nothing is granted unless the new one acknowledges it.
    scene.node(other).kill().unwrap();
    let both = scene.client_of(&[leader, lost]);
    both.create_payment(scene.order("by-the-new-one")).await.unwrap();
    scene.node(other).restart().unwrap();
    scene.settle_and_judge().await;
    scene.finish();
}

/// To add a node that does not run.
pub fn absent(node_id: u64) -> v1::AddLearnerRequest {
    let at = Addresses::free().unwrap();
    v1::AddLearnerRequest {
        request_id: fresh_id(),
        node_id,
        control_address: at.control.to_string(),
        data_address: at.data.to_string(),
    }
}

/// No new node gets this id.
async fn is_used_up(scene: &Scene, node_id: u64) {
    let refused = scene.operator().add_learner(absent(node_id)).await.unwrap_err();
    assert!(refused.is(reason::MEMBERSHIP_REFUSED), "{node_id}: {refused}");
    assert!(refused.to_string().contains("never used again"), "{node_id}: {refused}");
}

/// No node that is a member now was one, or ran, when the first of the ids was given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_of_a_removed_node_is_refused_when_nobody_is_left_who_was_there() {
    let mut scene = Scene::with_coins("ids", 10).await;
    let leader = scene.primary();
    for (lost, new) in Scene::others(leader).into_iter().chain([leader]).zip(NEW..) {
        let replacement = scene.cluster.lose_disk(lost, new).unwrap();
        scene.node(lost).restart().unwrap();
        replacement.take_in().unwrap();
    }
    for id in 1..NEW {
        is_used_up(&scene, id).await;
    }
    // It is on their disks.
    for index in 0..NODES {
        scene.node(index).kill().unwrap();
    }
    for index in 0..NODES {
        scene.node(index).restart().unwrap();
    }
    scene.primary();
    for id in 1..NEW {
        is_used_up(&scene, id).await;
    }

    let next = NEW + NODES as u64;
    let operator = scene.operator();
    operator.add_learner(absent(next)).await.expect("it is higher than any before");
    let remove = v1::RemoveNodeRequest { request_id: fresh_id(), node_id: next };
    operator.remove_node(remove).await.unwrap();
    is_used_up(&scene, next).await;
    scene.client().create_payment(scene.order("by-other-nodes")).await.unwrap();
    scene.settle_and_judge().await;
    scene.finish();
}

/// So many nodes beside the three voters, each with the whole log and no vote.
const LEARNERS: usize = 4;

/// Learners serve reads that may be stale, pass everything else on, and never lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_and_four_learners_under_load() {
    let mut scene = Scene::with_coins("learners", 10).await;
    let first = scene.primary();
    let stop = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn(reserve_and_release(scene.client(), Arc::clone(&stop)));
    let mut learners = Vec::new();
    for _ in 0..LEARNERS {
        let index = scene.cluster.start_joining().unwrap();
        let (node, at) = ((index + 1).to_string(), scene.addresses(index));
        let (control, data) = (at.control.to_string(), at.data.to_string());
        let to = ["--control-address", control.as_str(), "--data-address", data.as_str()];
        scene.cluster.operate(&[&["cluster", "add", node.as_str()], &to[..]].concat()).unwrap();
        learners.push(index);
    }
    for learner in &learners {
        follows(&scene, *learner).await;
        reads_and_passes_on(&scene, *learner).await;
    }
    let listed: Value =
        serde_json::from_str(&scene.cluster.operate(&["cluster", "members", "-o", "json"]).unwrap()).unwrap();
    let members = listed["members"].as_array().unwrap();
    let voters = members.iter().filter(|member| member["voter"] == true).count();
    assert_eq!((members.len(), voters), (NODES + LEARNERS, NODES));
    assert!(members.iter().all(|member| member["version"].is_string() && member["bitcoind"]["state"].is_string()));
    let lags = members.iter().filter(|member| member["lag_entries"].is_u64()).count();
    // A leader does not lag behind itself, and need not say so.
    assert!(lags + 1 >= NODES + LEARNERS, "{members:?}");

    // A learner neither votes nor stands: two of three voters are the quorum, and one of them leads.
    scene.node(first).kill().unwrap();
    let next = scene.primary();
    assert!(next < NODES && next != first, "node {}", next + 1);
    for learner in &learners {
        follows(&scene, *learner).await;
    }
    scene.node(first).restart().unwrap();
    stop.store(true, Ordering::SeqCst);
    caller.await.unwrap().expect("no caller sees an error");
    scene.finish();
}

/// It is a replica for balancers, and no primary.
async fn follows(scene: &Scene, learner: usize) {
    let health = scene.addresses(learner).health;
    eventually("a learner serves reads", async || {
        let answer = health::get(health, "/replica", ASK).map_err(|error| error.to_string())?;
        need(answer.is_ok() && answer.json()["role"] == "learner", || answer.body)
    })
    .await;
    for path in ["/primary", "/leader"] {
        let answer = health::get(health, path, ASK).unwrap();
        assert_eq!((answer.status, answer.json()["reason"].as_str()), (503, Some("NOT_LEADER")), "{path}");
    }
}

/// The age of what it shows is measured, and what may not be old comes from the leader.
async fn reads_and_passes_on(scene: &Scene, learner: usize) {
    let id = learner as u64 + 1;
    let bounded = v1::read_consistency::Level::BoundedStaleness(v1::BoundedStaleness { max_lag_ms: 60_000 });
    let bounded = Some(v1::ReadConsistency { level: Some(bounded) });
    let wallet_id = WALLET.to_owned();
    let asked = v1::GetBalanceRequest { wallet_id: wallet_id.clone(), consistency: bounded, ..Default::default() };
    let mut wallet = WalletServiceClient::new(scene.direct(learner));
    let answer = wallet.get_balance(asked).await.unwrap().into_inner().read_info.unwrap();
    assert!(answer.served_by == id && answer.staleness_ms <= 60_000 && answer.applied_index > 0, "{answer:?}");
    let asked = v1::GetBalanceRequest { wallet_id, ..Default::default() };
    let answer = wallet.get_balance(asked).await.unwrap().into_inner().read_info.unwrap();
    assert!(answer.served_by != id && answer.staleness_ms == 0, "{answer:?}");

    // Streams go out from a learner, too. Under load something changes all the time.
    let mut stream = ReservationServiceClient::new(scene.direct(learner))
        .watch_reservations(v1::WatchReservationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            let message = stream.message().await.unwrap().expect("the stream goes on");
            if let Some(reservation) = message.reservation {
                return reservation;
            }
        }
    });
    assert!(!told.await.expect("a change in time").reservation_id.is_empty());
}

fn id_of_voter(member: &Value) -> u64 {
    assert_eq!(member["voter"], true, "{member}");
    assert!(member["version"].is_string() && member["bitcoind"]["state"].is_string(), "{member}");
    member["node_id"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_the_members_that_would_do_harm_are_refused_with_the_reason() {
    let mut scene = Scene::start("members");
    let leader = scene.primary();
    let [one, other] = Scene::others(leader)[..] else { panic!("three nodes") };
    let operator = scene.operator();
    let id = |index: usize| index as u64 + 1;
    let remove = |node_id: u64| v1::RemoveNodeRequest { request_id: fresh_id(), node_id };
    let promote = |node_id: u64| v1::PromoteLearnerRequest { request_id: fresh_id(), node_id };
    let add = |node_id: u64, control: &str, data: &str| v1::AddLearnerRequest {
        request_id: fresh_id(),
        node_id,
        control_address: control.to_owned(),
        data_address: data.to_owned(),
    };

    let refused = operator.remove_node(remove(id(leader))).await.unwrap_err();
    assert!(refused.is(reason::MEMBERSHIP_REFUSED), "the leader: {refused}");
    for refused in [operator.remove_node(remove(9)).await.err(), operator.promote_learner(promote(9)).await.err()] {
        assert!(refused.as_ref().is_some_and(|refused| refused.is(reason::NODE_UNKNOWN)), "{refused:?}");
    }
    let refused = operator.add_learner(add(0, "nowhere", "0.0.0.0:1")).await.unwrap_err();
    assert!(refused.is(reason::FIELD_INVALID), "{refused}");
    let taken = scene.addresses(one).control.to_string();
    let refused = operator.add_learner(add(NEW, &taken, "127.0.0.1:1")).await.unwrap_err();
    assert!(refused.is(reason::MEMBERSHIP_REFUSED), "an address that is taken: {refused}");
    let refused = operator.add_learner(add(id(one), "127.0.0.1:1", "127.0.0.1:2")).await.unwrap_err();
    assert!(refused.is(reason::MEMBERSHIP_REFUSED), "an id that is taken: {refused}");

    // Nobody is there: it may learn, and must not vote.
    let members = operator.add_learner(add(NEW, "127.0.0.1:1", "127.0.0.1:2")).await.unwrap().members;
    assert!(members.iter().any(|member| member.node_id == NEW && !member.voter), "{members:?}");
    operator.add_learner(add(NEW, "127.0.0.1:1", "127.0.0.1:2")).await.expect("the same again");
    let refused = operator.promote_learner(promote(NEW)).await.unwrap_err();
    assert!(refused.is(reason::MEMBERSHIP_REFUSED), "{refused}");
    let members = operator.remove_node(remove(NEW)).await.unwrap().members;
    assert_eq!(members.len(), 3, "{members:?}");

    // With one node down, to remove the other would leave nobody to agree with.
    scene.node(one).kill().unwrap();
    let control = scene.addresses(leader).control.to_string();
    eventually("the leader misses the dead node", async || {
        let status = operator.get_status_of(&control).await.map_err(|error| error.to_string())?;
        let dead = status.members.into_iter().find(|member| member.node_id == id(one));
        let silence = dead.and_then(|dead| dead.last_contact).unwrap_or_default();
        need(silence.seconds >= 1, || format!("{silence:?}"))
    })
    .await;
    let refused = operator.remove_node(remove(id(other))).await.unwrap_err();
    assert!(refused.is(reason::MEMBERSHIP_REFUSED), "{refused}");
    let members = operator.remove_node(remove(id(one))).await.unwrap().members;
    assert_eq!(members.iter().filter(|member| member.voter).count(), 2, "{members:?}");
    scene.finish();
}
