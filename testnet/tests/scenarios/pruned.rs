//! Requests that come again when nobody remembers their answers any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::{self, PaymentState, ReservationState};
use onespend_testnet::grpc::channel;
use tokio::task::JoinSet;
use tonic::Code;

use crate::draft::{FEE_SAT, names, reserve, wanted};
use crate::scene::{NODES, Scene, Stage, fresh_id, reason};

/// As many results as are remembered (`MAX_CACHED_RESULTS` in `core/src/limits.rs`), and some more. That it is enough is
/// seen: an ancient id is free for something else.
const REQUESTS: usize = 200_000 + 500;
const CHANNELS: usize = 4;
const CALLERS: usize = 128;
const TTL: Duration = Duration::from_hours(1);
/// Far longer than all of them take on a busy machine.
const FORGET_PATIENCE: Duration = Duration::from_mins(15);
/// After one that the log did not decide.
const PAUSE: Duration = Duration::from_millis(50);

/// safety 7, 8, 11: result cache pruned, then an ancient retry. Nothing acts twice: a payment is bound to its id for
/// ever, a replacement has to pay more than the one before, and coins have one owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ancient_retry_whose_result_is_forgotten_does_nothing_twice() {
    let mut scene = Scene::start(Stage { name: "pruned", coins: 12, ..Stage::default() }).await;
    let order = scene.order("settled", 2.0);
    let settled = scene.client.create_payment(order.clone()).await.unwrap().payment.unwrap();
    scene.in_every_mempool(&settled.txid, None).await;
    scene.mine(6);
    scene.reaches("settled", PaymentState::Settled).await;
    let asked = Asked::ask(&mut scene).await;
    let signatures: Vec<_> = (0..NODES).map(|index| scene.signatures(index)).collect();
    forget(&mut scene).await;

    // The id is free: with its result remembered, other content would be REQUEST_ID_REUSED.
    let changed = v1::CreatePaymentRequest { max_fee_sat: 99_999, ..order.clone() };
    let again = scene.client.create_payment(changed).await.expect("forgotten").payment.unwrap();
    assert_eq!((&again.txid, again.attempts.len()), (&settled.txid, 1));
    let mut other = v1::CreatePaymentRequest { request_id: fresh_id(), ..asked.order.clone() };
    other.recipients[0].amount_sat += 1;
    assert_eq!(reason(scene.client.create_payment(other).await), "PAYMENT_ID_REUSED");
    asked.again(&scene).await;
    asked.again(&scene).await;
    let after: Vec<_> = (0..NODES).map(|index| scene.signatures(index)).collect();
    assert_eq!(signatures, after, "nothing was signed again");
    scene.settle_and_judge(&["settled", "ordered", "by-psbt"]).await;
    scene.finish().await;
}

/// Requests, and what they led to.
struct Asked {
    order: v1::CreatePaymentRequest,
    bump: v1::BumpFeeRequest,
    ordered: v1::Payment,
    psbt: v1::SignPsbtRequest,
    signed: v1::Payment,
    /// Its reservation is active still.
    held: (v1::ReserveUtxosRequest, v1::Reservation),
    /// Given back; somebody else has the coin.
    given_back: (v1::ReserveUtxosRequest, v1::ReleaseReservationRequest),
    next_owner: v1::Reservation,
}

impl Asked {
    async fn ask(scene: &mut Scene) -> Self {
        let order = scene.order("ordered", 2.0);
        scene.client.create_payment(order.clone()).await.unwrap();
        let bump = v1::BumpFeeRequest {
            request_id: fresh_id(),
            wallet_id: order.wallet_id.clone(),
            payment_id: "ordered".to_owned(),
            fee: Some(v1::bump_fee_request::Fee::FeerateSatVb(8.0)),
            ..Default::default()
        };
        let ordered = scene.client.bump_fee(bump.clone()).await.unwrap().payment.unwrap();
        let used = scene.reserve(2, TTL).await;
        let psbt = scene.sign_request("by-psbt", &used, FEE_SAT).await;
        let signed = scene.client.sign_psbt(psbt.clone()).await.unwrap().payment.unwrap();
        let request = wanted(&names(&scene.free_coins(2).await), TTL);
        let reservation = scene.client.reserve_utxos(request.clone()).await.unwrap().reservation.unwrap();
        let held = (request, reservation);
        let coins = names(&scene.free_coins(1).await);
        let request = wanted(&coins, TTL);
        let first = scene.client.reserve_utxos(request.clone()).await.unwrap().reservation.unwrap();
        let giving_back = v1::ReleaseReservationRequest {
            request_id: fresh_id(),
            reservation_id: first.reservation_id,
            fence: first.fence,
        };
        scene.client.release_reservation(giving_back.clone()).await.unwrap();
        let next_owner = reserve(&scene.client, &coins, TTL).await.unwrap();
        Self { order, bump, ordered, psbt, signed, held, given_back: (request, giving_back), next_owner }
    }

    /// Asks all of it again.
    async fn again(&self, scene: &Scene) {
        let paid = scene.client.create_payment(self.order.clone()).await.unwrap().payment.unwrap();
        assert_eq!((&paid.txid, paid.attempts.len()), (&self.ordered.txid, 2));
        assert_eq!(reason(scene.client.bump_fee(self.bump.clone()).await), "FEE_LIMIT", "it would pay no more");
        let signed = scene.client.sign_psbt(self.psbt.clone()).await.unwrap();
        assert_eq!((signed.attempt_number, signed.payment.unwrap().txid), (1, self.signed.txid.clone()));
        for request in [&self.held.0, &self.given_back.0] {
            let grab = scene.client.reserve_utxos(request.clone()).await;
            assert_eq!(reason(grab), "OUTPOINT_RESERVED", "the coins have an owner");
        }
        // Refused or a mere yes: in any case the coin stays with whom it belongs to now.
        let _whatever_is_said = scene.client.release_reservation(self.given_back.1.clone()).await;
        for reservation in [&self.held.1, &self.next_owner] {
            let request = v1::GetReservationRequest {
                reservation_id: reservation.reservation_id.clone(),
                ..v1::GetReservationRequest::default()
            };
            let found = scene.client.get_reservation(request).await.unwrap().reservation.unwrap();
            assert_eq!((found.state(), found.fence), (ReservationState::Active, reservation.fence));
        }
        for payment in [&self.ordered, &self.signed] {
            let found = scene.payment(&payment.payment_id).await;
            assert_eq!((&found.txid, found.attempts.len()), (&payment.txid, payment.attempts.len()));
        }
    }
}

/// So many other requests, of the cheapest kind: each is refused by an entry of the log, and that is its result.
async fn forget(scene: &mut Scene) {
    let leader = scene.primary();
    let address = scene.cluster.nodes()[leader].addresses().data;
    let channels: Vec<_> = (0..CHANNELS).map(|_| channel(address, scene.cluster.client()).unwrap()).collect();
    let left = Arc::new(AtomicUsize::new(REQUESTS));
    let deadline = Instant::now() + FORGET_PATIENCE;
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let mut client = ReservationServiceClient::new(channels[number % CHANNELS].clone());
        let left = Arc::clone(&left);
        callers.spawn(async move {
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                assert!(Instant::now() < deadline, "{left:?} requests are left after {FORGET_PATIENCE:?}");
                let request = v1::ReleaseReservationRequest {
                    request_id: fresh_id(),
                    reservation_id: "r-1".to_owned(),
                    ..Default::default()
                };
                let refused = client.release_reservation(request).await.expect_err("there is no such reservation");
                if refused.code() != Code::NotFound {
                    // Not decided by the log: it does not count.
                    left.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}
