//! HAProxy in front of real nodes: writes go where they are taken, reads everywhere.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use onespend_proto::LEADER_METADATA_KEY;
use onespend_proto::v1;
use onespend_proto::v1::chain_service_client::ChainServiceClient;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::read_consistency::Level;
use onespend_testnet::grpc;

use crate::scene::{NODES, PATIENCE, Scene, eventually, need};

/// Connections that are looked at: with three nodes in turn, each gets some.
const CONNECTIONS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_routes_writes_to_the_primary_and_reads_to_read_only() {
    let mut scene = Scene::with_coins("haproxy", 20).await;
    let all: BTreeSet<u64> = (1..).take(NODES).collect();
    routed(&scene, &all).await;
    for order in scene.order_many("before", 4) {
        assert!(write(&scene, order).await, "a write was passed on: the front end led to a replica");
    }

    let dead = scene.primary();
    scene.node(dead).kill().unwrap();
    let killed_at = Instant::now();
    for order in scene.order_many("after", 4) {
        write(&scene, order).await;
    }
    eprintln!("four payments through HAProxy, {:?} after the kill", killed_at.elapsed());
    let survivors: BTreeSet<u64> = all.iter().copied().filter(|id| *id != id_of(dead)).collect();
    routed(&scene, &survivors).await;
    for order in scene.order_many("later", 2) {
        assert!(write(&scene, order).await, "a write was passed on: the front end led to a replica");
    }

    scene.node(dead).restart().unwrap();
    routed(&scene, &all).await;
    scene.settle_and_judge().await;
    scene.finish();
}

fn id_of(index: usize) -> u64 {
    index as u64 + 1
}

/// Waits until new connections go where they should: those for reads to all of these nodes, those for writes to the one
/// that is primary.
async fn routed(scene: &Scene, readers: &BTreeSet<u64>) {
    eventually("connections are routed", async || {
        let primary = scene.cluster.find("/primary").map(id_of).ok_or("nobody is primary")?;
        let writers = whom(scene, scene.cluster.primary_address()).await?;
        need(writers == BTreeSet::from([primary]), || format!("writes go to {writers:?}, primary is {primary}"))?;
        let found = whom(scene, scene.cluster.read_only_address()).await?;
        need(found == *readers, || format!("reads go to {found:?}, not {readers:?}"))
    })
    .await;
}

/// Who answers on new connections to a front end.
async fn whom(scene: &Scene, front: SocketAddr) -> Result<BTreeSet<u64>, String> {
    let mut found = BTreeSet::new();
    for _ in 0..CONNECTIONS {
        let channel = grpc::channel(front, scene.cluster.client()).unwrap();
        // Answered by whoever is asked, leader or not.
        let level = Level::BoundedStaleness(v1::BoundedStaleness { max_lag_ms: 60_000 });
        let consistency = Some(v1::ReadConsistency { level: Some(level) });
        let answer = ChainServiceClient::new(channel).get_tip(v1::GetTipRequest { consistency }).await;
        let answer = answer.map_err(|status| status.to_string())?.into_inner();
        found.insert(answer.read_info.unwrap().served_by);
    }
    Ok(found)
}

/// Pays through the front end for writes, on a connection of its own. Whether it led to the leader itself.
async fn write(scene: &Scene, order: v1::CreatePaymentRequest) -> bool {
    let channel = grpc::channel(scene.cluster.primary_address(), scene.cluster.client()).unwrap();
    let answered = grpc::until_answered(Instant::now() + PATIENCE, |request_id| {
        let mut client = PaymentServiceClient::new(channel.clone());
        let order = v1::CreatePaymentRequest { request_id, ..order.clone() };
        async move { client.create_payment(order).await }
    });
    let answer = answered.await.unwrap().answer;
    let passed_on = answer.metadata().get(LEADER_METADATA_KEY).is_some();
    assert_eq!(answer.into_inner().payment.unwrap().payment_id, order.payment_id);
    !passed_on
}
