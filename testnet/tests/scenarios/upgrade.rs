//! A rolling upgrade to a version that can do more: what it can do begins when every node can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1;

use crate::draft::release;
use crate::scene::{NODES, PATIENCE, POLL, Scene, Stage, eventually, fresh_id, need};

/// What the earlier version knows.
const EARLIER: u32 = 1;
/// What the later version knows.
const LATER: u32 = 2;
/// The node that is upgraded last.
const LAST: usize = NODES - 1;
/// A leader asks the others every two seconds what they can do: more than three rounds, on a busy machine too.
const MIXED: Duration = Duration::from_secs(9);

/// safety 32. Until the last node is upgraded the level stays, whoever leads and for however long. The failpoint makes the
/// same build take itself for the later version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feature_level_rises_when_every_node_knows_it_and_an_earlier_version_stops() {
    let mut scene = Scene::start(Stage { name: "upgrade", coins: 6, faulty: true, ..Stage::default() }).await;
    let stop = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn(reserve_and_release(scene.client.clone(), Arc::clone(&stop)));
    for index in 0..LAST {
        upgrade(&mut scene, index).await;
    }
    one_earlier_version_keeps_the_level(&mut scene).await;
    scene.pay("mixed", 2.0).await;
    upgrade(&mut scene, LAST).await;
    for index in 0..NODES {
        eventually("the level is raised", async || {
            let level = scene.status(index).await.feature_level;
            need(level == LATER, || format!("node {} is at {level}", index + 1))
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    let rounds = caller.await.unwrap().expect("no caller sees an error");
    assert!(rounds > 0);

    // Back to the version before: it cannot read what the others may write by now.
    let back = LAST;
    scene.fault(back, |now| now.feature_level = None);
    scene.node(back).stop().unwrap();
    scene.node(back).restart().unwrap();
    eventually("it ends", async || need(!scene.cluster.node(back).unwrap().is_running(), String::new)).await;
    let last_words = scene.node(back).log_tail();
    assert!(last_words.contains("feature level 2") && last_words.contains("start a later version"), "{last_words}");
    scene.fault(back, |now| now.feature_level = Some(LATER));
    scene.node(back).restart().unwrap();
    eventually("the later one serves", async || need(scene.says(back, "/readyz"), String::new)).await;
    scene.pay("after", 2.0).await;
    scene.settle_and_judge(&["mixed", "after"]).await;
    scene.finish().await;
}

/// Restarts a node as the later version.
async fn upgrade(scene: &mut Scene, index: usize) {
    assert_eq!(scene.status(index).await.feature_level, EARLIER, "before node {} is upgraded", index + 1);
    scene.fault(index, |now| now.feature_level = Some(LATER));
    scene.node(index).stop().unwrap();
    scene.node(index).restart().unwrap();
    eventually("it is ready", async || need(scene.says(index, "/readyz"), String::new)).await;
    assert_eq!(scene.status(index).await.known_feature_level, LATER);
}

/// A leader that can do more asks for more than three rounds, while callers go on: the one that cannot keeps the level,
/// lives, and applies what is asked for.
async fn one_earlier_version_keeps_the_level(scene: &mut Scene) {
    let before = scene.status(LAST).await.applied_index;
    let deadline = Instant::now() + PATIENCE;
    let mut asked = Duration::ZERO;
    while asked < MIXED {
        let since = Instant::now();
        assert!(since < deadline, "for {asked:?} only a node led that can do more");
        let leads = (0..LAST).any(|index| scene.says(index, "/leader"));
        if !leads {
            scene.hand_over(0, "/leader").await;
        }
        for index in 0..NODES {
            assert_eq!(scene.status(index).await.feature_level, EARLIER, "node {} after {asked:?}", index + 1);
        }
        let earlier = scene.node(LAST);
        assert!(earlier.is_running(), "{}", earlier.log_tail());
        tokio::time::sleep(POLL).await;
        // The time of a hand-over does not count.
        if leads {
            asked += since.elapsed();
        }
    }
    let after = scene.status(LAST).await;
    assert_eq!(after.known_feature_level, EARLIER);
    assert!(after.applied_index > before, "{before}, then {}", after.applied_index);
}

/// Until it is told to stop; how often.
async fn reserve_and_release(client: Client, stop: Arc<AtomicBool>) -> Result<u32, ClientError> {
    let mut rounds = 0;
    while !stop.load(Ordering::SeqCst) {
        let selection = v1::Selection { target_sat: 10_000, feerate_sat_vb: 2.0, ..v1::Selection::default() };
        let request = v1::ReserveUtxosRequest {
            request_id: fresh_id(),
            wallet_id: onespend_testnet::hot::WALLET.to_owned(),
            what: Some(v1::reserve_utxos_request::What::Selection(selection)),
            ..v1::ReserveUtxosRequest::default()
        };
        let reservation = client.reserve_utxos(request).await?.reservation.unwrap();
        release(&client, &reservation).await;
        rounds += 1;
    }
    Ok(rounds)
}
