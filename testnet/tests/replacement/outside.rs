//! Wallets that are signed for outside the service, and wallets of single coins.

use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::consensus::serialize;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::{All, Keypair, Message, Secp256k1};
use bitcoin::{Network, OutPoint, ScriptBuf};
use miniscript::psbt::PsbtExt;
use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1::{self, AttemptState, PaymentState};
use onespend_testnet::bitcoind::wait_for_same_tip;
use onespend_testnet::cluster::{Addresses, Node};
use onespend_testnet::grpc;
use onespend_testnet::hot::WALLET;

use crate::scene::{PATIENCE, Scene, eventually, on_wire, payee, reason, recipient};

/// The key of the wallet `fenced` that proves what its signer has fenced.
pub const FENCE_KEY: [u8; 32] = [77; 32];

fn master(seed: u8) -> Xpriv {
    Xpriv::new_master(Network::Regtest, &[seed; 32]).unwrap()
}

fn public(secp: &Secp256k1<All>, seed: u8) -> String {
    format!("{}/<0;1>/*", Xpub::from_priv(secp, &master(seed)))
}

async fn register(scene: &Scene, wallet: &str, descriptor: &str, fence_key: &[u8]) {
    let request = v1::RegisterWalletRequest {
        wallet_id: wallet.to_owned(),
        descriptor: descriptor.to_owned(),
        signer: "external".to_owned(),
        fence_key: fence_key.to_vec().into(),
        ..Default::default()
    };
    scene.operator.register_wallet(request).await.unwrap();
}

/// What the keys of these seeds make of a permit.
pub fn sign(secp: &Secp256k1<All>, permit: &[u8], seeds: &[u8]) -> Vec<u8> {
    let mut psbt = Psbt::deserialize(permit).unwrap();
    for seed in seeds {
        psbt.sign(&master(*seed), secp).unwrap();
    }
    psbt.finalize_mut(secp).unwrap();
    serialize(&psbt.extract_tx().unwrap())
}

/// A payment of the first such wallet that is permitted, and what its signer has made and not brought yet.
pub async fn signed_and_kept(scene: &Scene, payment: &str) -> (v1::Payment, Vec<u8>) {
    let permitted = scene.pay("outside", payment, 4.0).await;
    let signed = sign(&Secp256k1::new(), &permitted.attempts[0].psbt, &[1]);
    (permitted, signed)
}

pub async fn submit(
    scene: &Scene,
    wallet: &str,
    payment: &str,
    raw: Vec<u8>,
) -> Result<v1::SubmitSignedTransactionResponse, ClientError> {
    submit_as(&scene.client, wallet, payment, raw).await
}

async fn submit_as(
    caller: &Client,
    wallet: &str,
    payment: &str,
    raw: Vec<u8>,
) -> Result<v1::SubmitSignedTransactionResponse, ClientError> {
    let request = v1::SubmitSignedTransactionRequest {
        wallet_id: wallet.to_owned(),
        payment_id: payment.to_owned(),
        raw_transaction: raw.into(),
        ..Default::default()
    };
    caller.submit_signed_transaction(request).await
}

pub async fn a_permit_is_signed_outside_and_submitted(scene: &mut Scene) {
    let secp = Secp256k1::new();
    register(scene, "outside", &format!("wpkh({})", public(&secp, 1)), &[]).await;
    scene.fund("outside", 4).await;
    let permitted = scene.pay("outside", "away", 4.0).await;
    let attempt = &permitted.attempts[0];
    assert_eq!((permitted.state(), attempt.state()), (PaymentState::Signing, AttemptState::Signing));
    assert!(!attempt.psbt.is_empty(), "the permit is shown");
    assert!(attempt.abort_message.is_empty(), "the wallet has no fence key");
    assert_eq!(scene.payment("outside", "away").await.attempts[0].psbt, attempt.psbt, "at any time");

    let other = scene.pay("outside", "other", 4.0).await;
    let signed = sign(&secp, &attempt.psbt, &[1]);
    let mut spoilt: bitcoin::Transaction = bitcoin::consensus::deserialize(&signed).unwrap();
    spoilt.output[0].value += bitcoin::Amount::ONE_SAT;
    assert_eq!(reason(submit(scene, "outside", "away", serialize(&spoilt)).await), "SIGNATURE_MISMATCH");
    assert_eq!(reason(submit(scene, "outside", "other", signed.clone()).await), "SIGNATURE_MISMATCH");
    let unsigned = other.attempts[0].unsigned_transaction.to_vec();
    assert_eq!(reason(submit(scene, "outside", "other", unsigned).await), "SIGNATURE_MISMATCH");

    let answer = submit(scene, "outside", "away", signed.clone()).await.unwrap();
    assert_eq!(answer.attempt_number, 1);
    scene.in_every_mempool(&attempt.txid, None).await;
    submit(scene, "outside", "away", signed).await.expect("again is no error");
    let settled = scene.mine_until("outside", "away", PaymentState::Settled).await;
    assert_eq!(settled.txid, attempt.txid);
    assert!(settled.attempts[0].psbt.is_empty(), "nothing is left to sign");
}

/// safety 13: blocks and a leader later, by a client that has not ordered the payment. Its owner stays who it was, and
/// those who administer may not.
pub async fn a_permit_is_submitted_later_by_whoever_may_pay_and_another_leader_records_it(scene: &mut Scene) {
    let (permitted, signed) = signed_and_kept(scene, "later").await;
    let leader = scene.cluster.wait_for_primary(PATIENCE).unwrap();
    scene.mine(1);
    scene.lead((leader + 1) % scene.cluster.nodes().len()).await;

    let addresses: Vec<Addresses> = scene.cluster.nodes().iter().map(Node::addresses).collect();
    let ceremony = scene.cluster.issue("client", "ceremony").unwrap();
    let ceremony = grpc::following_client(&addresses, &ceremony).unwrap();
    let refused = submit_as(&scene.operator, "outside", "later", signed.clone()).await;
    assert_eq!(reason(refused), "ROLE");
    let submitted = submit_as(&ceremony, "outside", "later", signed.clone()).await.unwrap();
    let payment = submitted.payment.unwrap();
    assert_eq!((submitted.attempt_number, payment.owner.as_str()), (1, "client/payouts"));
    assert_eq!((&payment.txid, payment.attempts.len()), (&permitted.txid, 1));
    assert_eq!(payment.attempts[0].raw_transaction, signed, "recorded");
    scene.in_every_mempool(&permitted.txid, None).await;
    scene.mine_until("outside", "later", PaymentState::Settled).await;
}

pub async fn a_quorum_of_keys_signs_a_permit(scene: &mut Scene) {
    let secp = Secp256k1::new();
    let keys: Vec<String> = [2, 3, 4].map(|seed| public(&secp, seed)).to_vec();
    register(scene, "board", &format!("wsh(sortedmulti(2,{}))", keys.join(",")), &[]).await;
    scene.fund("board", 1).await;
    let permitted = scene.pay("board", "dividend", 4.0).await;
    let permit = &permitted.attempts[0].psbt;
    let one_short = {
        let mut psbt = Psbt::deserialize(permit).unwrap();
        psbt.sign(&master(2), &secp).unwrap();
        psbt.finalize_mut(&secp)
    };
    assert!(one_short.is_err(), "one key is not enough");
    let signed = sign(&secp, permit, &[2, 4]);
    submit(scene, "board", "dividend", signed).await.unwrap();
    scene.in_every_mempool(&permitted.txid, None).await;
    scene.mine_until("board", "dividend", PaymentState::Settled).await;
}

/// safety 6: a coin that may have been signed for is free again once its signer has proved that it never will be.
pub async fn a_fenced_attempt_is_aborted_and_its_coins_are_free(scene: &mut Scene) {
    let secp = Secp256k1::new();
    let fence_key = Keypair::from_seckey_slice(&secp, &FENCE_KEY).unwrap();
    let public_key = fence_key.x_only_public_key().0.serialize();
    register(scene, "fenced", &format!("wpkh({})", public(&secp, 5)), &public_key).await;
    let coin = scene.fund("fenced", 1).await[0];
    let permitted = scene.pay("fenced", "unwanted", 4.0).await;
    let attempt = permitted.attempts[0].clone();
    let message: [u8; 32] = attempt.abort_message[..].try_into().expect("32 bytes to sign");
    let proof = secp.sign_schnorr_no_aux_rand(&Message::from_digest(message), &fence_key);
    let abort = |proof: Vec<u8>| v1::AbortAttemptRequest {
        wallet_id: "fenced".to_owned(),
        payment_id: "unwanted".to_owned(),
        attempt_number: 1,
        proof: proof.into(),
        ..Default::default()
    };
    assert_eq!(reason(scene.client.abort_attempt(abort(vec![7; 64])).await), "ABORT_PROOF_INVALID");
    let ended = scene.client.abort_attempt(abort(proof.serialize().to_vec())).await.unwrap().payment.unwrap();
    assert_eq!((ended.state(), ended.attempts[0].state()), (PaymentState::Dead, AttemptState::Aborted));
    assert_eq!(scene.coin("fenced", coin).await.unwrap().state(), v1::UtxoState::Available);
    let late = submit(scene, "fenced", "unwanted", sign(&secp, &attempt.psbt, &[5])).await;
    assert_eq!(reason(late), "ATTEMPT_ABORTED", "the signer broke its word");

    let again = scene.pay("fenced", "unwanted", 9.0).await;
    assert_eq!(again.attempts.len(), 2, "ordered again under its id");
    submit(scene, "fenced", "unwanted", sign(&secp, &again.attempts[1].psbt, &[5])).await.unwrap();
    scene.in_every_mempool(&again.txid, None).await;
    scene.mine_until("fenced", "unwanted", PaymentState::Settled).await;
    let hot =
        v1::AbortAttemptRequest { wallet_id: WALLET.to_owned(), payment_id: "bumped".to_owned(), ..abort(vec![7; 64]) };
    assert_eq!(reason(scene.client.abort_attempt(hot).await), "ABORT_UNSUPPORTED");
}

pub async fn single_coins_are_followed_without_a_descriptor(scene: &mut Scene) {
    let request = v1::RegisterWalletRequest { wallet_id: "single".to_owned(), ..Default::default() };
    scene.operator.register_wallet(request).await.unwrap();
    let script = ScriptBuf::from_bytes([&[0x00, 0x14][..], &[9; 20]].concat());
    let coins = scene.send(&script, 2);
    let add = |wallet: &str, coins: &[OutPoint]| v1::RegisterOutpointsRequest {
        wallet_id: wallet.to_owned(),
        outpoints: coins.iter().copied().map(on_wire).collect(),
        ..Default::default()
    };
    let added = scene.operator.register_outpoints(add("single", &coins)).await.unwrap();
    assert!(added.utxos.iter().all(|coin| coin.state() == v1::UtxoState::Available), "{added:?}");
    scene.operator.register_outpoints(add("single", &coins[..1])).await.expect("again is no error");
    let nothing = [OutPoint { vout: 99, ..coins[0] }];
    assert_eq!(reason(scene.operator.register_outpoints(add("single", &nothing)).await), "OUTPOINT_UNKNOWN");
    let with_descriptor = scene.operator.register_outpoints(add(WALLET, &coins)).await;
    assert_eq!(reason(with_descriptor), "WALLET_HAS_DESCRIPTORS");

    let outpoints = vec![on_wire(coins[0])];
    let reserve = v1::ReserveUtxosRequest {
        wallet_id: "single".to_owned(),
        what: Some(v1::reserve_utxos_request::What::Outpoints(v1::OutpointList { outpoints })),
        ..Default::default()
    };
    scene.client.reserve_utxos(reserve).await.unwrap();
    let pay = v1::CreatePaymentRequest {
        wallet_id: "single".to_owned(),
        payment_id: "none".to_owned(),
        recipients: vec![recipient("none")],
        ..Default::default()
    };
    let refused = reason(scene.client.create_payment(pay).await);
    assert!(["WALLET_WATCH_ONLY", "INSUFFICIENT_FUNDS"].contains(&refused.as_str()), "{refused}");

    // A reorganisation takes the coin's block away, and another block brings it again.
    let tip = scene.cluster.bitcoinds()[0].tip().unwrap();
    for bitcoind in scene.cluster.bitcoinds() {
        bitcoind.invalidate(tip).unwrap();
    }
    // To another miner: the same block again would be the invalid one.
    scene.cluster.bitcoinds()[0].mine(2, &payee("another miner")).unwrap();
    wait_for_same_tip(scene.cluster.bitcoinds()).unwrap();
    let tip = scene.cluster.bitcoinds()[0].tip().unwrap().to_string();
    eventually("the coin is in a block of the new branch", async || {
        let seen = scene.client.get_tip(v1::GetTipRequest::default()).await.map_err(|error| error.to_string())?;
        let coin = scene.coin("single", coins[1]).await.ok_or("the coin is gone")?;
        let followed = seen.tip.as_ref().is_some_and(|seen| seen.hash == tip);
        if followed && coin.depth == 2 { Ok(()) } else { Err(format!("{seen:?} {coin:?}")) }
    })
    .await;
}
