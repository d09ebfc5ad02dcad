//! Stopping nodes in order, as an update does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onespend_proto::client::{Client, ClientError};
use onespend_proto::{reason, v1};
use onespend_testnet::health;
use onespend_testnet::oracle::endpoints::{ELECTION_TIMEOUT, PrimaryWatch, longest_overlap};
use onespend_testnet::process::Signal;
use tokio::task::JoinSet;

use crate::goaway::Idle;
use crate::scene::{NODES, POLL, Scene, eventually, fresh_id, need, release, reserve};
use crate::transfer::same_log_everywhere;

const RESERVERS: usize = 3;
const PAYERS: usize = 2;
const PAYMENTS_EACH: usize = 15;
/// So many answers before, between and after the stops.
const ANSWERS_PER_PHASE: usize = 20;
const ANSWERS_PER_PAYMENT: usize = 2 * NODES * ANSWERS_PER_PHASE / PAYMENTS_EACH;
/// `[shutdown] deadline_ms` of a node: then it ends itself, and not with code 0.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// What the callers share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answers: AtomicUsize,
    /// Payments that the watch told of.
    told: AtomicUsize,
}

impl Load {
    fn count(&self) {
        self.answers.fetch_add(1, Ordering::SeqCst);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Waits for so many further answers.
    async fn goes_on(&self) {
        let before = self.answers.load(Ordering::SeqCst);
        eventually("callers get answers", async || {
            let more = self.answers.load(Ordering::SeqCst) - before;
            need(more >= ANSWERS_PER_PHASE, || format!("{more} answers"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_hands_leadership_over_and_loses_no_request() {
    let mut scene = Scene::with_coins("sigterm", PAYERS * PAYMENTS_EACH + 20).await;
    let watch = PrimaryWatch::start(scene.cluster.nodes().iter().map(|node| node.addresses().health));
    let load = Arc::new(Load::default());
    let client = scene.client();
    let mut callers = start_callers(&mut scene, &client, &load);
    let watching = tokio::spawn(follow(client.clone(), Arc::clone(&load)));

    // Each node once, the leader first and then one that does not lead, as an update would go on.
    let mut rest: Vec<usize> = (0..NODES).collect();
    for step in 0..NODES {
        let leader = scene.primary();
        let wanted = rest.iter().position(|index| (*index == leader) == (step == 0)).unwrap_or(0);
        let index = rest.remove(wanted);
        load.goes_on().await;
        stop_in_order(&mut scene, index);
        load.goes_on().await;
        scene.node(index).restart().unwrap();
        eventually("a restarted node takes part", async || {
            let path = scene.cluster.find("/primary").filter(|at| *at == index).map_or("/replica", |_| "/primary");
            let health = scene.addresses(index).health;
            let status = onespend_testnet::health::status(health, path, STOP_DEADLINE);
            need(status == 200, || format!("{path}: {status}"))
        })
        .await;
    }
    load.stop.store(true, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap().expect("no caller sees an error");
    }
    eventually("the watch goes on", async || {
        let told = load.told.load(Ordering::SeqCst);
        need(told >= PAYERS * PAYMENTS_EACH && !watching.is_finished(), || format!("told of {told}"))
    })
    .await;
    watching.abort();
    eprintln!("{} answers, {:?}", load.answers.load(Ordering::SeqCst), client.stats());
    assert_eq!(client.stats().calls_unknown, 0);
    if let Some((overlap, one, other)) = longest_overlap(&watch.reigns()) {
        assert!(overlap <= ELECTION_TIMEOUT, "two primaries for {overlap:?}: {one:?} and {other:?}");
    }
    scene.settle_and_judge().await;
    scene.finish();
}

/// Longer than the test looks at a node that stops.
const STOPS_LATE: &[(&str, &str)] =
    &[("ONESPEND_SHUTDOWN__DRAIN_MS", "120000"), ("ONESPEND_SHUTDOWN__DEADLINE_MS", "150000")];

/// A request that does not end keeps it from stopping. Meanwhile its vote counts, its disk does, and it does not lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_is_handed_the_lead_by_nobody_and_votes_to_its_end() {
    let mut scene = Scene::with_variables("stopping", 2, STOPS_LATE).await;
    let leader = scene.primary();
    let [stops, other] = Scene::others(leader)[..] else { panic!("three nodes") };
    let busy = Idle::open(scene.addresses(stops).data, scene.cluster.client()).begin_request();
    scene.node(stops).signal(Signal::Term).unwrap();
    eventually("it stops", async || {
        let answer = health::get(scene.addresses(stops).health, "/readyz", STOP_DEADLINE);
        let answer = answer.map_err(|error| error.to_string())?;
        need(answer.json()["reason"] == "DRAINING", || answer.body)
    })
    .await;

    let operator = scene.operator();
    let to = |node_id: u64| v1::TransferLeadershipRequest { request_id: fresh_id(), node_id };
    let refused = operator.transfer_leadership(to(stops as u64 + 1)).await.unwrap_err();
    assert!(refused.is(reason::TRANSFER_REFUSED), "{refused}");
    assert_eq!(scene.primary(), leader, "a refused transfer changes nothing");
    assert_eq!(operator.transfer_leadership(to(0)).await.unwrap().leader_id, other as u64 + 1);
    same_log_everywhere(&scene).await;
    scene.node(other).kill().unwrap();
    assert_eq!(scene.primary(), leader, "elected by its own vote and that of the node that stops");

    drop(busy);
    let process = scene.node(stops).process().unwrap();
    let status = process.wait(STOP_DEADLINE * 2).unwrap();
    assert_eq!(status.code(), Some(0), "{status}\n{}", process.log_tail());
    for index in [stops, other] {
        scene.node(index).restart().unwrap();
    }
    scene.primary();
    scene.finish();
}

/// SIGTERM, exit code 0 within the deadline, and somebody else leads.
fn stop_in_order(scene: &mut Scene, index: usize) {
    let led = scene.primary() == index;
    let process = scene.node(index).process().unwrap();
    let asked = Instant::now();
    process.signal(Signal::Term).unwrap();
    let status = process.wait(STOP_DEADLINE * 2).unwrap();
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(0), "node {}: {status}\n{}", index + 1, process.log_tail());
    assert!(took < STOP_DEADLINE, "node {} took {took:?}", index + 1);
    let next = scene.primary();
    assert_ne!(next, index);
    let role = if led { "the leader" } else { "a replica" };
    eprintln!(
        "node {}, {role}, stopped after {took:?}; another is primary {:?} after the signal",
        index + 1,
        asked.elapsed()
    );
}

fn start_callers(scene: &mut Scene, client: &Client, load: &Arc<Load>) -> JoinSet<Result<(), ClientError>> {
    let mut callers = JoinSet::new();
    for _ in 0..RESERVERS {
        callers.spawn(reserve_and_release(client.clone(), Arc::clone(load)));
    }
    for payer in 0..PAYERS {
        let orders = scene.order_many(&format!("sigterm-{payer}"), PAYMENTS_EACH);
        callers.spawn(pay(client.clone(), Arc::clone(load), orders));
    }
    callers
}

/// An open stream is no reason to stop late, and goes on at another node.
async fn follow(client: Client, load: Arc<Load>) {
    let mut watch = client.watch_payments(v1::WatchPaymentsRequest::default());
    loop {
        let message = watch.next().await.expect("the watch goes on elsewhere");
        load.told.fetch_add(usize::from(message.payment.is_some()), Ordering::SeqCst);
    }
}

async fn reserve_and_release(client: Client, load: Arc<Load>) -> Result<(), ClientError> {
    while !load.stopped() {
        let reservation = client.reserve_utxos(reserve(10_000)).await?.reservation.unwrap();
        client.release_reservation(release(&reservation)).await?;
        load.count();
    }
    Ok(())
}

/// Pays all orders, one after so many answers to anybody: some are paid between any two stops.
async fn pay(client: Client, load: Arc<Load>, orders: Vec<v1::CreatePaymentRequest>) -> Result<(), ClientError> {
    for (paid, order) in orders.into_iter().enumerate() {
        while !load.stopped() && load.answers.load(Ordering::SeqCst) < paid * ANSWERS_PER_PAYMENT {
            tokio::time::sleep(POLL).await;
        }
        let payment_id = order.payment_id.clone();
        let answer = client.create_payment(order).await?.payment.unwrap();
        assert_eq!(answer.payment_id, payment_id);
        load.count();
    }
    Ok(())
}
