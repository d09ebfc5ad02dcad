//! Handing leadership over on purpose, when not everybody is there to take it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onespend_proto::client::{Client, ClientError};
use onespend_proto::{reason, v1};

use crate::scene::{NODES, Scene, eventually, fresh_id, need, release, reserve};

/// Longest time that a caller may wait for one answer around a transfer: an election and something for a busy machine.
const MAX_WAIT: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_to_a_node_that_lives_and_writes_go_on() {
    let mut scene = Scene::with_coins("transfer", 10).await;
    let leader = scene.primary();
    // The lowest id: among equals it would be chosen first.
    let [dead, living] = Scene::others(leader)[..] else { panic!("three nodes") };
    same_log_everywhere(&scene).await;
    scene.node(dead).kill().unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn(reserve_and_release(scene.client(), Arc::clone(&stop)));
    let operator = scene.operator();
    let to = |node_id: u64| v1::TransferLeadershipRequest { request_id: fresh_id(), node_id };
    let id = |index: usize| index as u64 + 1;
    let refused = operator.transfer_leadership(to(id(dead))).await.unwrap_err();
    assert!(refused.is(reason::TRANSFER_REFUSED), "{refused}");
    assert_eq!(scene.primary(), leader, "a refused transfer changes nothing");
    // 0 stands for whoever is fittest.
    let handed = operator.transfer_leadership(to(0)).await.unwrap();
    assert_eq!(handed.leader_id, id(living));
    assert_eq!(scene.primary(), living);

    stop.store(true, Ordering::SeqCst);
    let longest = caller.await.unwrap().expect("no caller sees an error");
    assert!(longest < MAX_WAIT, "a caller waited for {longest:?}");
    scene.finish();
}

/// Waits until every node has the whole log: then all are equally fit to lead.
pub async fn same_log_everywhere(scene: &Scene) {
    let operator = scene.operator();
    eventually("equal logs", async || {
        let mut last = Vec::new();
        for index in 0..NODES {
            let status = operator.get_status_of(&scene.addresses(index).control.to_string()).await;
            last.push(status.map_err(|error| error.to_string())?.last_log_index);
        }
        need(last.iter().all(|index| *index == last[0]), || format!("{last:?}"))
    })
    .await;
}

/// Until it is told to stop; the longest time that one call took.
pub async fn reserve_and_release(client: Client, stop: Arc<AtomicBool>) -> Result<Duration, ClientError> {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let reservation = client.reserve_utxos(reserve(10_000)).await?.reservation.unwrap();
        longest = longest.max(asked.elapsed());
        client.release_reservation(release(&reservation)).await?;
    }
    Ok(longest)
}
