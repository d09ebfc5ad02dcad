//! After a restore one node's signer knows what was signed after the backup, put together from what the old cluster's
//! signers remember. The others know nothing of it: they sign nothing until they have been given that memory.

use std::collections::BTreeSet;

use onespend_proto::v1::{self, AttemptPurpose, AttemptState, PaymentState, UtxoState};
use onespend_testnet::cluster::FINALITY_DEPTH;
use onespend_testnet::hot::WALLET;

use crate::AFTER;
use crate::scene::{Scene, eventually};
use crate::second::Second;

/// safety 8, 30: a payment that was signed after the backup is granted again, with other coins, so both transactions
/// could confirm. The memory of the node that leads refuses it. The others have empty memories, and would sign it as
/// soon as one of them leads: so they sign nothing, take no spends, and give the lead back, until they are given that
/// memory.
pub async fn a_node_whose_signer_has_not_accepted_the_log_signs_nothing_also_when_it_leads(second: &Second) {
    for index in [1, 2] {
        second.lacks_acceptance(index).await;
    }
    for payment_id in AFTER {
        let shown = payment(second, payment_id).await.unwrap();
        assert_eq!(shown.state(), PaymentState::Signing, "whoever leads has to ask its signer: {shown:?}");
        second.refuses(0, payment_id).await;
    }
    for index in [1, 2] {
        second.gives_the_lead_back(index).await;
    }
    for payment_id in AFTER {
        assert_eq!(second.signed(payment_id), 0, "{payment_id} is signed again");
    }
}

/// As the book says: a copy while the node runs, and one node after the other.
pub async fn the_others_are_given_the_memory(second: &mut Second) {
    let copy = second.copy_memory(0);
    for index in [1, 2] {
        second.stop(index);
        second.merge(index, &copy);
        second.start(index);
        second.has_accepted(index).await;
    }
}

/// safety 8, 30: the payments were signed by two nodes of the old cluster, each of which knew of its own only.
pub async fn a_memory_that_was_put_together_of_two_refuses_what_either_signed(second: &Second) {
    second.lead(1, "/primary").await;
    for payment_id in AFTER {
        second.refuses(1, payment_id).await;
        assert_eq!(second.signed(payment_id), 0, "{payment_id} is signed again");
    }
}

/// safety 8, 10, 30: such a payment ends by a cancellation, which pays nobody and so is signed, though it shares no
/// coin with the transaction that the memory knows. That one pays, and nothing else does.
pub async fn a_payment_that_the_memory_refuses_is_cancelled_and_paid_once(scene: &mut Scene, second: &Second) {
    let mut cancelling = Vec::new();
    for payment_id in AFTER {
        let request = v1::CancelPaymentRequest {
            wallet_id: WALLET.to_owned(),
            payment_id: payment_id.to_owned(),
            ..Default::default()
        };
        let answer = second.client().cancel_payment(request).await.unwrap();
        let payment = answer.payment.unwrap();
        let newest = payment.attempts.last().unwrap();
        assert_eq!((newest.number, newest.purpose()), (3, AttemptPurpose::Cancel), "{payment:?}");
        scene.in_every_mempool(&newest.txid).await;
        assert_eq!(second.transactions(payment_id), BTreeSet::from([newest.txid.clone()]), "{payment_id}");
        cancelling.push(newest.txid.clone());
    }
    scene.cancellations.extend(cancelling.iter().cloned());
    scene.mine(FINALITY_DEPTH);
    for payment_id in AFTER {
        let ended = eventually("the payment is cancelled", async || {
            let shown = payment(second, payment_id).await?;
            if shown.state() == PaymentState::Cancelled { Ok(shown) } else { Err(format!("{shown:?}")) }
        })
        .await;
        let states: Vec<AttemptState> = ended.attempts.iter().map(v1::Attempt::state).collect();
        assert_eq!(states, [AttemptState::Dead, AttemptState::Dead, AttemptState::Settled]);
        let signed = scene.written_down(payment_id).compute_txid();
        assert_eq!(
            scene.paid_by(payment_id),
            BTreeSet::from([signed]),
            "{payment_id} is paid by what was signed first"
        );
    }
    its_coins_are_free(second, &cancelling).await;
}

async fn its_coins_are_free(second: &Second, cancelling: &[String]) {
    let request = v1::ListUtxosRequest { wallet_id: WALLET.to_owned(), page_size: 1000, ..Default::default() };
    let coins = second.client().list_utxos(request).await.unwrap().utxos;
    for txid in cancelling {
        let coin = coins.iter().find(|coin| coin.outpoint.as_ref().is_some_and(|outpoint| outpoint.txid == *txid));
        assert_eq!(coin.expect("all is back").state(), UtxoState::Available, "{coin:?}");
    }
    let is_held = |coin: &&v1::Utxo| coin.state() == UtxoState::Exposed && AFTER.contains(&coin.payment_id.as_str());
    assert_eq!(coins.iter().find(is_held), None);
}

async fn payment(second: &Second, payment_id: &str) -> Result<v1::Payment, String> {
    let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment_id.to_owned() };
    let answer = second.client().get_payment(request).await.map_err(|error| error.to_string())?;
    answer.payment.ok_or_else(|| format!("{payment_id} is not shown"))
}
