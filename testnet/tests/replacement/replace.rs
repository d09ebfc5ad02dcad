//! Fee bumps and cancellation (safety 8, 9, 10).

use bitcoin::psbt::Psbt;
use bitcoin::{Amount, Transaction};
use onespend_proto::v1::{self, AttemptPurpose, AttemptState, PaymentState};
use onespend_testnet::hot::WALLET;

use crate::scene::{Scene, outpoint, reason, recipient, signed};

/// safety 8: every attempt spends the anchor, so the mempool drops one for the other.
pub async fn a_bump_replaces_the_payment_in_every_mempool(scene: &mut Scene) {
    let low = scene.pay(WALLET, "bumped", 1.0).await;
    scene.in_every_mempool(&low.txid, None).await;
    let bumped = scene.bump("bumped", 8.0).await.unwrap();
    assert_eq!(bumped.attempt_number, 2);
    let payment = bumped.payment.unwrap();
    assert_ne!(payment.txid, low.txid);
    scene.in_every_mempool(&payment.txid, Some(&low.txid)).await;

    let anchor = payment.anchor.clone().unwrap();
    for attempt in &payment.attempts {
        assert!(attempt.inputs.contains(&anchor), "attempt {} without the anchor", attempt.number);
        assert_eq!(attempt.purpose(), AttemptPurpose::Pay);
    }
    assert!(payment.attempts[1].feerate_sat_vb >= 8.0, "{payment:?}");
    assert_eq!(
        signed(&payment.attempts[0]).output.len(),
        signed(&payment.attempts[1]).output.len(),
        "its change paid for it"
    );

    let settled = scene.mine_until(WALLET, "bumped", PaymentState::Settled).await;
    assert_eq!(settled.txid, payment.txid);
    let states: Vec<AttemptState> = settled.attempts.iter().map(v1::Attempt::state).collect();
    assert_eq!(states, [AttemptState::Dead, AttemptState::Settled]);
}

/// safety 8: at most one confirms, and whichever it is pays the payment.
pub async fn an_older_attempt_that_is_mined_settles_the_payment(scene: &mut Scene) {
    let low = scene.pay(WALLET, "older", 1.0).await;
    scene.in_every_mempool(&low.txid, None).await;
    let newer = scene.bump("older", 5.0).await.unwrap().payment.unwrap();
    scene.in_every_mempool(&newer.txid, Some(&low.txid)).await;
    scene.mine_only(&signed(&newer.attempts[0]));
    let settled = scene.mine_until(WALLET, "older", PaymentState::Settled).await;
    assert_eq!(settled.txid, low.txid);
    let states: Vec<AttemptState> = settled.attempts.iter().map(v1::Attempt::state).collect();
    assert_eq!(states, [AttemptState::Settled, AttemptState::Dead]);
}

/// safety 10: cancelled only when the cancelling attempt is settled.
pub async fn a_cancelled_payment_gives_its_coins_back(scene: &mut Scene) {
    let paid = scene.pay(WALLET, "cancelled", 1.0).await;
    scene.in_every_mempool(&paid.txid, None).await;
    let request = || v1::CancelPaymentRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: "cancelled".to_owned(),
        ..Default::default()
    };
    let answer = scene.client.cancel_payment(request()).await.unwrap();
    assert_eq!(answer.attempt_number, 2);
    let cancelling = answer.payment.unwrap();
    assert_ne!(cancelling.state(), PaymentState::Cancelled, "not before it is final");
    let again = scene.client.cancel_payment(request()).await.unwrap();
    assert_eq!(again.attempt_number, 2, "cancelling twice is cancelling");
    let paying = sign_request("cancelled", &dearer(&paid.attempts[0], 20_000));
    assert_eq!(reason(scene.client.sign_psbt(paying).await), "NOT_REPLACEABLE", "it gives the coins back");
    let attempt = &cancelling.attempts[1];
    assert_eq!(attempt.purpose(), AttemptPurpose::Cancel);
    scene.in_every_mempool(&attempt.txid, Some(&paid.txid)).await;

    let cancelled = scene.mine_until(WALLET, "cancelled", PaymentState::Cancelled).await;
    let change = cancelled.attempts[1].change.expect("all goes back to the wallet");
    let back = outpoint(&v1::Outpoint { txid: cancelled.attempts[1].txid.clone(), vout: change.vout });
    let coin = scene.coin(WALLET, back).await.expect("the coin is back");
    assert_eq!(coin.state(), v1::UtxoState::Available);
    let again = scene.bump("cancelled", 50.0).await;
    assert_eq!(reason(again), "PAYMENT_UNRESOLVED");
}

/// A replacement that the caller builds spends the attempt's coins, and needs no reservation for them.
pub async fn a_psbt_replaces_an_attempt_without_a_reservation(scene: &mut Scene) {
    let low = scene.pay(WALLET, "by-psbt", 1.0).await;
    scene.in_every_mempool(&low.txid, None).await;
    let request = sign_request("by-psbt", &dearer(&low.attempts[0], 5_000));
    let answer = scene.client.sign_psbt(request.clone()).await.unwrap();
    assert_eq!(answer.attempt_number, 2);
    let replaced = answer.payment.unwrap();
    scene.in_every_mempool(&replaced.txid, Some(&low.txid)).await;
    let unknown = v1::SignPsbtRequest { payment_id: "nothing-to-replace".to_owned(), ..request };
    let unknown = v1::SignPsbtRequest { request_id: String::new(), ..unknown };
    assert_eq!(reason(scene.client.sign_psbt(unknown).await), "RESERVATION_UNKNOWN");
    scene.mine_until(WALLET, "by-psbt", PaymentState::Settled).await;
}

/// The transaction of an attempt, for so much more in fees.
fn dearer(attempt: &v1::Attempt, more_sat: u64) -> Psbt {
    let mut transaction: Transaction = signed(attempt);
    for input in &mut transaction.input {
        input.witness.clear();
    }
    let change = attempt.change.unwrap();
    transaction.output[change.vout as usize].value -= Amount::from_sat(more_sat);
    Psbt::from_unsigned_tx(transaction).unwrap()
}

/// Asks for a replacement by a caller's own transaction, which needs no reservation.
fn sign_request(payment_id: &str, psbt: &Psbt) -> v1::SignPsbtRequest {
    v1::SignPsbtRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: payment_id.to_owned(),
        recipients: vec![recipient(payment_id)],
        psbt: psbt.serialize().into(),
        ..Default::default()
    }
}

pub async fn what_cannot_be_replaced_is_refused(scene: &mut Scene) {
    let paid = scene.pay(WALLET, "refused", 5.0).await;
    assert_eq!(reason(scene.bump("refused", 5.0).await), "FEE_LIMIT", "not above the newest attempt's");
    assert_eq!(reason(scene.bump("refused", 2_000.0).await), "FEE_LIMIT", "above the wallet's cap");
    let capped = v1::BumpFeeRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: "refused".to_owned(),
        fee: Some(v1::bump_fee_request::Fee::FeerateSatVb(9.0)),
        max_fee_sat: 800,
        ..Default::default()
    };
    assert_eq!(reason(scene.client.bump_fee(capped).await), "FEE_LIMIT", "above what the caller accepts");
    assert_eq!(reason(scene.bump("never-ordered", 5.0).await), "PAYMENT_UNKNOWN");
    assert_eq!(scene.payment(WALLET, "refused").await.attempts.len(), 1, "nothing was made of it");
    scene.in_every_mempool(&paid.txid, None).await;
    scene.mine(1);
    scene.reaches(WALLET, "refused", PaymentState::Confirming).await;
    assert_eq!(reason(scene.bump("refused", 9.0).await), "PAYMENT_UNRESOLVED", "it is in a block");
}
