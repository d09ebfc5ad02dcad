//! Following payments while nodes come and go.

use std::collections::BTreeMap;
use std::time::Instant;

use onespend_proto::client::Client;
use onespend_proto::v1;
use onespend_proto::v1::PaymentState;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_testnet::hot::WALLET;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::scene::{NODES, PATIENCE, Scene, payment};

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
