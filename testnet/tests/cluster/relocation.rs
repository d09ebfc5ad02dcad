//! A member comes back at other addresses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onespend_proto::{reason, v1};
use onespend_testnet::cluster::Addresses;

use crate::scene::{Scene, eventually, fresh_id, need};
use crate::transfer::reserve_and_release;

fn moving(node_id: u64, to: Addresses) -> v1::MoveNodeRequest {
    v1::MoveNodeRequest {
        request_id: fresh_id(),
        node_id,
        control_address: to.control.to_string(),
        data_address: to.data.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_restarts_at_other_addresses_is_moved_and_votes_on() {
    let mut scene = Scene::with_coins("relocation", 10).await;
    let leader = scene.primary();
    let [moved, other] = Scene::others(leader)[..] else { panic!("three nodes") };
    let id = moved as u64 + 1;
    let (control, old) = (scene.addresses(leader).control.to_string(), scene.addresses(moved));
    let operator = scene.operator();
    let payments = scene.client_of(&[leader, other]);
    payments.create_payment(scene.order("before")).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn(reserve_and_release(scene.client_of(&[leader, other]), Arc::clone(&stop)));
    let new = Addresses::free().unwrap();
    scene.node(moved).relocate(new).unwrap();
    // The others do not reach it, and it says why itself.
    eventually("it notices", async || {
        let status = operator.get_status_of(&new.control.to_string()).await.map_err(|error| error.to_string())?;
        need(status.warnings.iter().any(|why| why.contains("cluster move")), || format!("{:?}", status.warnings))
    })
    .await;
    let taken = operator.move_node(moving(id, scene.addresses(other))).await.unwrap_err();
    assert!(taken.is(reason::MEMBERSHIP_REFUSED), "{taken}");
    let stranger = operator.move_node(moving(9, new)).await.unwrap_err();
    assert!(stranger.is(reason::NODE_UNKNOWN), "{stranger}");
    let (node, to_control, to_data) = (id.to_string(), new.control.to_string(), new.data.to_string());
    let to = ["--control-address", to_control.as_str(), "--data-address", to_data.as_str()];
    scene.cluster.operate(&[&["cluster", "move", node.as_str()], &to[..]].concat()).unwrap();
    operator.move_node(moving(id, new)).await.expect("the same again");

    eventually("it follows again, and has nothing to warn of", async || {
        let leads = operator.get_status_of(&control).await.map_err(|error| error.to_string())?;
        let member = leads.members.into_iter().find(|member| member.node_id == id).unwrap();
        need(member.lag_entries.is_some_and(|lag| lag < 100), || format!("{member:?}"))?;
        need(member.control_address == new.control.to_string() && member.voter, || format!("{member:?}"))?;
        let status = operator.get_status_of(&new.control.to_string()).await.map_err(|error| error.to_string())?;
        need(status.warnings.iter().all(|why| !why.contains("cluster move")), || format!("{:?}", status.warnings))
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    caller.await.unwrap().expect("no caller sees an error");
    assert_ne!(old.control, scene.addresses(moved).control);

    // Without the other replica nothing is granted unless the moved one acknowledges it; then it is even elected.
    scene.node(other).kill().unwrap();
    let both = scene.client_of(&[leader, moved]);
    both.create_payment(scene.order("with-the-moved-one")).await.unwrap();
    scene.node(other).restart().unwrap();
    let lead = v1::TransferLeadershipRequest { request_id: fresh_id(), node_id: id };
    eventually("it takes the lead", async || {
        operator.transfer_leadership(lead.clone()).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    both.create_payment(scene.order("led-by-the-moved-one")).await.unwrap();
    scene.settle_and_judge().await;
    scene.finish();
}
