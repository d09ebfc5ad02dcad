//! Somebody else who has the wallet's keys.

use std::fs;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, Xpriv};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, CompressedPublicKey, ScriptBuf, Transaction, TxIn, TxOut, Witness, ecdsa};
use onespend_proto::client::ClientError;
use onespend_proto::v1::{self, AttemptState, Keychain, PaymentState, UtxoState};
use onespend_testnet::cluster::FINALITY_DEPTH;
use onespend_testnet::hot::WALLET;
use onespend_testnet::oracle::signer_log::Signature;

use crate::draft::{FEE_SAT, names, outpoint, release, reserve, signed};
use crate::scene::{NODES, Scene, eventually, fresh_id, need, payee, reason};

const TTL: Duration = Duration::from_mins(10);
/// What a foreign transaction pays that keeps ours out of mempools, and a feerate that beats it.
const HIGH_FEE_SAT: u64 = FEE_SAT * 10;
const HIGHER_SAT_VB: f64 = 100.0;

/// safety 17: external spend of a reserved coin. Nothing is signed for it, the other coin of the reservation
/// stays its owner's, and when a reorganisation takes the spend back nobody gets the coin before an operator has looked.
pub async fn a_reserved_coin_that_somebody_else_spends_is_signed_for_by_nobody(scene: &mut Scene) {
    let held = scene.reserve(2, TTL).await;
    let [stolen, kept] = &names(&held.utxos)[..] else { panic!("two coins") };
    let before = signed_for(scene, stolen);
    let theft = spend_outside(scene, &held.utxos[0], FEE_SAT);
    let txid = theft.compute_txid().to_string();
    scene.cluster.bitcoinds()[0].send(&theft).unwrap();
    let block = scene.mine_only(&[&theft]);
    is_seen(scene, stolen, &txid).await;
    let events = scene.operator.list_audit_events(v1::ListAuditEventsRequest::default()).await.unwrap().events;
    assert!(events.iter().any(|one| one.event == "foreign_spend"), "an operator must see it: {events:?}");

    let request = scene.sign_request("stolen-from", &held, FEE_SAT).await;
    assert_eq!(reason(scene.client.sign_psbt(request).await), "OUTPOINT_SPENT");
    let wanted = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: "stolen-from".to_owned() };
    assert_eq!(reason(scene.client.get_payment(wanted).await), "PAYMENT_UNKNOWN", "no intent");
    assert_eq!(scene.coin(kept).await.state(), UtxoState::Reserved);
    assert_eq!(reason(reserve(&scene.client, std::slice::from_ref(kept), TTL).await), "OUTPOINT_RESERVED");
    release(&scene.client, &held).await;
    assert_eq!(scene.coin(kept).await.state(), UtxoState::Available);
    assert_eq!(reason(reserve(&scene.client, std::slice::from_ref(stolen), TTL).await), "OUTPOINT_SPENT");

    scene.reorganise(block, &[&[], &[]]);
    scene.followed().await;
    is_held_back(scene, stolen).await;
    // The thief is in the mempools still.
    scene.mine(1);
    scene.followed().await;
    assert_eq!(signed_for(scene, stolen), before, "signed for a stolen coin");
}

/// safety 17: the same when nobody has given the reservation back. The spend that is taken back ends it as if its time
/// were over: its owner may not sign for a coin that somebody else has the keys of, and its other coin is free.
pub async fn a_reservation_ends_when_the_foreign_spend_of_its_coin_is_taken_back(scene: &mut Scene) {
    let held = scene.reserve(2, TTL).await;
    let [stolen, kept] = &names(&held.utxos)[..] else { panic!("two coins") };
    let before = signed_for(scene, stolen);
    let theft = spend_outside(scene, &held.utxos[0], FEE_SAT);
    scene.cluster.bitcoinds()[0].send(&theft).unwrap();
    let block = scene.mine_only(&[&theft]);
    is_seen(scene, stolen, &theft.compute_txid().to_string()).await;
    assert_eq!(scene.coin(kept).await.state(), UtxoState::Reserved);

    scene.reorganise(block, &[&[], &[]]);
    scene.followed().await;
    let wanted = v1::GetReservationRequest { reservation_id: held.reservation_id.clone(), ..Default::default() };
    let ended = scene.client.get_reservation(wanted).await.unwrap().reservation.unwrap();
    assert_eq!(ended.state(), v1::ReservationState::Expired, "{ended:?}");
    let request = scene.sign_request("stolen-again-from", &held, FEE_SAT).await;
    assert_eq!(reason(scene.client.sign_psbt(request).await), "RESERVATION_EXPIRED");
    assert_eq!(scene.coin(kept).await.state(), UtxoState::Available);
    is_held_back(scene, stolen).await;
    // That the wallet works again does not mean that anybody has looked at this coin.
    let (request_id, wallet_id, note) = (fresh_id(), WALLET.to_owned(), "somebody has the keys".to_owned());
    scene.operator.freeze_wallet(v1::FreezeWalletRequest { request_id, wallet_id, note }).await.unwrap();
    let (request_id, wallet_id) = (fresh_id(), WALLET.to_owned());
    scene.operator.unfreeze_wallet(v1::UnfreezeWalletRequest { request_id, wallet_id }).await.unwrap();
    is_held_back(scene, stolen).await;

    // The thief is in the mempools still.
    scene.mine(1);
    scene.followed().await;
    assert_eq!(reason(reserve(&scene.client, std::slice::from_ref(stolen), TTL).await), "OUTPOINT_SPENT");
    assert_eq!(signed_for(scene, stolen), before, "signed for a stolen coin");
}

/// safety 17: the operator's way out. Whose spend it was that a reorganisation took back is found out, with the wallet
/// frozen meanwhile; then its coin is released, by an operator and nobody else, and it pays what is ordered next: by a
/// transaction that replaces the stray one in every mempool. The audit has each step. Gives the payment.
pub async fn a_coin_that_an_operator_releases_from_quarantine_pays_again(scene: &mut Scene) -> String {
    let coin = scene.free_coins(1).await.remove(0);
    let name = coin.outpoint.clone().unwrap();
    let stray = spend_outside(scene, &coin, FEE_SAT);
    let txid = stray.compute_txid().to_string();
    scene.cluster.bitcoinds()[0].send(&stray).unwrap();
    let block = scene.mine_only(&[&stray]);
    is_seen(scene, &name, &txid).await;
    scene.reorganise(block, &[&[], &[]]);
    scene.followed().await;
    is_held_back(scene, &name).await;

    let (request_id, wallet_id, note) = (fresh_id(), WALLET.to_owned(), "who spent this?".to_owned());
    let frozen = scene.operator.freeze_wallet(v1::FreezeWalletRequest { request_id, wallet_id, note }).await.unwrap();
    let order = scene.order("while-frozen", 2.0);
    assert_eq!(reason(scene.client.create_payment(order).await), "WALLET_FROZEN");
    let release = || v1::ReleaseQuarantinedRequest {
        request_id: fresh_id(),
        wallet_id: WALLET.to_owned(),
        outpoints: vec![name.clone()],
        note: "it was our own cold wallet tool".to_owned(),
        i_have_checked: true,
    };
    assert_eq!(reason(scene.client.release_quarantined(release()).await), "ROLE");
    let released = scene.operator.release_quarantined(release()).await.unwrap().utxos;
    assert_eq!(released.iter().map(v1::Utxo::state).collect::<Vec<_>>(), [UtxoState::Available]);
    assert_eq!(reason(scene.operator.release_quarantined(release()).await), "NOT_QUARANTINED");
    let (request_id, wallet_id) = (fresh_id(), WALLET.to_owned());
    scene.operator.unfreeze_wallet(v1::UnfreezeWalletRequest { request_id, wallet_id }).await.unwrap();
    assert_eq!(scene.coin(&name).await.state(), UtxoState::Available);

    let held = reserve(&scene.client, std::slice::from_ref(&name), TTL).await.unwrap();
    let request = scene.sign_request("released", &held, FEE_SAT * 9).await;
    let paid = scene.client.sign_psbt(request).await.unwrap().payment.unwrap();
    scene.in_every_mempool(&paid.txid, Some(&txid)).await;

    let (from_index, wallet_id) = (frozen.applied_index - 1, WALLET.to_owned());
    let asked = v1::ListAuditEventsRequest { from_index, wallet_id, ..Default::default() };
    let events = scene.operator.list_audit_events(asked).await.unwrap().events;
    let by_hand: Vec<_> = events.iter().filter(|one| one.caller == "operator/alice").collect();
    let named: Vec<&str> = by_hand.iter().map(|one| one.event.as_str()).collect();
    assert_eq!(named, ["freeze_wallet", "release_quarantined", "unfreeze_wallet"], "{events:?}");
    let told = &by_hand[1].detail;
    assert!(told.contains(&release().note) && told.contains(&outpoint(&name).to_string()), "{told}");
    paid.payment_id
}

/// safety 6, 9: mempool conflict. Every mempool has a foreign transaction that spends our coin for more fees, and takes
/// nothing else. The payment stays signed, says what bitcoind said, and keeps its coin; a replacement that pays still more,
/// a miner who has kept ours, or a block with theirs decides. Gives the payments that are paid.
pub async fn a_conflict_that_only_mempools_hold_neither_ends_nor_frees_a_payment(
    scene: &mut Scene,
) -> [&'static str; 2] {
    let (_, theirs) = kept_out(scene, "outbid").await;
    let bumped = scene.bump("outbid", HIGHER_SAT_VB).await.unwrap().payment.unwrap();
    scene.in_every_mempool(&bumped.txid, Some(&theirs.compute_txid().to_string())).await;

    let (kept, theirs) = kept_out(scene, "kept").await;
    scene.mine_only(&[&signed(&kept.attempts[0])]);
    let confirming = scene.reaches("kept", PaymentState::Confirming).await;
    assert_eq!((&confirming.txid, confirming.attempts.len()), (&kept.txid, 1));
    scene.in_every_mempool(&bumped.txid, Some(&theirs.compute_txid().to_string())).await;

    let (taken, theirs) = kept_out(scene, "taken").await;
    let coin = &taken.attempts[0].inputs[0];
    scene.mine_only(&[&theirs]);
    scene.reaches("taken", PaymentState::Conflicted).await;
    is_seen(scene, coin, &theirs.compute_txid().to_string()).await;
    scene.mine(FINALITY_DEPTH - 1);
    let dead = scene.reaches("taken", PaymentState::Dead).await;
    assert_eq!(dead.attempts.iter().map(v1::Attempt::state).collect::<Vec<_>>(), [AttemptState::Dead]);
    assert_eq!(scene.coin(coin).await.state(), UtxoState::Spent);
    ["outbid", "kept"]
}

/// A payment that no mempool takes because of a foreign transaction, and that one.
async fn kept_out(scene: &mut Scene, payment_id: &str) -> (v1::Payment, Transaction) {
    let held = scene.reserve(1, TTL).await;
    let name = held.utxos[0].outpoint.clone().unwrap();
    let theirs = spend_outside(scene, &held.utxos[0], HIGH_FEE_SAT);
    let txid = theirs.compute_txid().to_string();
    scene.cluster.bitcoinds()[0].send(&theirs).unwrap();
    scene.in_every_mempool(&txid, None).await;
    let request = scene.sign_request(payment_id, &held, FEE_SAT).await;
    let ordered = scene.client.sign_psbt(request).await.unwrap().payment.unwrap();
    let refused = eventually("what bitcoind said is shown", async || {
        let found = scene.payment(payment_id).await;
        let said = &found.attempts[0].last_broadcast_error;
        need(said.contains("insufficient fee"), || format!("{found:?}"))?;
        Ok(found)
    })
    .await;
    assert_eq!((refused.state(), refused.attempts[0].state()), (PaymentState::Signed, AttemptState::Signed));
    assert_eq!((&refused.txid, refused.attempts.len()), (&ordered.txid, 1));
    assert_eq!(scene.coin(&name).await.state(), UtxoState::Exposed);
    let grab = reserve(&scene.client, std::slice::from_ref(&name), TTL).await;
    assert_eq!(reason(grab), "OUTPOINT_RESERVED", "for another payment");
    scene.in_every_mempool(&txid, Some(&ordered.txid)).await;
    (refused, theirs)
}

/// Waits until the service knows that this transaction in a block spends the coin.
async fn is_seen(scene: &Scene, coin: &v1::Outpoint, txid: &str) {
    eventually("the spend is seen", async || {
        let coin = scene.coin(coin).await;
        let spent = matches!(coin.state(), UtxoState::SpentPending | UtxoState::Spent);
        need(spent && coin.spending_txid == txid, || format!("{coin:?}"))
    })
    .await;
}

/// The coin is in quarantine, and whoever asks for it is told so.
async fn is_held_back(scene: &Scene, coin: &v1::Outpoint) {
    assert_eq!(scene.coin(coin).await.state(), UtxoState::Quarantined);
    let refused = match reserve(&scene.client, std::slice::from_ref(coin), TTL).await {
        Err(ClientError::Rejected(refused)) => refused,
        other => panic!("refused, wanted; got {other:?}"),
    };
    assert_eq!(refused.reason, "OUTPOINT_RESERVED");
    let fact = |key: &str| refused.metadata.get(key).map(String::as_str);
    assert_eq!((fact("outpoints"), fact("holders")), (Some(outpoint(coin).to_string().as_str()), Some("quarantine")));
}

/// What any signer has signed for the coin. There may be some, of attempts that are dead: the wallet is used by others.
fn signed_for(scene: &Scene, coin: &v1::Outpoint) -> Vec<Signature> {
    let name = outpoint(coin).to_string();
    let lines = (0..NODES).flat_map(|index| scene.signatures(index));
    lines.filter(|line| line.outpoints.contains(&name)).collect()
}

/// Spends a coin of the wallet past the service for this fee, with the keys out of a signer's file.
fn spend_outside(scene: &Scene, coin: &v1::Utxo, fee_sat: u64) -> Transaction {
    let secp = Secp256k1::new();
    let file = scene.cluster.nodes()[0].data_folder().with_file_name("hot.xprv");
    let descriptors = fs::read_to_string(file).unwrap();
    let account = descriptors.split_once(']').and_then(|(_, rest)| rest.split_once('/')).unwrap().0;
    let branch = u32::from(coin.keychain() == Keychain::Internal);
    let path = [branch, coin.index].map(|step| ChildNumber::from_normal_idx(step).unwrap());
    let key = account.parse::<Xpriv>().unwrap().derive_priv(&secp, &path).unwrap().private_key;
    let public = key.public_key(&secp);
    let script = ScriptBuf::from_bytes(coin.script.to_vec());
    assert_eq!(script, ScriptBuf::new_p2wpkh(&CompressedPublicKey(public).wpubkey_hash()), "the coin's key");
    let value = Amount::from_sat(coin.value_sat.unsigned_abs());
    let unsigned = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: outpoint(coin.outpoint.as_ref().unwrap()), ..Default::default() }],
        output: vec![TxOut { value: value - Amount::from_sat(fee_sat), script_pubkey: payee("thief") }],
    };
    let mut cache = SighashCache::new(unsigned);
    let sighash = cache.p2wpkh_signature_hash(0, &script, value, EcdsaSighashType::All).unwrap();
    let signature = secp.sign_ecdsa(&Message::from_digest(sighash.to_byte_array()), &key);
    *cache.witness_mut(0).unwrap() = Witness::p2wpkh(&ecdsa::Signature::sighash_all(signature), &public);
    cache.into_transaction()
}
