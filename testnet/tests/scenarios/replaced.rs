//! Several attempts of one payment, and the blocks that decide between them.

use std::time::Duration;

use bitcoin::Transaction;
use onespend_proto::v1::{self, AttemptState, PaymentState, UtxoState};

use crate::draft::{FEE_SAT, draft, names, release, reserve, signed};
use crate::scene::{Scene, Stage, eventually, need, reason};

const TTL: Duration = Duration::from_mins(10);
/// Above what a quiet mempool asks for, and below what is asked for after the spike.
const QUIET_SAT_VB: f64 = 1.0;
const SPIKE_SAT_VB: f64 = 40.0;
/// 20 sat/vB, in BTC per 1000 vB.
const SPIKE: &str = "-minrelaytxfee=0.0002";

/// safety 8: A→A2→A3 without the anchor refused. A3 conflicts with A2 and not with A, so A and A3 could both confirm.
pub async fn a_third_attempt_that_leaves_the_anchor_out_is_refused(scene: &mut Scene) {
    let first_coins = scene.reserve(1, TTL).await;
    let request = scene.sign_request("chain", &first_coins, FEE_SAT).await;
    let first = scene.client.sign_psbt(request).await.unwrap().payment.unwrap();
    let more = scene.reserve(1, TTL).await;
    let both = [&first_coins.utxos[..], &more.utxos[..]].concat();
    let psbt = draft(&both, "chain", &scene.change_script().await, FEE_SAT * 3);
    let (reservation_id, fence) = (more.reservation_id.clone(), more.fence);
    let request = v1::SignPsbtRequest { reservation_id, fence, ..scene.replacement("chain", &psbt) };
    let second = scene.client.sign_psbt(request).await.unwrap();
    assert_eq!(second.attempt_number, 2);

    // From the coin that A2 added, alone and with a fresh one; by way of the reservation of that one, and without.
    let alone = draft(&more.utxos, "chain", &scene.change_script().await, FEE_SAT * 9);
    let request = scene.replacement("chain", &alone);
    assert_eq!(reason(scene.client.sign_psbt(request).await), "REPLACEMENT_MISSING_ANCHOR");
    let fresh = scene.reserve(1, TTL).await;
    for coins in [fresh.utxos.clone(), [&more.utxos[..], &fresh.utxos[..]].concat()] {
        let psbt = draft(&coins, "chain", &scene.change_script().await, FEE_SAT * 9);
        let (reservation_id, fence) = (fresh.reservation_id.clone(), fresh.fence);
        let request = v1::SignPsbtRequest { reservation_id, fence, ..scene.replacement("chain", &psbt) };
        assert_eq!(reason(scene.client.sign_psbt(request).await), "REPLACEMENT_MISSING_ANCHOR");
    }
    release(&scene.client, &fresh).await;
    let third = scene.bump("chain", 30.0).await.unwrap().payment.unwrap();
    assert_eq!(third.attempts.len(), 3, "with the anchor it is granted");
    scene.in_every_mempool(&third.txid, Some(&first.txid)).await;
    scene.mine_only(&[&signed(&third.attempts[0])]);
    scene.settle_one("chain", &first.txid).await;
}

/// safety 8: older replacement confirms, the middle one of three. It pays the payment, and the others are dead.
pub async fn an_older_replacement_that_confirms_is_the_payment(scene: &mut Scene) {
    let first = scene.pay("middle", QUIET_SAT_VB).await;
    let second = scene.bump("middle", 4.0).await.unwrap().payment.unwrap();
    let third = scene.bump("middle", 9.0).await.unwrap().payment.unwrap();
    scene.in_every_mempool(&third.txid, Some(&first.txid)).await;
    scene.mine_only(&[&signed(&third.attempts[1])]);
    let settled = scene.settle_one("middle", &second.txid).await;
    let states: Vec<AttemptState> = settled.attempts.iter().map(v1::Attempt::state).collect();
    assert_eq!(states, [AttemptState::Dead, AttemptState::Settled, AttemptState::Dead]);
}

/// safety 8, 17: reorg swaps A for A2. Nothing is free at any moment, and what the last block says is paid.
pub async fn a_reorganisation_that_swaps_an_attempt_for_another_frees_nothing(scene: &mut Scene) {
    scene.pay("swapped", QUIET_SAT_VB).await;
    let payment = scene.bump("swapped", 5.0).await.unwrap().payment.unwrap();
    let [first, second] = [signed(&payment.attempts[0]), signed(&payment.attempts[1])];
    let block = scene.mine_only(&[&first]);
    confirms(scene, &payment, 0).await;
    scene.reorganise(block, &[&[], &[&second]]);
    confirms(scene, &payment, 1).await;
    assert_eq!(reason(scene.bump("swapped", 20.0).await), "PAYMENT_UNRESOLVED", "one is in a block");
    // And back again, two deep: below the finality depth.
    let tip = scene.cluster.bitcoinds()[0].tip().unwrap();
    let back: [&[&Transaction]; 3] = [&[&first], &[], &[]];
    scene.reorganise(tip, &back);
    confirms(scene, &payment, 0).await;
    let settled = scene.settle_one("swapped", &payment.attempts[0].txid).await;
    assert_eq!(settled.attempts[1].state(), AttemptState::Dead);
}

/// Waits until one attempt is in a block; its coins must not be free at any moment on the way.
pub async fn confirms(scene: &Scene, payment: &v1::Payment, attempt: usize) {
    let inputs = &payment.attempts[attempt].inputs;
    eventually("the swap is followed", async || {
        for input in inputs {
            let coin = scene.coin(input).await;
            assert!(matches!(coin.state(), UtxoState::Exposed | UtxoState::SpentPending), "{coin:?}");
        }
        let found = scene.payment(&payment.payment_id).await;
        let there = found.state() == PaymentState::Confirming && found.txid == payment.attempts[attempt].txid;
        need(there && found.attempts.len() == 2, || format!("{found:?}"))
    })
    .await;
}

/// safety 6, 7, 8, 9: fee spike, eviction, re-pay attempt, original mined. No mempool has the payment any more and none
/// would take it, and still it is not paid again, whoever asks and however; then a miner has kept it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_payment_is_not_paid_again_and_the_original_may_still_be_mined() {
    let mut scene = Scene::start(Stage { name: "spike", coins: 6, ..Stage::default() }).await;
    let original = scene.pay("evicted", QUIET_SAT_VB).await;
    scene.in_every_mempool(&original.txid, None).await;
    scene.stop_bitcoinds();
    scene.restart_bitcoinds(&[SPIKE]);
    let refused = scene.reaches("evicted", PaymentState::Signed).await;
    assert_eq!((&refused.txid, refused.attempts.len()), (&original.txid, 1), "offered again, refused, and not dead");
    assert_eq!(scene.mempools().unwrap().concat(), Vec::<String>::new(), "evicted");

    let leader = scene.primary();
    eventually("it takes spends", async || need(scene.says(leader, "/primary"), String::new)).await;
    let again = v1::CreatePaymentRequest { request_id: String::new(), ..scene.order("evicted", SPIKE_SAT_VB) };
    let again = scene.client.create_payment(again).await.unwrap().payment.unwrap();
    assert_eq!((&again.txid, again.attempts.len()), (&original.txid, 1), "ordered again, at another feerate");
    let fresh = scene.reserve(1, TTL).await;
    let request = scene.sign_request("evicted", &fresh, 9_000).await;
    assert_eq!(reason(scene.client.sign_psbt(request).await), "REPLACEMENT_MISSING_ANCHOR", "from another coin");
    release(&scene.client, &fresh).await;
    let grab = reserve(&scene.client, &original.attempts[0].inputs, TTL).await;
    assert_eq!(reason(grab), "OUTPOINT_RESERVED", "its coins for another payment");

    let bumped = scene.bump("evicted", SPIKE_SAT_VB).await.unwrap().payment.unwrap();
    scene.in_every_mempool(&bumped.txid, None).await;
    scene.mine_only(&[&signed(&original.attempts[0])]);
    let settled = scene.settle_one("evicted", &original.txid).await;
    assert_eq!(settled.attempts[1].state(), AttemptState::Dead);
    let free = names(&scene.free_coins(1).await);
    reserve(&scene.client, &free, TTL).await.expect("the wallet is usable");
    scene.judge(&["evicted"]).await;
    scene.finish().await;
}

impl Scene {
    /// Mines until a payment is settled, by this transaction.
    async fn settle_one(&mut self, payment_id: &str, txid: &str) -> v1::Payment {
        self.mine(onespend_testnet::cluster::FINALITY_DEPTH);
        let settled = self.reaches(payment_id, PaymentState::Settled).await;
        assert_eq!(settled.txid, txid);
        settled
    }
}
