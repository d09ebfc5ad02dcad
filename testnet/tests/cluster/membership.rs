//! Members come and go while callers go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onespend_proto::{reason, v1};
use serde_json::Value;

use crate::scene::{Scene, eventually, fresh_id, need};
use crate::transfer::reserve_and_release;

/// The first id that the cluster never had.
const NEW: u64 = 4;

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

    // Without the other old node, nothing is granted unless the new one acknowledges it.
    scene.node(other).kill().unwrap();
    let both = scene.client_of(&[leader, lost]);
    both.create_payment(scene.order("by-the-new-one")).await.unwrap();
    scene.node(other).restart().unwrap();
    scene.settle_and_judge().await;
    scene.finish();
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
