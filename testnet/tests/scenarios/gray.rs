//! Leaders that are worse than others without being cut off: a slow disk, defects, and one that hangs.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use onespend_proto::v1;
use onespend_proto::v1::chain_service_client::ChainServiceClient;
use onespend_testnet::process::Signal;
use onespend_testnet::{grpc, health};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::draft::{names, release, reserve};
use crate::scene::{PATIENCE, Scene, Stage, eventually, need};

const TTL: Duration = Duration::from_mins(10);
const ASK: Duration = Duration::from_secs(2);
/// Three times the bound of the check, so that every look sees it.
const SLOW_MS: u64 = 1_500;
/// Of a hundred answers; more than half is more than the check allows.
const DEFECTS_PERCENT: u64 = 80;
/// Who ask all the time, and how long each waits before it asks again: many more requests than the check needs to judge.
const ASKERS: usize = 4;
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Longer than any test.
const HANGS_MS: u64 = 600_000;
/// Longer than a leader may hang.
const STOPPED: Duration = Duration::from_secs(8);
/// Longer than the watchdog would take to find one that hangs.
const WATCHED: Duration = Duration::from_secs(10);
/// How the watchdog ends a process; whatever else ends one is a defect here.
const SIGABRT: i32 = 6;

/// Reserves and releases a coin again and again, so that every node has something to store, until it is aborted.
async fn keep_busy(scene: &Scene) -> JoinHandle<()> {
    let (client, coin) = (scene.client.clone(), names(&scene.free_coins(1).await));
    tokio::spawn(async move {
        loop {
            if let Ok(held) = reserve(&client, &coin, TTL).await {
                release(&client, &held).await;
            }
        }
    })
}

/// What a node's health port says; nothing if it says nothing.
pub fn json(scene: &Scene, index: usize, path: &str) -> serde_json::Value {
    health::get(scene.cluster.nodes()[index].addresses().health, path, ASK)
        .map(|answer| answer.json())
        .unwrap_or_default()
}

/// Times that a node gave up the lead for one of its checks.
fn hand_overs(scene: &Scene, index: usize) -> Option<String> {
    let text = health::get(scene.cluster.nodes()[index].addresses().health, "/metrics", ASK).ok()?.body;
    let line = text.lines().find(|line| line.starts_with("onespend_raft_hand_overs_total{reason=\"check\"}"))?;
    Some(line.rsplit(' ').next()?.to_owned())
}

/// The gray leader: its disk is slow, and it alone. It hands over by itself; nobody's call fails for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_slow_hands_over_to_one_whose_disk_is_not() {
    let mut scene = Scene::start(Stage { name: "gray", coins: 4, faulty: true, ..Stage::default() }).await;
    let gray = scene.primary();
    let busy = keep_busy(&scene).await;
    scene.fault(gray, |now| now.fsync_delay_ms = SLOW_MS);
    scene.primary_among(&Scene::others(gray)).await;
    eventually("it counts that", async || need(hand_overs(&scene, gray).as_deref() == Some("1"), String::new)).await;
    // It stores the log as a replica too, and is no better at it.
    eventually("its status says why", async || {
        let status = json(&scene, gray, "/status");
        let failing = status["failed_checks"].to_string() + &status["checks"].to_string();
        let fails = status["fit_for_primary"] == false && failing.contains("fsync-latency");
        need(fails, || status.to_string())
    })
    .await;
    // While its disk catches up it may not hear the leader in time.
    eventually("it may be sent reads", async || need(scene.says(gray, "/readyz"), String::new)).await;

    scene.fault(gray, |now| now.fsync_delay_ms = 0);
    eventually("it is fit again", async || {
        let status = json(&scene, gray, "/status");
        need(status["fit_for_primary"] == true, || status["checks"].to_string())
    })
    .await;
    busy.abort();
    scene.hand_over(gray, "/primary").await;
    scene.finish().await;
}

/// Asks a node for the tip again and again, whatever it answers, until the tasks are aborted.
fn keep_asking(scene: &Scene, index: usize) -> Vec<JoinHandle<()>> {
    let node = grpc::channel(scene.cluster.nodes()[index].addresses().data, scene.cluster.client()).unwrap();
    let ask = |mut chain: ChainServiceClient<Channel>| async move {
        loop {
            let _any_answer = chain.get_tip(v1::GetTipRequest::default()).await;
            tokio::time::sleep(ASK_EVERY).await; // a pace
        }
    };
    (0..ASKERS).map(|_| tokio::spawn(ask(ChainServiceClient::new(node.clone())))).collect()
}

/// The gray leader: it answers in time, and most of its answers are defects. It hands over by itself. A payment that was
/// ordered meanwhile is decided although its caller hears of defects, and is paid once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_answers_are_mostly_defects_hands_over_to_one_whose_are_not() {
    let mut scene = Scene::start(Stage { name: "defects", coins: 4, faulty: true, ..Stage::default() }).await;
    let gray = scene.primary();
    scene.fault(gray, |now| now.internal_percent = DEFECTS_PERCENT);
    let asking = keep_asking(&scene, gray);
    let (client, order) = (scene.client.clone(), scene.order("meanwhile", 2.0));
    let paying = tokio::spawn(async move { client.create_payment(order).await });
    eventually("its error rate is why it is not fit", async || {
        let failed = json(&scene, gray, "/primary")["failed_checks"].to_string();
        need(failed.contains("error-rate"), || failed)
    })
    .await;
    scene.primary_among(&Scene::others(gray)).await;
    eventually("it counts that", async || need(hand_overs(&scene, gray).as_deref() == Some("1"), String::new)).await;

    let meanwhile = paying.await.unwrap().unwrap().payment.unwrap();
    assert_eq!(scene.payment("meanwhile").await.attempts.len(), 1);
    let after = scene.pay("after", 2.0).await;
    assert_ne!(meanwhile.txid, after.txid);
    // It answers for the new leader now, whose answers are none.
    eventually("it is fit again", async || {
        let status = json(&scene, gray, "/status");
        need(status["fit_for_primary"] == true, || status["checks"].to_string())
    })
    .await;
    asking.iter().for_each(JoinHandle::abort);
    scene.fault(gray, |now| now.internal_percent = 0);
    scene.settle_and_judge(&["meanwhile", "after"]).await;
    scene.finish().await;
}

/// A leader that is stopped and goes on lives; one whose Raft core waits for a dead disk ends itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_ends_itself_and_one_that_was_stopped_does_not() {
    let mut scene = Scene::start(Stage { name: "hung", coins: 4, faulty: true, ..Stage::default() }).await;
    let stopped = scene.primary();
    scene.node(stopped).signal(Signal::Stop).unwrap();
    scene.primary_among(&Scene::others(stopped)).await;
    tokio::time::sleep(STOPPED).await; // what matters is a time
    scene.node(stopped).signal(Signal::Continue).unwrap();
    let since = Instant::now();
    while since.elapsed() < WATCHED {
        assert!(scene.node(stopped).is_running(), "it ended {:?} after it went on", since.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await; // what is looked at is a time
    }
    eventually("it follows", async || need(scene.says(stopped, "/replica"), String::new)).await;

    // The old leader stores the vote that it gives to its successor; its disk does not take it.
    let hung = scene.primary();
    let next = Scene::others(hung)[0];
    scene.fault(hung, |now| now.fsync_delay_ms = HANGS_MS);
    let node_id = u64::try_from(next).unwrap() + 1;
    let request = v1::TransferLeadershipRequest { node_id, ..Default::default() };
    // Whether it still answers is its affair.
    let asked = scene.operator.with_deadline(ASK);
    let _ = asked.transfer_leadership(request).await;
    scene.primary_among(&Scene::others(hung)).await;
    let process = scene.node(hung).process().unwrap();
    let ended = process.wait(PATIENCE).unwrap();
    assert_eq!(ended.signal(), Some(SIGABRT), "{ended}\n{}", process.log_tail());
    scene.fault(hung, |now| now.fsync_delay_ms = 0);
    scene.node(hung).restart().unwrap();
    eventually("it follows", async || need(scene.says(hung, "/replica"), String::new)).await;
    scene.finish().await;
}
