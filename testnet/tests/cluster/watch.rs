//! Following payments and reservations while nodes come and go.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use onespend_proto::client::Client;
use onespend_proto::v1;
use onespend_proto::v1::PaymentState;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_testnet::health;
use onespend_testnet::hot::WALLET;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::scene::{NODES, PATIENCE, Scene, eventually, need, payment, release, reserve};

const PAYMENTS: usize = 36;
/// Changes that are read from one node before the next is asked; all nodes together get fewer than there are.
const CHANGES_PER_NODE: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_payments_resumes_on_another_node_without_a_gap() {
    let mut scene = Scene::with_coins("watch", PAYMENTS + 10).await;
    let client = scene.client();
    let followed = tokio::spawn(follow(client.clone(), PAYMENTS));
    let orders = scene.order_many("watch", PAYMENTS);
    let (early, late) = orders.split_at(PAYMENTS / 2);

    pay(&client, early).await;
    let seen = by_hand(&scene).await;
    seen.has_no_gap(&client).await;

    // The followed client loses its node under way, wherever it was.
    let dead = scene.primary();
    scene.node(dead).kill().unwrap();
    pay(&client, late).await;
    scene.node(dead).restart().unwrap();
    scene.settle_and_judge().await;

    let told = tokio::time::timeout(PATIENCE, followed).await.expect("the watch gets there").unwrap();
    for (payment_id, change) in &told {
        assert_eq!(*change, undated(payment(&client, payment_id).await), "the last word about {payment_id}");
    }
    resumed_by_hand(&scene, seen, &told).await;
    scene.finish();
}

const RESERVATIONS: usize = 12;

/// What a follower holds of each reservation in the end is what there is, though its node died under way and every node
/// was asked in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_reservations_resumes_on_another_node_without_a_gap() {
    let mut scene = Scene::with_coins("watch-reservations", RESERVATIONS + 4).await;
    let client = scene.client();
    let followed = tokio::spawn(follow_reservations(client.clone(), RESERVATIONS));
    let (early, late) = (RESERVATIONS / 2, RESERVATIONS);
    let mut held = Vec::new();
    for number in 0..early {
        let granted = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
        if number % 2 == 0 {
            client.release_reservation(release(&granted)).await.unwrap();
        }
        held.push(granted);
    }
    // A few from each node in turn, each from where the one before stopped.
    let (mut by_hand, mut resume) = (BTreeMap::new(), 0);
    for index in 0..NODES {
        let applied = client.get_tip(v1::GetTipRequest::default()).await.unwrap().read_info.unwrap().applied_index;
        resume = take_reservations(scene.direct(index), resume, applied, &mut by_hand).await;
    }
    for granted in &held {
        let now = reservation(&client, granted).await;
        assert_eq!(by_hand.get(&granted.reservation_id), Some(&now.state()), "{now:?}");
    }

    let dead = scene.primary();
    scene.node(dead).kill().unwrap();
    for granted in held.iter().skip(1).step_by(2) {
        client.release_reservation(release(granted)).await.unwrap();
    }
    for _ in early..late {
        let granted = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
        client.release_reservation(release(&granted)).await.unwrap();
        held.push(granted);
    }
    scene.node(dead).restart().unwrap();
    let told = tokio::time::timeout(PATIENCE, followed).await.expect("the watch gets there").unwrap();
    let released: BTreeMap<String, v1::ReservationState> =
        held.iter().map(|one| (one.reservation_id.clone(), v1::ReservationState::Released)).collect();
    assert_eq!(told, released);

    // Also the node that has just loaded its state, and knows of no single change, lets nobody miss any.
    let applied = client.get_tip(v1::GetTipRequest::default()).await.unwrap().read_info.unwrap().applied_index;
    for index in 0..NODES {
        let health = scene.addresses(index).health;
        let is_ready = || health::status(health, "/readyz", Duration::from_secs(2)) == 200;
        eventually("the node is ready", async || need(is_ready(), || format!("node {}", index + 1))).await;
        let mut resumed = by_hand.clone();
        take_reservations(scene.direct(index), resume, applied, &mut resumed).await;
        assert_eq!(resumed, released, "node {}", index + 1);
    }
    scene.finish();
}

/// With the client that goes on elsewhere by itself, until so many have ended; the last word about each.
async fn follow_reservations(client: Client, reservations: usize) -> BTreeMap<String, v1::ReservationState> {
    let mut watch = client.watch_reservations(v1::WatchReservationsRequest::default());
    let mut told = BTreeMap::new();
    while told.values().filter(|state| **state == v1::ReservationState::Released).count() < reservations {
        let message = watch.next().await.expect("the watch goes on elsewhere");
        if let Some(reservation) = message.reservation {
            told.insert(reservation.reservation_id.clone(), reservation.state());
        }
    }
    told
}

/// Takes in what one node tells after an index, until it has told everything up to another one; where to resume.
async fn take_reservations(
    channel: Channel,
    from_index: u64,
    up_to: u64,
    known: &mut BTreeMap<String, v1::ReservationState>,
) -> u64 {
    let mut stream = eventually("the node lets itself be followed", async || {
        // One that has just started refuses until it knows that it has caught up.
        let request = v1::WatchReservationsRequest { from_index, ..Default::default() };
        let opened = ReservationServiceClient::new(channel.clone()).watch_reservations(request).await;
        opened.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    })
    .await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let message = tokio::time::timeout_at(deadline.into(), stream.message()).await.expect("changes in time");
        let message = message.unwrap().expect("the stream goes on");
        if let Some(reservation) = message.reservation {
            known.insert(reservation.reservation_id.clone(), reservation.state());
        }
        if message.applied_index >= up_to {
            return message.applied_index;
        }
    }
}

async fn reservation(client: &Client, granted: &v1::Reservation) -> v1::Reservation {
    let request = v1::GetReservationRequest { reservation_id: granted.reservation_id.clone(), ..Default::default() };
    client.get_reservation(request).await.unwrap().reservation.unwrap()
}

async fn pay(client: &Client, orders: &[v1::CreatePaymentRequest]) {
    let calls: Vec<JoinHandle<_>> = orders
        .iter()
        .map(|order| {
            let (client, order) = (client.clone(), order.clone());
            tokio::spawn(async move { client.create_payment(order).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().expect("paid");
    }
}

/// Follows with the client that goes on elsewhere by itself, until so many payments are settled; the last word about
/// each. Nothing is told out of order, and again only what one entry changed together with what was lost at a break.
async fn follow(client: Client, payments: usize) -> BTreeMap<String, v1::Payment> {
    let mut watch =
        client.watch_payments(v1::WatchPaymentsRequest { wallet_id: WALLET.to_owned(), ..Default::default() });
    let mut told: BTreeMap<String, v1::Payment> = BTreeMap::new();
    while told.values().filter(|payment| payment.state() == PaymentState::Settled).count() < payments {
        let message = watch.next().await.expect("the watch goes on elsewhere");
        let Some(change) = message.payment.map(undated) else { continue };
        // While more of the same entry is to come, a caller has to resume before it.
        assert!((change.update_index - 1..=change.update_index).contains(&message.applied_index), "{change:?}");
        if let Some(before) = told.insert(change.payment_id.clone(), change.clone()) {
            let again = before == change;
            assert!(again || before.update_index < change.update_index, "backwards: {before:?}, {change:?}");
        }
    }
    told
}

/// A payment but for its depth, which grows with each block and is no change of the payment.
fn undated(mut payment: v1::Payment) -> v1::Payment {
    for attempt in &mut payment.attempts {
        attempt.depth = 0;
    }
    payment
}

/// What one caller saw that went from node to node, and where it stopped.
struct Seen {
    payments: BTreeMap<String, v1::Payment>,
    resume: u64,
}

/// A few changes from each node in turn, each from where the one before stopped.
async fn by_hand(scene: &Scene) -> Seen {
    let mut seen = Seen { payments: BTreeMap::new(), resume: 0 };
    for index in 0..NODES {
        let from = seen.resume;
        let (found, resume) = changes(scene.direct(index), from, |found| found.len() >= CHANGES_PER_NODE).await;
        for change in found {
            assert!(change.update_index > from, "told before index {from}: {change:?}");
            seen.payments.insert(change.payment_id.clone(), change);
        }
        seen.resume = seen.resume.max(resume);
    }
    seen
}

impl Seen {
    /// Every payment whose last change lies before the place where the caller stopped was told as it is.
    async fn has_no_gap(&self, client: &Client) {
        let request = v1::ListPaymentsRequest { wallet_id: WALLET.to_owned(), page_size: 1_000, ..Default::default() };
        let listed = client.list_payments(request).await.unwrap().payments;
        for payment in listed.into_iter().filter(|payment| payment.update_index <= self.resume) {
            assert_eq!(self.payments.get(&payment.payment_id), Some(&undated(payment)));
        }
    }
}

/// The changes after an index at one node, in their order, and where to resume; waits for them until there are `enough`.
async fn changes(
    channel: Channel,
    from_index: u64,
    enough: impl Fn(&[v1::Payment]) -> bool,
) -> (Vec<v1::Payment>, u64) {
    let request = v1::WatchPaymentsRequest { wallet_id: WALLET.to_owned(), from_index, ..Default::default() };
    let mut stream = PaymentServiceClient::new(channel).watch_payments(request).await.unwrap().into_inner();
    let deadline = Instant::now() + PATIENCE;
    let (mut found, mut resume) = (Vec::new(), from_index);
    while !enough(&found) {
        let message = tokio::time::timeout_at(deadline.into(), stream.message()).await.expect("changes in time");
        let message = message.unwrap().expect("the stream goes on");
        resume = message.applied_index;
        found.extend(message.payment.map(undated));
    }
    (found, resume)
}

/// Since then every payment has changed (all are settled now), so each node tells all of them.
async fn resumed_by_hand(scene: &Scene, seen: Seen, told: &BTreeMap<String, v1::Payment>) {
    let latest = |found: &[v1::Payment]| -> BTreeMap<String, v1::Payment> {
        found.iter().map(|change| (change.payment_id.clone(), change.clone())).collect()
    };
    for index in 0..NODES {
        changes(scene.direct(index), seen.resume, |found| latest(found) == *told).await;
    }
}
