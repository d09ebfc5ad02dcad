//! A rolling upgrade to a version that can do more: what it can do begins when every node can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1;

use crate::draft::release;
use crate::scene::{NODES, Scene, Stage, eventually, fresh_id, need};

/// What the later version knows.
const LATER: u32 = 2;

/// safety 32. The failpoint makes the same build take itself for the later version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feature_level_rises_when_every_node_knows_it_and_an_earlier_version_stops() {
    let mut scene = Scene::start(Stage { name: "upgrade", coins: 6, faulty: true, ..Stage::default() }).await;
    let stop = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn(reserve_and_release(scene.client.clone(), Arc::clone(&stop)));
    for index in 0..NODES {
        assert_eq!(scene.status(index).await.feature_level, 1, "before node {} is upgraded", index + 1);
        scene.fault(index, |now| now.feature_level = Some(LATER));
        scene.node(index).stop().unwrap();
        scene.node(index).restart().unwrap();
        eventually("it is ready", async || need(scene.says(index, "/readyz"), String::new)).await;
        assert_eq!(scene.status(index).await.known_feature_level, LATER);
    }
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
    let back = NODES - 1;
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
    scene.settle_and_judge(&["after"]).await;
    scene.finish().await;
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
