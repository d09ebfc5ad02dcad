//! A write that reaches a replica: passed on with the caller's identity, or refused with the way to the leader.

use std::fs;

use onespend_proto::client::Rejection;
use onespend_proto::v1;
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use onespend_proto::{CALLER_METADATA_KEY, LEADER_METADATA_KEY, detail, reason};
use onespend_testnet::grpc;
use onespend_testnet::hot::WALLET;
use tonic::{Code, Request};

use crate::scene::{Scene, eventually, fresh_id, need, payment, release, reserve};
use crate::traces::{self, Collector};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_forwards_writes_with_the_callers_identity() {
    let collector = Collector::default();
    let (name, value) = collector.serve().await;
    let mut scene = Scene::with_variables("forwarding", 10, &[(&name, &value)]).await;
    let leader = scene.primary();
    let replica = Scene::others(leader)[0];
    writes_belong_to_their_caller(&scene, replica, leader).await;
    a_caller_may_not_name_another(&scene, replica).await;
    one_payment_whoever_is_asked(&mut scene, leader).await;
    traces::one_trace_leads_from_a_replica_over_the_leader_to_bitcoind(&mut scene, &collector, replica, leader).await;
    without_forwarding_the_leader_is_named(&mut scene, replica).await;
    scene.settle_and_judge().await;
    scene.finish();
}

async fn writes_belong_to_their_caller(scene: &Scene, replica: usize, leader: usize) {
    let mut payouts = ReservationServiceClient::new(scene.direct(replica));
    let answer = payouts.reserve_utxos(reserve(10_000)).await.unwrap();
    // The answer says where to go next time.
    let named = answer.metadata().get(LEADER_METADATA_KEY).unwrap().to_str().unwrap().to_owned();
    assert_eq!(named, scene.addresses(leader).data.to_string());
    let reservation = answer.into_inner().reservation.unwrap();
    assert_eq!(reservation.owner, "client/payouts");

    let stranger = scene.cluster.issue("client", "stranger").unwrap();
    let stranger = grpc::channel(scene.addresses(replica).data, &stranger).unwrap();
    let mut stranger_reservations = ReservationServiceClient::new(stranger.clone());
    let refused = stranger_reservations.release_reservation(release(&reservation)).await.unwrap_err();
    let refused = Rejection::from_status(&refused);
    assert_eq!((refused.reason.as_str(), refused.code), (reason::NOT_OWNER, Code::PermissionDenied), "{refused}");
    assert_eq!(refused.metadata.get("owner").map(String::as_str), Some("client/payouts"));
    // A role is the caller's own, not that of the node that passes the call on.
    let freeze =
        v1::FreezeWalletRequest { request_id: fresh_id(), wallet_id: WALLET.to_owned(), note: "no".to_owned() };
    let refused = WalletServiceClient::new(stranger).freeze_wallet(freeze).await.unwrap_err();
    let refused = Rejection::from_status(&refused);
    assert_eq!((refused.reason.as_str(), refused.code), (reason::ROLE, Code::PermissionDenied), "{refused}");
    assert_eq!(refused.metadata.get("caller").map(String::as_str), Some("client/stranger"));

    let released = payouts.release_reservation(release(&reservation)).await.unwrap().into_inner();
    assert_eq!(released.reservation.unwrap().state(), v1::ReservationState::Released);
}

async fn a_caller_may_not_name_another(scene: &Scene, replica: usize) {
    let mut request = Request::new(reserve(10_000));
    request.metadata_mut().insert(CALLER_METADATA_KEY, "client/stranger".parse().unwrap());
    let mut client = ReservationServiceClient::new(scene.direct(replica));
    let refused = Rejection::from_status(&client.reserve_utxos(request).await.unwrap_err());
    assert_eq!((refused.reason.as_str(), refused.code), (reason::CALLER_UNKNOWN, Code::Unauthenticated), "{refused}");
}

/// The same request at every node is one payment, owned by the caller.
async fn one_payment_whoever_is_asked(scene: &mut Scene, leader: usize) {
    let order = scene.order("everywhere");
    let asked = Scene::others(leader).into_iter().chain([leader]);
    let mut txids = Vec::new();
    for index in asked {
        let paid = scene.client_of(&[index]).create_payment(order.clone()).await.unwrap().payment.unwrap();
        assert_eq!((paid.owner.as_str(), paid.attempts.len()), ("client/payouts", 1));
        txids.push(paid.txid);
    }
    assert!(txids.iter().all(|txid| *txid == txids[0]), "{txids:?}");
}

async fn without_forwarding_the_leader_is_named(scene: &mut Scene, replica: usize) {
    let file = scene.node(replica).config_file();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\n[api]\nforward_writes = false\n")).unwrap();
    scene.node(replica).stop().unwrap();
    scene.node(replica).restart().unwrap();
    let health = scene.addresses(replica).health;
    let refused = eventually("the restarted node refuses and names the leader", async || {
        let status = onespend_testnet::health::status(health, "/replica", crate::scene::PATIENCE);
        need(status == 200, || format!("/replica: {status}"))?;
        let mut client = ReservationServiceClient::new(scene.direct(replica));
        let refused = client.reserve_utxos(reserve(10_000)).await.map_err(|status| Rejection::from_status(&status));
        let refused = refused.expect_err("a replica that does not forward cannot write");
        // A leader that has just changed is not known for a moment.
        need(refused.metadata.contains_key(detail::LEADER_ID), || refused.to_string())?;
        Ok(refused)
    })
    .await;
    assert_eq!((refused.reason.as_str(), refused.code), (reason::NOT_LEADER, Code::FailedPrecondition));
    let leader = scene.primary();
    let at = scene.addresses(leader);
    let named = |key| refused.metadata.get(key).cloned().unwrap_or_default();
    assert_eq!(named(detail::LEADER_ID), (leader + 1).to_string());
    assert_eq!(named(detail::LEADER_DATA_ADDR), at.data.to_string());
    assert_eq!(named(detail::LEADER_CONTROL_ADDR), at.control.to_string());
    assert_eq!(
        named(detail::TERM),
        onespend_testnet::health::get(at.health, "/status", crate::scene::PATIENCE).unwrap().json()["term"].to_string()
    );

    // The Rust client follows the hint, although it knows only this node.
    let client = scene.client_of(&[replica]);
    let order = scene.order("hinted");
    client.create_payment(order).await.unwrap();
    assert!(client.stats().hints_followed >= 1, "{:?}", client.stats());
    assert_eq!(client.preferred_endpoint(), at.data.to_string());
    assert_eq!(payment(&client, "hinted").await.owner, "client/payouts");
}
