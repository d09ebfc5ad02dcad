//! A disk that has no room left.

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
use crate::scene::{POLL, Scene, Stage, eventually, need};

const COINS: usize = 24;
/// For calls to a node that can answer no more.
const SHORT: Duration = Duration::from_secs(3);
const WHY: &str = "No space left on device";

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
