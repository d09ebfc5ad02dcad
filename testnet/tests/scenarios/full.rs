//! A disk that has no room left, or hardly any, or that may not be written.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use onespend_proto::v1;
use onespend_testnet::health;
use onespend_testnet::hot::WALLET;

use crate::disk::ends;
use crate::draft::release;
use crate::scene::{NODES, POLL, Scene, Stage, eventually, need, reason};

const COINS: usize = 24;
/// For calls to a node that can answer no more.
const SHORT: Duration = Duration::from_secs(3);
pub const WHY: &str = "No space left on device";
/// Below `storage.low_bytes`, and enough for the reserve to stay.
const LOW_BYTES: u64 = 100 << 20;
/// Below a quarter of `storage.reserve_bytes`.
const NOTHING_BYTES: u64 = 1 << 20;
const TTL: Duration = Duration::from_mins(10);

/// safety 27, 29: full disk, the leader's. It ends, and acknowledges nothing more; so again as long as there is no room.
/// `/livez` never fails for it. The others go on. What was acknowledged is there, what was not is decided by a retry,
/// once, and with room again the node catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_full_ends_and_loses_nothing_that_it_acknowledged() {
    let mut scene = Scene::start(Stage { name: "full", coins: COINS, faulty: true, ..Stage::default() }).await;
    let full = scene.primary();
    let others = Scene::others(full);
    let mut paid = vec![scene.pay("before", 2.0).await];
    let watch = Watch::start(scene.cluster.nodes()[full].addresses().health);
    scene.fault(full, |now| now.disk_full = true);
    let lost = pay_until_it_cannot(&mut scene, full, &mut paid).await;
    ends(&mut scene, full, WHY);
    watch.never_said_no();

    scene.primary_among(&others).await;
    scene.client = scene.client_of(&others);
    let decided = scene.client.create_payment(lost.clone()).await.unwrap().payment.unwrap();
    let again = scene.client.create_payment(lost).await.unwrap().payment.unwrap();
    assert_eq!((&again.txid, again.attempts.len()), (&decided.txid, 1), "decided once");
    paid.extend([decided, scene.pay("without-it", 2.0).await]);
    scene.node(full).restart().unwrap();
    ends(&mut scene, full, WHY);
    paid.push(scene.pay("still-without-it", 2.0).await);

    scene.fault(full, |now| now.disk_full = false);
    scene.node(full).restart().unwrap();
    eventually("it catches up", async || {
        let (its, theirs) = (scene.status(full).await.applied_index, scene.status(others[0]).await.applied_index);
        need(its >= theirs && scene.says(full, "/readyz"), || format!("{its} of {theirs}"))
    })
    .await;
    let returned = scene.client_of(&[full]);
    for payment in &paid {
        let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment.payment_id.clone() };
        let found = returned.get_payment(request).await.unwrap().payment.unwrap();
        assert_eq!((&found.txid, found.attempts.len()), (&payment.txid, 1), "{}", payment.payment_id);
    }
    let ids: Vec<&str> = paid.iter().map(|payment| payment.payment_id.as_str()).collect();
    scene.settle_and_judge(&ids).await;
    scene.finish().await;
}

/// safety 29: a disk that has become read-only, the leader's: it acknowledges nothing more and ends, so again at each start.
/// The others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_has_become_read_only_ends_and_the_others_go_on() {
    const WHY: &str = "Read-only file system";
    let mut scene = Scene::start(Stage { name: "read-only", coins: COINS, faulty: true, ..Stage::default() }).await;
    let spoilt = scene.primary();
    let others = Scene::others(spoilt);
    let mut paid = vec![scene.pay("before", 2.0).await];
    scene.fault(spoilt, |now| now.disk_read_only = true);
    let lost = pay_until_it_cannot(&mut scene, spoilt, &mut paid).await;
    ends(&mut scene, spoilt, WHY);
    scene.primary_among(&others).await;
    scene.client = scene.client_of(&others);
    paid.push(scene.client.create_payment(lost).await.unwrap().payment.unwrap());
    scene.node(spoilt).restart().unwrap();
    ends(&mut scene, spoilt, WHY);

    scene.fault(spoilt, |now| now.disk_read_only = false);
    scene.node(spoilt).restart().unwrap();
    eventually("it catches up", async || need(scene.says(spoilt, "/readyz"), String::new)).await;
    let ids: Vec<&str> = paid.iter().map(|payment| payment.payment_id.as_str()).collect();
    scene.settle_and_judge(&ids).await;
    scene.finish().await;
}

/// Whether a node holds space back.
pub fn reserve_file(scene: &Scene, index: usize) -> bool {
    scene.cluster.nodes()[index].data_folder().join("RESERVE").exists()
}

/// The alarm's text, if it stands.
pub fn alarm(scene: &Scene, index: usize) -> Option<String> {
    let status = health::get(scene.cluster.nodes()[index].addresses().health, "/status", SHORT).ok()?.json();
    let alarms = status["alarms"].as_array()?.clone();
    let low = alarms.into_iter().find(|alarm| alarm["code"] == "DISK_LOW")?;
    Some(low["message"].as_str()?.to_owned())
}

fn hand_overs(scene: &Scene, index: usize) -> Option<String> {
    let text = health::get(scene.cluster.nodes()[index].addresses().health, "/metrics", SHORT).ok()?.body;
    let line = text.lines().find(|line| line.starts_with("onespend_raft_hand_overs_total{reason=\"disk\"}"))?;
    Some(line.rsplit(' ').next()?.to_owned())
}

/// Space is held back: a leader that is about to run out hands over; where the quorum is, new spends end and what makes room
/// or is owed goes on, in the end on the reserve; with room again everything is as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_about_to_run_out_of_room_takes_no_spends_and_still_releases_reads_and_settles() {
    let keys = &[("ONESPEND_RAFT__SNAPSHOT_EVERY_ENTRIES", "100")];
    let mut scene = Scene::start(Stage { name: "low", coins: 8, faulty: true, keys, ..Stage::default() }).await;
    let first = scene.primary();
    let others = Scene::others(first);
    for index in 0..NODES {
        eventually("space is held back", async || need(reserve_file(&scene, index), String::new)).await;
    }
    let held = scene.reserve(2, TTL).await;
    scene.pay("owed", 2.0).await;

    scene.fault(first, |now| now.disk_free_bytes = Some(LOW_BYTES));
    let second = scene.primary_among(&others).await;
    eventually("it counts that", async || need(hand_overs(&scene, first).as_deref() == Some("1"), String::new)).await;
    assert!(alarm(&scene, first).is_some_and(|why| why.contains("storage.low_bytes")), "{:?}", alarm(&scene, first));
    eventually("it serves reads", async || need(scene.says(first, "/replica"), String::new)).await;
    assert!(reserve_file(&scene, first), "low is not full");
    scene.pay("by-the-others", 2.0).await;

    // One voter with room is no quorum.
    let third = *others.iter().find(|index| **index != second).unwrap();
    scene.fault(third, |now| now.disk_free_bytes = Some(LOW_BYTES));
    eventually("the leader takes no spends", async || {
        let why = alarm(&scene, second).unwrap_or_default();
        need(why.contains("1 of 3 voters") && !scene.says(second, "/primary") && scene.says(second, "/leader"), || why)
    })
    .await;
    for index in 0..NODES {
        scene.fault(index, |now| now.disk_free_bytes = Some(NOTHING_BYTES));
    }
    for index in 0..NODES {
        eventually("the reserve is given up", async || need(!reserve_file(&scene, index), String::new)).await;
    }
    let order = scene.order("refused", 2.0);
    assert_eq!(reason(scene.client.with_deadline(SHORT).create_payment(order).await), "STORAGE_LOW");
    assert!(scene.says(second, "/leader"), "nobody is fit, so it stays");
    release(&scene.client, &held).await;
    // A snapshot would not fit, and none is tried: its failure would end the node.
    let before = scene.status(second).await.snapshot_index;
    scene.drive_to_a_hash(&[0, 1, 2]).await;
    scene.drive_to_a_hash(&[0, 1, 2]).await;
    assert_eq!(scene.status(second).await.snapshot_index, before);
    let mut paid = vec!["owed", "by-the-others"];
    scene.settle_and_judge(&paid).await;

    for index in 0..NODES {
        scene.fault(index, |now| now.disk_free_bytes = None);
    }
    for index in 0..NODES {
        eventually("the alarm is over", async || need(alarm(&scene, index).is_none(), String::new)).await;
        assert!(reserve_file(&scene, index));
    }
    scene.primary();
    scene.drive_to_a_hash(&[0, 1, 2]).await;
    eventually("snapshots are made again", async || {
        let now = scene.status(second).await.snapshot_index;
        need(now > before, || format!("{now}"))
    })
    .await;
    // The one that was refused was no order.
    let request = scene.order("refused", 2.0);
    scene.client.create_payment(request).await.unwrap();
    paid.push("refused");
    scene.settle_and_judge(&paid).await;
    scene.finish().await;
}

/// Orders from one node until it gives no good answer. What it acknowledges goes to `paid`; the order that it does not
/// is returned.
async fn pay_until_it_cannot(scene: &mut Scene, index: usize, paid: &mut Vec<v1::Payment>) -> v1::CreatePaymentRequest {
    let caller = scene.client_of(&[index]).with_deadline(SHORT);
    for number in 0..COINS / 2 {
        let order = scene.order(&format!("full-{number}"), 2.0);
        match caller.create_payment(order.clone()).await {
            Ok(answer) => paid.push(answer.payment.unwrap()),
            Err(_) => return order,
        }
    }
    panic!("a node without room on its disk goes on acknowledging: {paid:?}");
}

/// Asks a node's `/livez` all the while.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<BTreeSet<u16>>,
}

impl Watch {
    fn start(node: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut said = BTreeSet::new();
            while !stopped.load(Ordering::SeqCst) {
                said.insert(health::status(node, "/livez", SHORT));
                thread::sleep(POLL);
            }
            said
        });
        Self { stop, thread }
    }

    /// It said yes, and nothing else as long as it answered at all.
    fn never_said_no(self) {
        self.stop.store(true, Ordering::SeqCst);
        let said = self.thread.join().unwrap();
        assert!(said.contains(&200) && said.iter().all(|status| [200, 0].contains(status)), "{said:?}");
    }
}
