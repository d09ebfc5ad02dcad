//! Signatures that come late: from a leader that was cut off, or frozen, between the intent and the signer's call.

use std::time::Duration;

use onespend_proto::v1;
use onespend_proto::v1::{AttemptState, PaymentState, ReservationState};
use onespend_testnet::hot::WALLET;
use onespend_testnet::process::Signal;
use onespend_testnet::relay::Link;

use crate::draft::{FEE_SAT, ask_to_sign, names, release, reserve};
use crate::scene::{Scene, Stage, eventually, need, reason};

/// Long enough to ask for a signature in, on a busy machine.
const SHORT: Duration = Duration::from_secs(4);
const LONG: Duration = Duration::from_mins(10);

/// safety 3, 5, 13, 14: late signature after lease expiry and takeover. The reservation's time is over, another node
/// leads, others ask for the coins, and then the signer of the leader that was cut off is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_that_comes_after_expiry_and_takeover_frees_and_spends_nothing_else() {
    let mut scene = Scene::start(Stage { name: "late", coins: 8, faulty: true, wired: true, ..Stage::default() }).await;
    let leader = scene.primary();
    let others = Scene::others(leader);
    scene.fault(leader, |now| now.sign_held = true);
    let used = scene.reserve(2, SHORT).await;
    let request = scene.sign_request("late", &used, FEE_SAT).await;
    let answer = ask_to_sign(&scene.client_of(&[leader]), &request);
    let intent = scene.intent("late").await;
    assert_eq!(intent.state(), PaymentState::Signing);
    // Another one of the same duration that nobody uses: it shows when that time is over.
    let idle = scene.reserve(1, SHORT).await;

    for other in &others {
        scene.cluster.wires().unwrap().set_between(leader, *other, Link::Held);
    }
    let successor = scene.primary_among(&others).await;
    scene.client = scene.client_of(&others);
    expires(&scene, &idle).await;
    // It is shown as expired from that moment on; the entry that frees the coin follows.
    let free_again = eventually("time frees what nobody signed for", async || {
        reserve(&scene.client, &names(&idle.utxos), LONG).await.map_err(|error| error.to_string())
    })
    .await;
    release(&scene.client, &free_again).await;
    for coin in names(&used.utxos) {
        let grab = reserve(&scene.client, std::slice::from_ref(&coin), LONG).await;
        assert_eq!(reason(grab), "OUTPOINT_RESERVED", "{coin:?} may have been signed away");
    }
    let second = scene.sign_request("second", &used, FEE_SAT).await;
    assert_eq!(reason(scene.client.sign_psbt(second).await), "RESERVATION_USED");
    let taken_over = scene.reaches("late", PaymentState::Broadcast).await;
    assert_eq!((&taken_over.txid, taken_over.attempts.len()), (&intent.txid, 1), "the same transaction");

    assert_eq!(scene.signed_by(leader, "late"), [], "the signature is late");
    scene.fault(leader, |now| now.sign_held = false);
    eventually("the late signature", async || need(scene.signed_by(leader, "late").len() == 1, String::new)).await;
    assert_eq!(scene.signed_by(leader, "late"), scene.signed_by(successor, "late"), "the same bytes, the same fence");
    scene.cluster.wires().unwrap().heal();
    if let Ok(answered) = answer.await.unwrap() {
        assert_eq!((answered.payment.unwrap().txid, answered.attempt_number), (intent.txid, 1));
    }
    scene.settle_and_judge(&["late"]).await;
    assert_eq!(scene.payment("late").await.attempts.len(), 1);
    scene.finish().await;
}

async fn expires(scene: &Scene, held: &v1::Reservation) {
    let request = v1::GetReservationRequest {
        reservation_id: held.reservation_id.clone(),
        ..v1::GetReservationRequest::default()
    };
    eventually("the reservation expires", async || {
        let found = scene.client.get_reservation(request.clone()).await.map_err(|error| error.to_string())?;
        let state = found.reservation.unwrap().state();
        need(state == ReservationState::Expired, || format!("{state:?}"))
    })
    .await;
}

/// safety 3, 8, 11, 13, 14: paused leader wakes between commit and sign. Meanwhile the payment was replaced, the
/// replacement is settled, and its change is spent: what the old leader signs on waking can never confirm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_paused_between_commit_and_signature_does_no_harm_when_it_wakes() {
    let mut scene = Scene::start(Stage { name: "paused", coins: 4, faulty: true, ..Stage::default() }).await;
    let paused = scene.primary();
    let others = Scene::others(paused);
    scene.fault(paused, |now| now.sign_held = true);
    let order = scene.order("paused", 2.0);
    let (caller, asked) = (scene.client_of(&[paused]), order.clone());
    let answer = tokio::spawn(async move { caller.create_payment(asked).await });
    let intent = scene.intent("paused").await;
    scene.node(paused).signal(Signal::Stop).unwrap();

    scene.primary_among(&others).await;
    scene.client = scene.client_of(&others);
    let first = scene.reaches("paused", PaymentState::Broadcast).await;
    assert_eq!((&first.txid, first.attempts.len()), (&intent.txid, 1), "the new leader signs what was permitted");
    assert_eq!(
        scene.client.create_payment(order).await.unwrap().payment.unwrap().txid,
        intent.txid,
        "as a retry shows"
    );
    let second = scene.bump("paused", 8.0).await.unwrap().payment.unwrap();
    scene.in_every_mempool(&second.txid, Some(&first.txid)).await;
    scene.mine(6);
    let settled = scene.reaches("paused", PaymentState::Settled).await;
    assert_eq!(settled.attempts[0].state(), AttemptState::Dead);
    let next = scene.pay("next", 2.0).await;
    scene.in_every_mempool(&next.txid, None).await;

    assert_eq!(scene.signed_by(paused, "paused"), [], "it has not signed yet");
    scene.fault(paused, |now| now.sign_held = false);
    scene.node(paused).signal(Signal::Continue).unwrap();
    eventually("it signs on waking", async || need(scene.signed_by(paused, "paused").len() == 1, String::new)).await;
    let woken = &scene.signed_by(paused, "paused")[0];
    assert_eq!((&woken.txid, woken.attempt, woken.fence), (&intent.txid, 1, intent.attempts[0].fence));
    if let Ok(answered) = answer.await.unwrap() {
        let shown = answered.payment.unwrap();
        assert_eq!((shown.payment_id.as_str(), &shown.attempts[0].txid), ("paused", &intent.txid));
    }
    let returned = scene.client_of(&[paused]);
    let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: "paused".to_owned() };
    let seen = returned.get_payment(request).await.unwrap().payment.unwrap();
    assert_eq!((seen.state(), &seen.txid, seen.attempts.len()), (PaymentState::Settled, &second.txid, 2));
    scene.settle_and_judge(&["paused", "next"]).await;
    scene.finish().await;
}
