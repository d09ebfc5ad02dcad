//! Stopping nodes in order, as an update does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1;
use onespend_testnet::oracle::endpoints::{ELECTION_TIMEOUT, PrimaryWatch, longest_overlap};
use onespend_testnet::process::Signal;
use tokio::task::JoinSet;

use crate::scene::{NODES, POLL, Scene, eventually, need, release, reserve};

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
