//! Wallets that are signed for outside the service: transactions that a caller builds, and attempts after the first.

use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::{Keypair, Message, Secp256k1};
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, TxOut};
use onespend_proto::v1::{self, AttemptPurpose, AttemptState, PaymentState, UtxoState};

use crate::outside::{FENCE_KEY, sign, submit};
use crate::scene::{AMOUNT_SAT, Scene, outpoint, payee, reason, recipient};

/// Above what any mempool asks for one input, of several keys too.
const FEE_SAT: i64 = 1_000;
/// A coin of this value pays for a payment, the fee and its change.
const LEAST_SAT: i64 = AMOUNT_SAT + 100_000;
/// The payment that two permits are given for.
const TWICE: &str = "permitted-twice";

/// SignPsbt gives such a wallet's caller the permit, of one key and of several.
pub async fn a_callers_own_transaction_is_permitted_signed_outside_and_submitted(scene: &mut Scene) {
    let secp = Secp256k1::new();
    let wallets: [(&str, &str, &[u8]); 2] = [("outside", "own", &[1]), ("board", "own-bonus", &[2, 4])];
    for (wallet, payment_id, seeds) in wallets {
        let (request, unsigned) = own_transaction(scene, wallet, payment_id).await;
        let permitted = scene.client.sign_psbt(request.clone()).await.unwrap();
        let payment = permitted.payment.unwrap();
        assert_eq!((permitted.attempt_number, payment.attempts.len()), (1, 1));
        let attempt = &payment.attempts[0];
        assert_eq!((payment.state(), attempt.state()), (PaymentState::Signing, AttemptState::Signing));
        assert!(attempt.raw_transaction.is_empty(), "nobody here has signed it: {attempt:?}");
        let permit = Psbt::deserialize(&attempt.psbt).expect("the permit is shown");
        assert_eq!(permit.unsigned_tx, unsigned, "it is for the caller's transaction and no other");
        let again = scene.client.sign_psbt(request).await.unwrap();
        assert_eq!(again.attempt_number, 1, "the same bytes are the same attempt");
        assert_eq!(again.payment.unwrap().attempts[0].psbt, attempt.psbt);

        let signed = sign(&secp, &attempt.psbt, seeds);
        let answer = submit(scene, wallet, payment_id, signed.clone()).await.unwrap();
        assert_eq!(answer.attempt_number, 1);
        assert_eq!(answer.payment.unwrap().attempts[0].raw_transaction, signed, "recorded");
        scene.in_every_mempool(&attempt.txid, None).await;
    }
    scene.mine_until("outside", "own", PaymentState::Settled).await;
    scene.reaches("board", "own-bonus", PaymentState::Settled).await;
}

/// safety 6, 8: whichever attempt is signed outside and confirms is the payment, the older one too. The other is given up
/// while that one lives, which frees no coin that it spends.
pub async fn an_older_permit_that_is_signed_pays_and_the_newer_is_given_up(scene: &mut Scene) {
    let secp = Secp256k1::new();
    let first = scene.pay("fenced", TWICE, 4.0).await;
    let bumped = scene.bump_of("fenced", TWICE, 9.0).await.unwrap();
    assert_eq!(bumped.attempt_number, 2);
    let payment = bumped.payment.unwrap();
    let [older, newer] = &payment.attempts[..] else { panic!("two attempts, wanted: {payment:?}") };
    let states = [older.state(), newer.state()];
    assert_eq!((payment.state(), states), (PaymentState::Signing, [AttemptState::Signing; 2]));
    assert_eq!(older.psbt, first.attempts[0].psbt, "its permit is as good as before");
    assert!(!newer.psbt.is_empty(), "the replacement is permitted as well");
    assert!(newer.inputs.contains(payment.anchor.as_ref().unwrap()), "both spend the anchor");

    let answer = submit(scene, "fenced", TWICE, sign(&secp, &older.psbt, &[5])).await.unwrap();
    assert_eq!(answer.attempt_number, 1, "the older attempt's signature is taken");
    scene.in_every_mempool(&older.txid, None).await;

    let refused = async |request: v1::AbortAttemptRequest| reason(scene.client.abort_attempt(request).await);
    assert_eq!(refused(abort(1, &older.abort_message)).await, "ABORT_UNSUPPORTED", "it is signed");
    assert_eq!(refused(abort(2, &older.abort_message)).await, "ABORT_PROOF_INVALID", "the word for another attempt");
    let given_up = scene.client.abort_attempt(abort(2, &newer.abort_message)).await.unwrap().payment.unwrap();
    assert_eq!((given_up.attempts[1].state(), &given_up.txid), (AttemptState::Aborted, &older.txid));
    scene.reaches("fenced", TWICE, PaymentState::Broadcast).await;
    let coin = scene.coin("fenced", outpoint(&older.inputs[0])).await.unwrap();
    assert_eq!(coin.state(), UtxoState::Exposed, "the older attempt spends it");
    let late = submit(scene, "fenced", TWICE, sign(&secp, &newer.psbt, &[5])).await;
    assert_eq!(reason(late), "ATTEMPT_ABORTED", "the signer broke its word");

    let settled = scene.mine_until("fenced", TWICE, PaymentState::Settled).await;
    assert_eq!(settled.txid, older.txid);
    let states: Vec<AttemptState> = settled.attempts.iter().map(v1::Attempt::state).collect();
    assert_eq!(states, [AttemptState::Settled, AttemptState::Aborted]);
}

/// safety 10: and the permit of an attempt that gives the coins back pays nobody.
pub async fn a_cancellation_is_permitted_and_signed_outside(scene: &mut Scene) {
    scene.pay("outside", "called-off", 4.0).await;
    let request = v1::CancelPaymentRequest {
        wallet_id: "outside".to_owned(),
        payment_id: "called-off".to_owned(),
        ..Default::default()
    };
    let answer = scene.client.cancel_payment(request).await.unwrap();
    assert_eq!(answer.attempt_number, 2);
    let payment = answer.payment.unwrap();
    let attempt = &payment.attempts[1];
    assert_eq!((attempt.purpose(), attempt.state()), (AttemptPurpose::Cancel, AttemptState::Signing));
    let permit = Psbt::deserialize(&attempt.psbt).expect("the permit is shown");
    let unpaid = payee("called-off");
    assert!(permit.unsigned_tx.output.iter().all(|output| output.script_pubkey != unpaid), "{permit:?}");

    let signed = sign(&Secp256k1::new(), &attempt.psbt, &[1]);
    assert_eq!(submit(scene, "outside", "called-off", signed).await.unwrap().attempt_number, 2);
    scene.in_every_mempool(&attempt.txid, None).await;
    let cancelled = scene.mine_until("outside", "called-off", PaymentState::Cancelled).await;
    let states: Vec<AttemptState> = cancelled.attempts.iter().map(v1::Attempt::state).collect();
    assert_eq!(states, [AttemptState::Dead, AttemptState::Settled]);
    let vout = attempt.change.expect("all goes back to the wallet").vout;
    let back = outpoint(&v1::Outpoint { txid: attempt.txid.clone(), vout });
    assert_eq!(scene.coin("outside", back).await.expect("the coin is back").state(), UtxoState::Available);
}

/// What proves, with the message that is shown of an attempt, that its signer has given that one up.
fn abort(attempt_number: u32, message: &[u8]) -> v1::AbortAttemptRequest {
    let secp = Secp256k1::new();
    let fence_key = Keypair::from_seckey_slice(&secp, &FENCE_KEY).unwrap();
    let message = Message::from_digest(message.try_into().expect("32 bytes to sign"));
    let proof = secp.sign_schnorr_no_aux_rand(&message, &fence_key);
    v1::AbortAttemptRequest {
        wallet_id: "fenced".to_owned(),
        payment_id: TWICE.to_owned(),
        attempt_number,
        proof: proof.serialize().to_vec().into(),
        ..Default::default()
    }
}

/// A payment of one reserved coin, as a caller orders it who builds transactions alone; and its transaction.
async fn own_transaction(scene: &Scene, wallet: &str, payment_id: &str) -> (v1::SignPsbtRequest, Transaction) {
    let held = reserve_one(scene, wallet).await;
    let keychain = v1::Keychain::Internal.into();
    let request = v1::NewAddressRequest { wallet_id: wallet.to_owned(), keychain, ..Default::default() };
    let change = ScriptBuf::from_bytes(scene.client.new_address(request).await.unwrap().script.to_vec());
    let transaction = spend(&held.utxos[0], payment_id, change);
    let psbt = Psbt::from_unsigned_tx(transaction.clone()).unwrap();
    let request = v1::SignPsbtRequest {
        wallet_id: wallet.to_owned(),
        payment_id: payment_id.to_owned(),
        recipients: vec![recipient(payment_id)],
        reservation_id: held.reservation_id,
        fence: held.fence,
        psbt: psbt.serialize().into(),
        ..Default::default()
    };
    (request, transaction)
}

async fn reserve_one(scene: &Scene, wallet: &str) -> v1::Reservation {
    let free = v1::ListUtxosRequest {
        wallet_id: wallet.to_owned(),
        states: vec![UtxoState::Available.into()],
        min_value_sat: LEAST_SAT,
        page_size: 1000,
        ..Default::default()
    };
    let free = scene.client.list_utxos(free).await.unwrap().utxos;
    let coin = free.into_iter().next().expect("the wallet has a coin that is free").outpoint.unwrap();
    let request = v1::ReserveUtxosRequest {
        wallet_id: wallet.to_owned(),
        what: Some(v1::reserve_utxos_request::What::Outpoints(v1::OutpointList { outpoints: vec![coin] })),
        ..Default::default()
    };
    scene.client.reserve_utxos(request).await.unwrap().reservation.unwrap()
}

/// Pays the payment's amount; what is left but for the fee is change.
fn spend(coin: &v1::Utxo, payment_id: &str, change: ScriptBuf) -> Transaction {
    let pay = |sat: i64, script_pubkey| TxOut { value: Amount::from_sat(sat.unsigned_abs()), script_pubkey };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: outpoint(coin.outpoint.as_ref().unwrap()),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            ..Default::default()
        }],
        output: vec![pay(AMOUNT_SAT, payee(payment_id)), pay(coin.value_sat - AMOUNT_SAT - FEE_SAT, change)],
    }
}
