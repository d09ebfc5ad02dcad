//! Change that is in no block yet (safety 24).

use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut};
use onespend_proto::client::ClientError;
use onespend_proto::v1::{self, PaymentState};
use onespend_testnet::cluster::FINALITY_DEPTH;
use onespend_testnet::hot::WALLET;

use crate::scene::{AMOUNT_SAT, Scene, eventually, on_wire, outpoint, payee, reason, recipient, signed};

pub async fn a_child_pays_for_its_parent(scene: &mut Scene) {
    let parent = scene.pay(WALLET, "parent", 1.0).await;
    scene.in_every_mempool(&parent.txid, None).await;
    let request = |sat_vb| v1::BumpFeeCpfpRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: "parent".to_owned(),
        child_payment_id: "child".to_owned(),
        fee: Some(v1::bump_fee_cpfp_request::Fee::PackageFeerateSatVb(sat_vb)),
        ..Default::default()
    };
    assert_eq!(reason(scene.client.bump_fee_cpfp(request(0.5)).await), "FEE_LIMIT", "it would lift nothing");
    let child = scene.client.bump_fee_cpfp(request(10.0)).await.unwrap().payment.unwrap();
    assert_eq!(child.bumps_payment_id, "parent");
    scene.in_every_mempool(&child.txid, None).await;
    let both = |payment: &v1::Payment| (payment.attempts[0].fee_sat, signed(&payment.attempts[0]).vsize());
    let ((parent_fee, parent_vb), (child_fee, child_vb)) = (both(&parent), both(&child));
    let vbytes = i64::try_from(parent_vb + child_vb).unwrap();
    assert!(parent_fee + child_fee >= 10 * vbytes, "{parent_fee} and {child_fee} sat for {vbytes} vB");

    let again = scene.client.bump_fee_cpfp(request(20.0)).await.unwrap().payment.unwrap();
    assert_eq!(again.txid, child.txid, "one name is one child");
    assert_eq!(reason(scene.bump("parent", 20.0).await), "HAS_DESCENDANTS", "the child hangs on it");
    scene.mine(FINALITY_DEPTH);
    scene.reaches(WALLET, "parent", PaymentState::Settled).await;
    scene.reaches(WALLET, "child", PaymentState::Settled).await;
}

/// safety 24: and its parent is not replaced.
pub async fn unconfirmed_change_is_spent_where_the_wallet_opted_in(scene: &mut Scene) {
    let parent = scene.pay(WALLET, "first", 5.0).await;
    scene.in_every_mempool(&parent.txid, None).await;
    let change = change(&parent);
    let before = reserve(scene, change).await;
    assert_eq!(reason(before), "OUTPOINT_UNKNOWN", "the wallet has not opted in");

    let wallet = v1::GetWalletRequest { wallet_id: WALLET.to_owned(), consistency: None };
    let limits = scene.client.get_wallet(wallet).await.unwrap().wallet.unwrap().limits.unwrap();
    let limits = v1::WalletLimits { spend_unconfirmed_change: true, ..limits };
    let request = v1::SetLimitsRequest { wallet_id: WALLET.to_owned(), limits: Some(limits), ..Default::default() };
    scene.operator.set_limits(request).await.unwrap();

    // The change of what is accepted by a mempool from now on.
    scene.pay(WALLET, "second", 5.0).await;
    let parent = scene.reaches(WALLET, "second", PaymentState::Broadcast).await;
    let change = self::change(&parent);
    let reservation =
        eventually("the change is reserved", async || reserve(scene, change).await.map_err(|error| error.to_string()))
            .await;
    let request = replaces_its_parent(&parent, &reservation);
    assert_eq!(reason(scene.client.sign_psbt(request).await), "PSBT_INVALID", "it could never be mined");
    let psbt = spend(change, &reservation.utxos[0]);
    let request = v1::SignPsbtRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: "third".to_owned(),
        recipients: vec![v1::Recipient { amount_sat: paid_sat(&psbt), ..recipient("third") }],
        reservation_id: reservation.reservation_id,
        fence: reservation.fence,
        psbt: psbt.serialize().into(),
        ..Default::default()
    };
    let child = scene.client.sign_psbt(request).await.unwrap().payment.unwrap();
    scene.in_every_mempool(&child.txid, None).await;
    assert_eq!(reason(scene.bump("second", 50.0).await), "HAS_DESCENDANTS", "safety 24");
    scene.mine(FINALITY_DEPTH);
    scene.reaches(WALLET, "second", PaymentState::Settled).await;
    scene.reaches(WALLET, "third", PaymentState::Settled).await;
    scene.reaches(WALLET, "first", PaymentState::Settled).await;
}

fn change(payment: &v1::Payment) -> OutPoint {
    let attempt = &payment.attempts[0];
    outpoint(&v1::Outpoint { txid: attempt.txid.clone(), vout: attempt.change.unwrap().vout })
}

async fn reserve(scene: &Scene, coin: OutPoint) -> Result<v1::Reservation, ClientError> {
    let outpoints = vec![on_wire(coin)];
    let request = v1::ReserveUtxosRequest {
        wallet_id: WALLET.to_owned(),
        what: Some(v1::reserve_utxos_request::What::Outpoints(v1::OutpointList { outpoints })),
        ..Default::default()
    };
    scene.client.reserve_utxos(request).await.map(|answer| answer.reservation.unwrap())
}

/// A replacement of a payment's attempt that spends the change of that very attempt, which is reserved.
fn replaces_its_parent(parent: &v1::Payment, reservation: &v1::Reservation) -> v1::SignPsbtRequest {
    const FEE_SAT: u64 = 10_000;
    let change = change(parent);
    let mut transaction = signed(&parent.attempts[0]);
    for input in &mut transaction.input {
        input.witness.clear();
    }
    transaction.input.push(TxIn {
        previous_output: change,
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        ..Default::default()
    });
    let value_sat = u64::try_from(reservation.utxos[0].value_sat).unwrap();
    transaction.output[change.vout as usize].value += Amount::from_sat(value_sat - FEE_SAT);
    v1::SignPsbtRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: parent.payment_id.clone(),
        recipients: parent.recipients.clone(),
        reservation_id: reservation.reservation_id.clone(),
        fence: reservation.fence,
        psbt: Psbt::from_unsigned_tx(transaction).unwrap().serialize().into(),
        ..Default::default()
    }
}

/// Pays all of a coin but the fee.
fn spend(coin: OutPoint, shown: &v1::Utxo) -> Psbt {
    const FEE_SAT: u64 = 1_000;
    let value_sat = u64::try_from(shown.value_sat).unwrap();
    assert!(shown.value_sat > AMOUNT_SAT / 2, "{shown:?}");
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: coin, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..Default::default() }],
        output: vec![TxOut { value: Amount::from_sat(value_sat - FEE_SAT), script_pubkey: payee("third") }],
    };
    Psbt::from_unsigned_tx(transaction).unwrap()
}

fn paid_sat(psbt: &Psbt) -> i64 {
    i64::try_from(psbt.unsigned_tx.output[0].value.to_sat()).unwrap()
}
