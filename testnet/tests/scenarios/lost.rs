//! Answers that never arrive, to requests for very many coins.

use std::time::Duration;

use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::{self, ReservationState, UtxoState};
use onespend_testnet::grpc::channel;
use onespend_testnet::relay::{Direction, Link, Relay};
use tonic::Status;

use crate::draft::{names, release, reserve, wanted};
use crate::scene::{Scene, eventually, need, reason};

const TTL: Duration = Duration::from_mins(10);
/// Coins of one reservation.
pub const MANY: usize = 200;

/// safety 2, 27: 200-outpoint reservation failing on the last one with the answer lost. Not one of the others is held,
/// and the retry elsewhere gets the refusal that was decided, though the coin is free by then. The same for a grant.
pub async fn a_large_reservation_whose_last_coin_is_taken_holds_nothing_and_is_refused_again(scene: &mut Scene) {
    let coins = names(&scene.free_coins(MANY).await);
    let (last, rest) = coins.split_last().unwrap();
    let blocker = reserve(&scene.client, std::slice::from_ref(last), TTL).await.unwrap();
    let request = wanted(&coins, TTL);
    ask_and_lose_the_answer(scene, &request).await;

    assert_eq!(active(scene).await, std::slice::from_ref(&blocker.reservation_id), "all or none");
    for coin in scene.coins().await.iter().filter(|coin| rest.contains(coin.outpoint.as_ref().unwrap())) {
        assert_eq!(coin.state(), UtxoState::Available, "{coin:?}");
    }
    let others = reserve(&scene.client, rest, TTL).await.expect("somebody else may have them");
    release(&scene.client, &others).await;
    release(&scene.client, &blocker).await;
    let leader = scene.primary();
    for elsewhere in Scene::others(leader) {
        let again = scene.client_of(&[elsewhere]).reserve_utxos(request.clone()).await;
        assert_eq!(reason(again), "OUTPOINT_RESERVED", "the retry has the same answer");
    }
    assert_eq!(active(scene).await, Vec::<String>::new());

    let request = wanted(&coins, TTL);
    ask_and_lose_the_answer(scene, &request).await;
    let [granted] = &active(scene).await[..] else { panic!("one reservation") };
    for elsewhere in Scene::others(leader) {
        let again = scene.client_of(&[elsewhere]).reserve_utxos(request.clone()).await.unwrap().reservation.unwrap();
        assert_eq!((&again.reservation_id, again.utxos.len()), (granted, MANY));
    }
    let [granted] = &reservations(scene).await[..] else { panic!("one reservation") };
    release(&scene.client, granted).await;
}

/// Asks the leader on a connection that brings no answer back, and waits until the log has decided.
async fn ask_and_lose_the_answer(scene: &mut Scene, request: &v1::ReserveUtxosRequest) {
    let leader = scene.primary();
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), scene.cluster.nodes()[leader].addresses().data).unwrap();
    let mut caller = ReservationServiceClient::new(channel(relay.address(), scene.cluster.client()).unwrap());
    caller.list_reservations(v1::ListReservationsRequest::default()).await.expect("the connection is there");
    let before = scene.status(leader).await.applied_index;
    relay.set(Direction::ToClient, Link::Held);
    let asked = request.clone();
    let call = tokio::spawn(async move { caller.reserve_utxos(asked).await });
    eventually("the request is decided", async || {
        let now = scene.status(leader).await.applied_index;
        need(now > before, || format!("entry {now}"))
    })
    .await;
    let answer: Result<_, Status> = call.await.unwrap();
    answer.expect_err("no answer arrives");
}

/// The reservations that hold coins.
async fn reservations(scene: &Scene) -> Vec<v1::Reservation> {
    let request = v1::ListReservationsRequest { states: vec![ReservationState::Active.into()], ..Default::default() };
    scene.client.list_reservations(request).await.unwrap().reservations
}

async fn active(scene: &Scene) -> Vec<String> {
    reservations(scene).await.into_iter().map(|one| one.reservation_id).collect()
}
