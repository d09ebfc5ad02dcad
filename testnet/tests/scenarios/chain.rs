//! Bitcoinds that tell something else than the others, or nothing.

use std::time::Duration;

use bitcoin::Transaction;
use onespend_proto::v1::{self, PaymentState};
use onespend_testnet::bitcoind::wait_for_same_tip;

use crate::blocks::generate;
use crate::draft::{release, signed};
use crate::replaced::confirms;
use crate::scene::{NODES, Scene, Stage, eventually, need, reason};

const TTL: Duration = Duration::from_mins(10);
/// A bitcoind that is gone is noticed after the sum of these.
const KEYS: &[(&str, &str)] = &[("ONESPEND_BITCOIND__POLL_MS", "200"), ("ONESPEND_BITCOIND__TIMEOUT_MS", "1000")];
/// For calls that are refused as long as bitcoind is as it is.
const REFUSAL: Duration = Duration::from_secs(3);

/// The same, for a leader that is looked at and must not give up the lead by itself meanwhile.
const STAYS: &[(&str, &str)] = &[KEYS[0], KEYS[1], ("ONESPEND_HEALTH__HAND_OVER_AFTER_MS", "600000")];

/// A payment of two attempts, of which a leader is to see the first in a block, and the others the second.
struct Fork {
    leader: usize,
    /// Who mines on the branch of the others, and who is there besides.
    next: usize,
    last: usize,
    payment: v1::Payment,
    first: Transaction,
    second: Transaction,
}

impl Fork {
    /// Pays, pays more, and takes the leader's bitcoind off the network.
    async fn begin(scene: &mut Scene) -> Self {
        let leader = scene.primary();
        let [next, last] = Scene::others(leader)[..] else { panic!("three nodes") };
        let first = scene.pay("forked", 1.0).await;
        let payment = scene.bump("forked", 5.0).await.unwrap().payment.unwrap();
        scene.in_every_mempool(&payment.txid, Some(&first.txid)).await;
        let [first, second] = [signed(&payment.attempts[0]), signed(&payment.attempts[1])];

        let bitcoind = &scene.cluster.bitcoinds()[leader];
        bitcoind.set_network(false).unwrap();
        eventually("it has no peers", async || {
            let peers: u32 = bitcoind.call("getconnectioncount", &[]).unwrap();
            need(peers == 0, || format!("{peers}"))
        })
        .await;
        Self { leader, next, last, payment, first, second }
    }

    /// The others have the second attempt in a block, and four more on it.
    async fn others_go_on(&self, scene: &Scene) {
        let bitcoinds = scene.cluster.bitcoinds();
        generate(&bitcoinds[self.next], &[&self.second]);
        for _ in 0..4 {
            generate(&bitcoinds[self.next], &[]);
        }
        let theirs = bitcoinds[self.next].tip().unwrap();
        eventually("the others agree", async || need(bitcoinds[self.last].tip().unwrap() == theirs, String::new)).await;
    }
}

/// safety 8, 17: bitcoind of the leader on another fork, which has A where everybody else has A2. It is noticed, the
/// leader takes no spends, and what another leader follows instead settles; no coin is free in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_bitcoind_is_on_another_fork_takes_no_spends_and_frees_no_coin() {
    let mut scene = Scene::start(Stage { name: "fork", coins: 4, keys: STAYS, ..Stage::default() }).await;
    let fork = Fork::begin(&mut scene).await;
    let (leader, next) = (fork.leader, fork.next);
    generate(&scene.cluster.bitcoinds()[leader], &[&fork.first]);
    confirms(&scene, &fork.payment, 0).await;
    fork.others_go_on(&scene).await;

    eventually("it is no primary", async || need(!scene.says(leader, "/primary"), String::new)).await;
    let order = scene.order("refused", 2.0);
    let caller = scene.client_of(&[leader]).with_deadline(REFUSAL);
    assert_eq!(reason(caller.create_payment(order).await), "CHAIN_NOT_SYNCED");
    scene.hand_over(next, "/primary").await;
    confirms(&scene, &fork.payment, 1).await;

    scene.cluster.bitcoinds()[leader].set_network(true).unwrap();
    wait_for_same_tip(scene.cluster.bitcoinds()).unwrap();
    eventually("it is fit to lead again", async || need(scene.says(leader, "/bitcoind"), String::new)).await;
    scene.settle_and_judge(&["forked"]).await;
    assert_eq!(scene.payment("forked").await.txid, fork.payment.txid);
    scene.finish().await;
}

/// safety 8, 17: the same several blocks deep, where each side calls the other one a fork. The log is the leader's own view,
/// so only the others tell that it is alone: it follows its branch no further, and one of them leads on theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_alone_on_a_deep_fork_hands_over_to_the_branch_of_the_others() {
    let mut scene = Scene::start(Stage { name: "deep-fork", coins: 4, keys: KEYS, ..Stage::default() }).await;
    let fork = Fork::begin(&mut scene).await;
    let (leader, next) = (fork.leader, fork.next);
    // As many as the log takes without a word of the others: two more would only be behind theirs.
    generate(&scene.cluster.bitcoinds()[leader], &[&fork.first]);
    generate(&scene.cluster.bitcoinds()[leader], &[]);
    generate(&scene.cluster.bitcoinds()[leader], &[]);
    confirms(&scene, &fork.payment, 0).await;
    fork.others_go_on(&scene).await;

    eventually("one of the others leads", async || {
        let primaries: Vec<usize> = (0..NODES).filter(|index| scene.says(*index, "/primary")).collect();
        need(matches!(primaries[..], [one] if one != leader), || format!("{primaries:?}"))
    })
    .await;
    confirms(&scene, &fork.payment, 1).await;
    let paid = scene.pay("on-theirs", 2.0).await;
    generate(&scene.cluster.bitcoinds()[next], &[&signed(&paid.attempts[0])]);

    scene.cluster.bitcoinds()[leader].set_network(true).unwrap();
    wait_for_same_tip(scene.cluster.bitcoinds()).unwrap();
    eventually("it is fit to lead again", async || need(scene.says(leader, "/bitcoind"), String::new)).await;
    scene.settle_and_judge(&["forked", "on-theirs"]).await;
    assert_eq!(scene.payment("forked").await.txid, fork.payment.txid);
    scene.finish().await;
}

/// safety 9, 13: every node's bitcoind down. What was granted is signed, no new spend is, a new leader knows as much,
/// and when the bitcoinds come back, with empty mempools, everything that was promised is paid, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_bitcoind_nothing_new_is_granted_and_what_was_granted_is_paid_later() {
    let mut scene = Scene::start(Stage { name: "down", coins: 6, faulty: true, keys: KEYS, ..Stage::default() }).await;
    let before = scene.pay("before", 2.0).await;
    scene.in_every_mempool(&before.txid, None).await;
    let held = scene.reserve(1, TTL).await;
    for index in 0..NODES {
        scene.fault(index, |now| now.sign_held = true);
    }
    let (client, order) = (scene.client.clone(), scene.order("meanwhile", 2.0));
    let answer = tokio::spawn(async move { client.create_payment(order).await });
    let intent = scene.intent("meanwhile").await;
    scene.stop_bitcoinds();
    for index in 0..NODES {
        scene.fault(index, |now| now.sign_held = false);
    }
    let signed = scene.reaches("meanwhile", PaymentState::Signed).await;
    assert_eq!((&signed.txid, signed.attempts.len()), (&intent.txid, 1));
    answer.await.unwrap().expect("a signature needs no bitcoind");

    eventually("all nodes notice", async || {
        let fit: Vec<usize> = (0..NODES).filter(|index| scene.says(*index, "/bitcoind")).collect();
        need(fit.is_empty(), || format!("{fit:?}"))
    })
    .await;
    nothing_new(&mut scene, "refused").await;
    release(&scene.client, &held).await;
    let leader = (0..NODES).find(|index| scene.says(*index, "/leader")).expect("somebody leads");
    scene.node(leader).kill().unwrap();
    let others = Scene::others(leader);
    scene.client = scene.client_of(&others);
    eventually("another one leads", async || {
        need(others.iter().any(|index| scene.says(*index, "/leader")), String::new)
    })
    .await;
    nothing_new(&mut scene, "refused-too").await;
    for (payment_id, txid) in [("before", &before.txid), ("meanwhile", &intent.txid)] {
        assert_eq!((&scene.payment(payment_id).await.txid, scene.payment(payment_id).await.attempts.len()), (txid, 1));
    }

    scene.restart_bitcoinds(&[]);
    scene.node(leader).restart().unwrap();
    for txid in [&before.txid, &intent.txid] {
        scene.in_every_mempool(txid, None).await;
    }
    scene.settle_and_judge(&["before", "meanwhile"]).await;
    scene.primary();
    let afterwards = scene.pay("afterwards", 2.0).await;
    scene.in_every_mempool(&afterwards.txid, None).await;
    scene.settle_and_judge(&["before", "meanwhile", "afterwards"]).await;
    scene.finish().await;
}

/// Nobody is primary, and a new payment is refused: it is not there afterwards.
async fn nothing_new(scene: &mut Scene, payment_id: &str) {
    assert!((0..NODES).all(|index| !scene.says(index, "/primary")), "somebody takes spends");
    let order = scene.order(payment_id, 2.0);
    let refused = scene.client.with_deadline(REFUSAL).create_payment(order).await;
    assert_eq!(reason(refused), "CHAIN_NOT_SYNCED");
    let request = v1::GetPaymentRequest {
        wallet_id: onespend_testnet::hot::WALLET.to_owned(),
        payment_id: payment_id.to_owned(),
    };
    assert_eq!(reason(scene.client.get_payment(request).await), "PAYMENT_UNKNOWN");
}
