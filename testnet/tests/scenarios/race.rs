//! Two who want the same at the same moment: two transactions for one attempt, a cancellation against a block.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::psbt::Psbt;
use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1::{self, AttemptPurpose, PaymentState};
use onespend_testnet::cluster::FINALITY_DEPTH;
use onespend_testnet::hot::WALLET;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::spawn_blocking;

use crate::draft::{FEE_SAT, draft, signed};
use crate::scene::{NODES, Scene, reason};

const TTL: Duration = Duration::from_mins(10);
const ROUNDS: usize = 6;

/// safety 4, 11: two PSBTs for one attempt at the same microsecond, by two nodes: for the first attempt, for its
/// replacement, and for two payments on one reservation. Exactly one of each two is signed, as the signers' logs say too.
pub async fn of_two_psbts_for_one_attempt_exactly_one_is_signed(scene: &mut Scene) -> Vec<String> {
    let mut paid = Vec::new();
    for round in 0..ROUNDS {
        let held = scene.reserve(2, TTL).await;
        let first = format!("psbts-{round}");
        // Half of the rounds: one payment under two transactions. The others: two payments.
        let second = if round % 2 == 0 { first.clone() } else { format!("{first}-other") };
        let both = [(&first, FEE_SAT), (&second, FEE_SAT + 100)];
        let mut requests = Vec::new();
        for (payment_id, fee) in both {
            requests.push(scene.sign_request(payment_id, &held, fee).await);
        }
        let winner = one_is_signed(scene, &requests, "RESERVATION_USED").await;
        let payment_id = requests[winner].payment_id.clone();
        let payment = scene.payment(&payment_id).await;
        assert_eq!(payment.attempts.len(), 1);
        assert_eq!(payment.txid, txid_of(&requests[winner]));
        if round % 2 == 0 {
            replacements_race(scene, &payment_id, &held).await;
        }
        paid.push(payment_id);
    }
    paid
}

/// Two replacements that pay the same: the second would have to pay more than the first.
async fn replacements_race(scene: &mut Scene, payment_id: &str, held: &v1::Reservation) {
    let mut requests = Vec::new();
    for _ in 0..2 {
        let psbt = draft(&held.utxos, payment_id, &scene.change_script().await, FEE_SAT * 4);
        requests.push(scene.replacement(payment_id, &psbt));
    }
    let winner = one_is_signed(scene, &requests, "FEE_LIMIT").await;
    let payment = scene.payment(payment_id).await;
    assert_eq!(payment.attempts.len(), 2);
    assert_eq!(payment.attempts[1].txid, txid_of(&requests[winner]));
}

fn txid_of(request: &v1::SignPsbtRequest) -> String {
    Psbt::deserialize(&request.psbt).unwrap().unsigned_tx.compute_txid().to_string()
}

/// Sends both at once, to two nodes. One must be signed and the other refused for this reason, and of the loser's
/// transaction no signer may know. Gives back which one.
async fn one_is_signed(scene: &Scene, requests: &[v1::SignPsbtRequest], refusal: &str) -> usize {
    let gate = Arc::new(Barrier::new(2));
    let ask = |client: Client, request: &v1::SignPsbtRequest| {
        let (gate, request) = (Arc::clone(&gate), request.clone());
        tokio::spawn(async move {
            gate.wait().await;
            client.sign_psbt(request).await
        })
    };
    let one = ask(scene.client_of(&[0]), &requests[0]);
    let other = ask(scene.client_of(&[1]), &requests[1]);
    let answers = [one.await.unwrap(), other.await.unwrap()];
    let signed: Vec<usize> = (0..2).filter(|index| answers[*index].is_ok()).collect();
    assert_eq!(signed.len(), 1, "exactly one: {answers:?}");
    let winner = signed[0];
    let loser = 1 - winner;
    let [first, second] = answers;
    assert_eq!(reason(if loser == 0 { first } else { second }), refusal);
    let lost = txid_of(&requests[loser]);
    let lines: Vec<_> = (0..NODES).flat_map(|index| scene.signatures(index)).collect();
    assert!(lines.iter().any(|line| line.txid == txid_of(&requests[winner])), "the winner is signed");
    assert!(!lines.iter().any(|line| line.txid == lost), "the loser was signed as well");
    winner
}

/// safety 8, 10: cancel races confirmation. Whatever the answer was: the payment is settled if the block has it, and
/// cancelled if the block has the cancellation. Says which payments the blocks have.
pub async fn a_cancellation_that_races_a_block_ends_as_the_block_says(scene: &mut Scene) -> Vec<String> {
    let mut paid = Vec::new();
    for round in 0..ROUNDS {
        let payment_id = format!("cancelled-{round}");
        let payment = scene.pay(&payment_id, 2.0).await;
        scene.in_every_mempool(&payment.txid, None).await;
        // In turns: a miner that has only ever heard of the payment, and one who takes what the mempool has by then.
        let cancelling = race(scene, &payment, round % 2 == 0).await;
        scene.mine(FINALITY_DEPTH);
        let in_block = |txid: &str| confirmations(scene, txid) >= i64::from(FINALITY_DEPTH);
        let cancelled = cancelling.as_ref().is_some_and(|attempt| in_block(&attempt.txid));
        assert!(cancelled != in_block(&payment.txid), "the blocks have one of them: {payment:?} {cancelling:?}");
        let state = if cancelled { PaymentState::Cancelled } else { PaymentState::Settled };
        let ended = scene.reaches(&payment_id, state).await;
        assert_eq!(ended.attempts.len(), if cancelling.is_some() { 2 } else { 1 });
        if !cancelled {
            paid.push(payment_id);
        }
    }
    paid
}

/// The cancelling attempt, if there is one.
async fn race(scene: &Scene, payment: &v1::Payment, only_the_payment: bool) -> Option<v1::Attempt> {
    let gate = Arc::new(Barrier::new(2));
    let request = v1::CancelPaymentRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: payment.payment_id.clone(),
        ..Default::default()
    };
    let (client, at_gate) = (scene.client.clone(), Arc::clone(&gate));
    let cancelling = tokio::spawn(async move {
        at_gate.wait().await;
        client.cancel_payment(request).await
    });
    let (miner, raw) = (scene.cluster.bitcoinds()[0].caller(), signed(&payment.attempts[0]));
    let nobody = json!("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080");
    gate.wait().await;
    let mined: Result<Value, _> = spawn_blocking(move || {
        if only_the_payment {
            let raw = bitcoin::consensus::encode::serialize_hex(&raw);
            miner.call("generateblock", &[nobody, json!([raw])])
        } else {
            miner.call("generatetoaddress", &[json!(1), nobody])
        }
    })
    .await
    .unwrap();
    mined.unwrap();
    match cancelling.await.unwrap() {
        Ok(answer) => {
            let payment = answer.payment.unwrap();
            let attempt = payment.attempts.into_iter().find(|attempt| attempt.purpose() == AttemptPurpose::Cancel);
            Some(attempt.expect("what was granted is there"))
        }
        Err(ClientError::Rejected(refused)) => {
            assert_eq!(refused.reason, "PAYMENT_UNRESOLVED", "{refused}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// How deep a transaction lies in the chain of the first bitcoind; 0 if it is in no block of the last ones.
fn confirmations(scene: &Scene, txid: &str) -> i64 {
    let bitcoind = &scene.cluster.bitcoinds()[0];
    let tip = bitcoind.height().unwrap();
    let lies_at = (tip.saturating_sub(FINALITY_DEPTH * 2)..=tip).find(|height| {
        let block = bitcoind.block_at(*height).unwrap();
        block.txdata.iter().any(|transaction| transaction.compute_txid().to_string() == txid)
    });
    lies_at.map_or(0, |height| i64::from(tip - height) + 1)
}
