//! Bitcoinds that tell something else than the others, or nothing.

use std::time::Duration;

use onespend_testnet::bitcoind::wait_for_same_tip;

use crate::blocks::generate;
use crate::draft::signed;
use crate::replaced::confirms;
use crate::scene::{Scene, Stage, eventually, need, reason};

/// A bitcoind that is gone is noticed after the sum of these.
const KEYS: &[(&str, &str)] = &[("ONESPEND_BITCOIND__POLL_MS", "200"), ("ONESPEND_BITCOIND__TIMEOUT_MS", "1000")];
/// For calls that are refused as long as bitcoind is as it is.
const REFUSAL: Duration = Duration::from_secs(3);

/// safety 8, 17: bitcoind of the leader on another fork, which has A where everybody else has A2. It is noticed, the
/// leader takes no spends, and what another leader follows instead settles; no coin is free in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_bitcoind_is_on_another_fork_takes_no_spends_and_frees_no_coin() {
    let mut scene = Scene::start(Stage { name: "fork", coins: 4, keys: KEYS }).await;
    let leader = scene.primary();
    let [next, last] = Scene::others(leader)[..] else { panic!("three nodes") };
    let first = scene.pay("forked", 1.0).await;
    let payment = scene.bump("forked", 5.0).await.unwrap().payment.unwrap();
    scene.in_every_mempool(&payment.txid, Some(&first.txid)).await;
    let [first, second] = [signed(&payment.attempts[0]), signed(&payment.attempts[1])];

    let bitcoinds = scene.cluster.bitcoinds();
    bitcoinds[leader].set_network(false).unwrap();
    eventually("it has no peers", async || {
        let peers: u32 = bitcoinds[leader].call("getconnectioncount", &[]).unwrap();
        need(peers == 0, || format!("{peers}"))
    })
    .await;
    generate(&bitcoinds[leader], &[&first]);
    confirms(&scene, &payment, 0).await;
    generate(&bitcoinds[next], &[&second]);
    for _ in 0..4 {
        generate(&bitcoinds[next], &[]);
    }
    let theirs = bitcoinds[next].tip().unwrap();
    eventually("the others agree", async || need(bitcoinds[last].tip().unwrap() == theirs, String::new)).await;

    eventually("it is no primary", async || need(!scene.says(leader, "/primary"), String::new)).await;
    let order = scene.order("refused", 2.0);
    let caller = scene.client_of(&[leader]).with_deadline(REFUSAL);
    assert_eq!(reason(caller.create_payment(order).await), "CHAIN_NOT_SYNCED");
    scene.hand_over(next, "/primary").await;
    confirms(&scene, &payment, 1).await;

    scene.cluster.bitcoinds()[leader].set_network(true).unwrap();
    wait_for_same_tip(scene.cluster.bitcoinds()).unwrap();
    eventually("it is fit to lead again", async || need(scene.says(leader, "/bitcoind"), String::new)).await;
    scene.settle_and_judge(&["forked"]).await;
    assert_eq!(scene.payment("forked").await.txid, payment.txid);
    scene.finish().await;
}
