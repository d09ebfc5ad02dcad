//! A reservation that ends at a time of the wall clock.

use std::time::{Duration, SystemTime};

use onespend_proto::{reason, v1};

use crate::scene::{Scene, fresh_id, reserve};

const LIFE: Duration = Duration::from_secs(3);

fn names(reservation: &v1::Reservation) -> Vec<Option<v1::Outpoint>> {
    reservation.utxos.iter().map(|utxo| utxo.outpoint.clone()).collect()
}

/// safety 16, 27: the caller's first answer was lost, and the time that it asked for has come: it is told of its grant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_the_time_that_was_asked_for_gets_the_same_reservation() {
    let scene = Scene::with_coins("expiry", 2).await;
    let client = scene.client();
    let until = SystemTime::now() + LIFE;
    let expiration = Some(v1::reserve_utxos_request::Expiration::ExpireTime(until.into()));
    let request = v1::ReserveUtxosRequest { expiration, ..reserve(10_000) };
    let granted = client.reserve_utxos(request.clone()).await.unwrap().reservation.unwrap();
    let remaining = Duration::try_from(granted.remaining.unwrap()).unwrap();
    assert!(Duration::ZERO < remaining && remaining <= LIFE, "{remaining:?}");

    while SystemTime::now() <= until {
        tokio::time::sleep(Duration::from_millis(50)).await; // what is waited for is a time
    }
    let again = client.reserve_utxos(request.clone()).await.unwrap().reservation.unwrap();
    assert_eq!((&again.reservation_id, again.fence), (&granted.reservation_id, granted.fence));
    assert_eq!((names(&again), again.state()), (names(&granted), v1::ReservationState::Expired));
    let late = v1::ReserveUtxosRequest { request_id: fresh_id(), ..request };
    let refused = client.reserve_utxos(late).await.unwrap_err();
    assert!(refused.is(reason::FIELD_INVALID), "{refused}");
    scene.finish();
}
