//! A leader that is cut off from the others and still takes itself for the leader.

use std::collections::BTreeSet;
use std::time::Duration;

use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::{reason, v1};
use onespend_testnet::hot::WALLET;
use onespend_testnet::relay::Link;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::scene::{Scene, eventually, need, payment};

/// Payments that the others make meanwhile; after each the isolated node is asked about it.
const PAYMENTS: usize = 4;
/// How often it is asked about each.
const QUESTIONS: usize = 3;
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A name that nobody gave to a payment.
const NONE: &str = "none";

/// safety 26: "was it paid?" is not answered by a node that cannot know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_never_says_that_there_is_no_such_payment() {
    let mut scene = Scene::wired_with_coins("isolation", 2 * PAYMENTS + 4).await;
    for (name, link) in [("held", Link::Held), ("cut", Link::Cut)] {
        let leader = scene.primary();
        let others = Scene::others(leader);
        let direct = scene.direct(leader);
        // With its quorum it answers, so that no answer later means something.
        let unknown = ask(&direct, NONE).await.unwrap_err();
        assert_eq!((unknown.code(), reason_of(&unknown).as_str()), (Code::NotFound, reason::PAYMENT_UNKNOWN));

        for other in &others {
            scene.cluster.wires().unwrap().set_between(leader, *other, link);
        }
        let survivors = scene.client_of(&others);
        let (mut reasons, mut paid) = (BTreeSet::new(), Vec::new());
        for order in scene.order_many(name, PAYMENTS) {
            reasons.extend(refused(&direct, NONE).await);
            reasons.extend(refused(&direct, &order.payment_id).await);
            paid.push(survivors.create_payment(order.clone()).await.unwrap().payment.unwrap());
            // Whoever believes "no such payment" now pays a second time.
            reasons.extend(refused(&direct, &order.payment_id).await);
        }
        assert!(reasons.contains(reason::NO_QUORUM), "it took itself for the leader: {reasons:?}");

        scene.cluster.wires().unwrap().heal();
        for known in &paid {
            let seen = eventually("it knows, once it may", async || {
                let answer = ask(&direct, &known.payment_id).await.map_err(|error| error.to_string())?;
                need(answer.payment_id == known.payment_id, || format!("{answer:?}"))?;
                Ok(answer)
            })
            .await;
            assert_eq!(seen.txid, known.txid);
            assert_eq!(payment(&survivors, &known.payment_id).await.attempts.len(), 1);
        }
    }
    scene.settle_and_judge().await;
    scene.finish();
}

async fn ask(node: &Channel, payment_id: &str) -> Result<v1::Payment, Status> {
    let mut request =
        Request::new(v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment_id.to_owned() });
    request.set_timeout(ANSWER_WITHIN);
    let answer = PaymentServiceClient::new(node.clone()).get_payment(request).await?;
    Ok(answer.into_inner().payment.unwrap())
}

fn reason_of(refused: &Status) -> String {
    refused.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Asks a few times; it must answer neither yes nor no. Gives back why it did not.
async fn refused(node: &Channel, payment_id: &str) -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    for _ in 0..QUESTIONS {
        let refused = ask(node, payment_id).await.expect_err("what it cannot know");
        assert_ne!(refused.code(), Code::NotFound, "{payment_id}: {refused:?}");
        reasons.insert(reason_of(&refused));
    }
    reasons
}
