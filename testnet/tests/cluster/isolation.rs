//! A leader that is cut off from the others and still takes itself for the leader, and a replica that hears nobody.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::read_consistency::Level;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
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
/// Many times the age of a replica that hears its leader.
const YOUNG_MS: u32 = 1_000;
/// The most that a read may allow.
const HOUR_MS: u32 = 3_600_000;

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
    a_replica_that_is_cut_off_answers_no_read_that_it_is_too_old_for(&mut scene).await;
    scene.settle_and_judge().await;
    scene.finish();
}

/// It goes on to answer those who may see what is old, and says how old that is.
async fn a_replica_that_is_cut_off_answers_no_read_that_it_is_too_old_for(scene: &mut Scene) {
    let leader = scene.primary();
    let replica = Scene::others(leader)[0];
    let direct = scene.direct(replica);
    let young = async || bounded_read(&direct, YOUNG_MS).await.map_err(|refused| format!("{refused:?}"));
    let info = eventually("it is young enough", young).await;
    assert!(info.staleness_ms <= YOUNG_MS.into() && info.served_by == replica as u64 + 1, "{info:?}");

    for other in Scene::others(replica) {
        scene.cluster.wires().unwrap().set_between(replica, other, Link::Cut);
    }
    let refused = eventually("it is too old", async || match bounded_read(&direct, YOUNG_MS).await {
        Err(refused) if reason_of(&refused) == reason::TOO_STALE => Ok(refused),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(refused.code(), Code::Unavailable);
    let told = facts_of(&refused).remove("staleness_ms").and_then(|ms| ms.parse::<u64>().ok());
    assert!(told.is_some_and(|ms| ms > YOUNG_MS.into()), "{refused:?}");
    let old = bounded_read(&direct, HOUR_MS).await.unwrap();
    assert!(old.staleness_ms > YOUNG_MS.into() && old.served_by == replica as u64 + 1, "{old:?}");

    scene.cluster.wires().unwrap().heal();
    eventually("it is young again", young).await;
}

/// Reads the wallet, no older than so much; what the answer was based on.
async fn bounded_read(node: &Channel, max_lag_ms: u32) -> Result<v1::ReadInfo, Status> {
    let level = Some(Level::BoundedStaleness(v1::BoundedStaleness { max_lag_ms }));
    let consistency = Some(v1::ReadConsistency { level });
    let mut request = Request::new(v1::GetWalletRequest { wallet_id: WALLET.to_owned(), consistency });
    request.set_timeout(ANSWER_WITHIN);
    let answer = WalletServiceClient::new(node.clone()).get_wallet(request).await?;
    Ok(answer.into_inner().read_info.unwrap())
}

async fn ask(node: &Channel, payment_id: &str) -> Result<v1::Payment, Status> {
    let mut request =
        Request::new(v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment_id.to_owned() });
    request.set_timeout(ANSWER_WITHIN);
    let answer = PaymentServiceClient::new(node.clone()).get_payment(request).await?;
    Ok(answer.into_inner().payment.unwrap())
}

fn facts_of(refused: &Status) -> HashMap<String, String> {
    refused.get_details_error_info().map(|info| info.metadata).unwrap_or_default()
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
