//! A leader that is frozen and does not know it: the others go on, and what it still holds does no harm.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use onespend_proto::client::Client;
use onespend_proto::v1;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_testnet::cluster::Credentials;
use onespend_testnet::hot::WALLET;
use onespend_testnet::oracle::endpoints::{ELECTION_TIMEOUT, PrimaryWatch, longest_overlap};
use onespend_testnet::process::Signal;
use onespend_testnet::relay::{Direction, Link, Relay};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::scene::{PATIENCE, Scene, eventually, need, payment, release, reserve};

const PAYMENTS: usize = 40;
const CALLERS: usize = 4;
/// The leader freezes when so many payments are acknowledged.
const FREEZE_AT: usize = 10;

type Call<T> = JoinHandle<Result<T, Status>>;

/// safety 13: after a failover the retry has the same txid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_loses_its_primary_and_a_lost_answer_is_repeated_elsewhere() {
    let mut scene = Scene::with_coins("pause", PAYMENTS + 20).await;
    let watch = PrimaryWatch::start(scene.cluster.nodes().iter().map(|node| node.addresses().health));
    let paused = scene.primary();
    let term = status_of(&scene, paused).await.term;
    let survivors = scene.client_of(&Scene::others(paused));

    // Two requests are carried out, and their answers do not arrive for now.
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), scene.addresses(paused).data).unwrap();
    let channel = warm_channel(relay.address(), scene.cluster.client()).await;
    relay.set(Direction::ToClient, Link::Held);
    let (wanted, order) = (reserve(30_000), scene.order("lost"));
    let reserving = start_reserving(&channel, &wanted);
    let paying = start_paying(&channel, &order);
    let held = only_reservation(&survivors).await;
    let paid = paid_elsewhere(&survivors, "lost").await;

    let mut answers = pay(&scene.client(), scene.order_many("pause", PAYMENTS));
    for _ in 0..FREEZE_AT {
        acknowledged(&mut answers).await;
    }
    let late = scene.order("late");
    let direct = warm_channel(scene.addresses(paused).data, scene.cluster.client()).await;
    scene.node(paused).signal(Signal::Stop).unwrap();
    // This one lies in the frozen node's socket until that goes on.
    let read_late = start_paying(&direct, &late);
    while !answers.is_empty() {
        acknowledged(&mut answers).await;
    }
    let late_paid = same_answers(&survivors, &wanted, &held, &order, &paid, &late).await;

    let thawed_at = Instant::now();
    scene.node(paused).signal(Signal::Continue).unwrap();
    eventually("the paused node follows", async || {
        let status = status_of(&scene, paused).await;
        need(status.term > term && status.role() == v1::NodeRole::Replica, || format!("{status:?}"))
    })
    .await;
    let returned = scene.client_of(&[paused]);
    assert_eq!(same_answers(&returned, &wanted, &held, &order, &paid, &late).await, late_paid);
    // What it made of the late request: the same payment, or no answer, and never a second transaction.
    if let Ok(answer) = read_late.await.unwrap() {
        assert_eq!(answer.payment.unwrap().txid, late_paid);
    }
    // The first answers, which arrive at last.
    relay.heal();
    let first = reserving.await.unwrap().unwrap().reservation.unwrap();
    assert_eq!((first.reservation_id, first.fence), (held.reservation_id.clone(), held.fence));
    assert_eq!(paying.await.unwrap().unwrap().payment.unwrap().txid, paid.txid);
    returned.release_reservation(release(&held)).await.unwrap();

    one_primary(&watch, paused, term, thawed_at);
    scene.settle_and_judge().await;
    scene.finish();
}

/// Asks again what was asked before, under the same request ids; gives back the transaction that pays the late order.
async fn same_answers(
    client: &Client,
    wanted: &v1::ReserveUtxosRequest,
    held: &v1::Reservation,
    order: &v1::CreatePaymentRequest,
    paid: &v1::Payment,
    late: &v1::CreatePaymentRequest,
) -> String {
    let reserved = client.reserve_utxos(wanted.clone()).await.unwrap().reservation.unwrap();
    assert_eq!((&reserved.reservation_id, reserved.fence), (&held.reservation_id, held.fence));
    assert_eq!(reserved.utxos, held.utxos);
    let again = client.create_payment(order.clone()).await.unwrap().payment.unwrap();
    assert_eq!((&again.txid, again.attempts.len()), (&paid.txid, 1));
    let late = client.create_payment(late.clone()).await.unwrap().payment.unwrap();
    assert_eq!(late.attempts.len(), 1);
    late.txid
}

/// A connection without keepalive and time limits, with one call behind it: a frozen node does not break it.
async fn warm_channel(address: SocketAddr, credentials: &Credentials) -> Channel {
    let read = |path| fs::read(path).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&credentials.ca)))
        .identity(Identity::from_pem(read(&credentials.cert), read(&credentials.key)))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", address.port())).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().tcp_nodelay(true).connect().await.unwrap();
    let greeting = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: "none".to_owned() };
    let unknown = PaymentServiceClient::new(channel.clone()).get_payment(greeting).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    channel
}

fn start_paying(channel: &Channel, order: &v1::CreatePaymentRequest) -> Call<v1::CreatePaymentResponse> {
    let (mut client, order) = (PaymentServiceClient::new(channel.clone()), order.clone());
    tokio::spawn(async move { client.create_payment(order).await.map(tonic::Response::into_inner) })
}

fn start_reserving(channel: &Channel, wanted: &v1::ReserveUtxosRequest) -> Call<v1::ReserveUtxosResponse> {
    let (mut client, wanted) = (ReservationServiceClient::new(channel.clone()), wanted.clone());
    tokio::spawn(async move { client.reserve_utxos(wanted).await.map(tonic::Response::into_inner) })
}

/// The only active reservation that there is.
async fn only_reservation(client: &Client) -> v1::Reservation {
    eventually("the reservation is seen elsewhere", async || {
        let listed = client.list_reservations(v1::ListReservationsRequest::default()).await.unwrap().reservations;
        listed.first().filter(|_| listed.len() == 1).cloned().ok_or_else(|| format!("{listed:?}"))
    })
    .await
}

async fn paid_elsewhere(client: &Client, payment_id: &str) -> v1::Payment {
    eventually("the payment is seen elsewhere", async || {
        let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment_id.to_owned() };
        client.get_payment(request).await.map_err(|error| error.to_string())
    })
    .await;
    payment(client, payment_id).await
}

/// A few callers share the orders; each answer comes out of the set.
fn pay(client: &Client, orders: Vec<v1::CreatePaymentRequest>) -> JoinSet<v1::Payment> {
    let callers = Arc::new(Semaphore::new(CALLERS));
    let mut answers = JoinSet::new();
    for order in orders {
        let (client, callers) = (client.clone(), Arc::clone(&callers));
        answers.spawn(async move {
            let _one_of_few = callers.acquire_owned().await.unwrap();
            client.create_payment(order).await.unwrap().payment.unwrap()
        });
    }
    answers
}

async fn acknowledged(answers: &mut JoinSet<v1::Payment>) {
    let answer = tokio::time::timeout(PATIENCE, answers.join_next()).await.expect("payments go on");
    answer.unwrap().expect("no caller sees an error");
}

async fn status_of(scene: &Scene, index: usize) -> v1::GetStatusResponse {
    let operator = scene.operator();
    let address = scene.addresses(index).control.to_string();
    eventually("a status", async || operator.get_status_of(&address).await.map_err(|error| error.to_string())).await
}

/// Never two at once for longer than an election timeout, and the thawed node never again in its old term.
fn one_primary(watch: &PrimaryWatch, paused: usize, old_term: u64, thawed_at: Instant) {
    let reigns = watch.reigns();
    assert!(reigns.iter().any(|reign| reign.node == paused && reign.term == old_term), "{reigns:?}");
    assert!(reigns.iter().any(|reign| reign.node != paused && reign.term > old_term), "{reigns:?}");
    let revenant =
        reigns.iter().find(|reign| reign.node == paused && reign.term <= old_term && reign.last_answer > thawed_at);
    assert_eq!(revenant, None, "primary again in its old term");
    if let Some((overlap, one, other)) = longest_overlap(&reigns) {
        assert!(overlap <= ELECTION_TIMEOUT, "two primaries for {overlap:?}: {one:?} and {other:?}");
    }
}
