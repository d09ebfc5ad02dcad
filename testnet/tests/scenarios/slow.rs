//! A signer that takes a minute, while time goes on, the log is compacted, and others want the coins.

use std::time::{Duration, Instant};

use onespend_proto::v1::{self, AttemptState, PaymentState, ReservationState, UtxoState};
use onespend_testnet::hot::WALLET;

use crate::disk::oldest_entry;
use crate::draft::{FEE_SAT, ask_to_sign, names, release, reserve};
use crate::scene::{NODES, Scene, Stage, eventually, need, reason, within};

const SIGNER: Duration = Duration::from_mins(1);
const TTL: Duration = Duration::from_secs(2);
/// Between two requests: the other scenarios need the machine too.
const PACE: Duration = Duration::from_millis(40);
const COINS: usize = 12;
/// So long before the signer is done the coins are left alone.
const MARGIN: Duration = Duration::from_secs(4);

/// safety 5, 13, 25: slow signer (60 s) while expiry and compaction run. The reservation that the payment used would
/// have expired long ago, and the entry of its intent is in nobody's log any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_signer_is_waited_for_while_reservations_expire_and_the_log_is_compacted() {
    let keys = &[("ONESPEND_RAFT__SNAPSHOT_EVERY_ENTRIES", "100"), ("ONESPEND_RAFT__KEEP_LOG_ENTRIES", "0")];
    let mut scene = Scene::start(Stage { name: "slow", coins: COINS, faulty: true, keys, ..Stage::default() }).await;
    for index in 0..NODES {
        scene.fault(index, |now| now.sign_pause_ms = u64::try_from(SIGNER.as_millis()).unwrap());
    }
    let used = scene.reserve(2, TTL).await;
    let request = scene.sign_request("slow", &used, FEE_SAT).await;
    let began = Instant::now();
    let answer = ask_to_sign(&scene.client, &request);
    let intent = scene.intent("slow").await;
    assert_eq!((intent.state(), intent.attempts.len()), (PaymentState::Signing, 1));
    let fence = intent.attempts[0].fence;

    let mut expired = 0;
    while began.elapsed() + MARGIN < SIGNER {
        assert_eq!(signing(&scene).await, intent, "nothing is done twice, and nothing is given up");
        expired += others_reserve(&scene, &used).await;
    }
    assert!(expired > 5, "{expired} reservations expired meanwhile");
    for node in scene.cluster.nodes() {
        let oldest = oldest_entry(&node.data_folder());
        assert!(oldest > fence, "{} has the log from {oldest} on; the intent is entry {fence}", node.name());
    }
    // Asked again, the same request is the same attempt.
    let again = scene.client.sign_psbt(request).await;
    let attempts = |answer: &v1::SignPsbtResponse| (answer.attempt_number, answer.payment.clone().unwrap().txid);
    if let Ok(shown) = &again {
        assert_eq!(attempts(shown), (1, intent.txid.clone()));
    }

    let signed = within(SIGNER * 2, "the signer is done", async || {
        let found = scene.payment("slow").await;
        need(found.attempts[0].state() != AttemptState::Signing, || format!("{found:?}"))?;
        Ok(found)
    })
    .await;
    assert!(began.elapsed() >= SIGNER, "after {:?}", began.elapsed());
    assert_eq!((&signed.txid, signed.attempts.len()), (&intent.txid, 1));
    if let Ok(shown) = &answer.await.unwrap() {
        assert_eq!(attempts(shown), (1, intent.txid));
    }
    scene.in_every_mempool(&signed.txid, None).await;
    scene.settle_and_judge(&["slow"]).await;
    scene.finish().await;
}

/// The payment, which still waits for its signature.
async fn signing(scene: &Scene) -> v1::Payment {
    for coin in scene.coins().await {
        if coin.payment_id == "slow" {
            assert_eq!(coin.state(), UtxoState::Exposed, "{coin:?}");
        }
    }
    scene.payment("slow").await
}

/// Takes the coins of the payment, in vain, and others for a while. Says how many reservations ended by time.
async fn others_reserve(scene: &Scene, used: &v1::Reservation) -> usize {
    for coin in names(&used.utxos) {
        assert_eq!(reason(reserve(&scene.client, &[coin], TTL).await), "OUTPOINT_RESERVED");
    }
    let left = scene.reserve(1, TTL).await;
    let until = Instant::now() + TTL;
    while Instant::now() < until {
        release(&scene.client, &scene.reserve(1, TTL).await).await;
        tokio::time::sleep(PACE).await;
    }
    let request = v1::ListReservationsRequest {
        wallet_id: WALLET.to_owned(),
        states: vec![ReservationState::Active.into()],
        ..Default::default()
    };
    eventually("what nobody used expires", async || {
        let active = scene.client.list_reservations(request.clone()).await.unwrap().reservations;
        need(active.is_empty(), || format!("{active:?}"))
    })
    .await;
    eventually("its coin is free", async || {
        let coin = scene.coin(left.utxos[0].outpoint.as_ref().unwrap()).await;
        need(coin.state() == UtxoState::Available, || format!("{coin:?}"))
    })
    .await;
    1
}
