//! What a stream tells of reservations that come, are renewed and end.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use onespend_adapters::chain::fake::FakeChain;
use onespend_core::command::{Command, Reserve};
use onespend_core::outcome::Outcome;
use tokio_stream::StreamExt;
use v1::ReservationState::{Active, Released};

use super::*;
use crate::grpc::status;
use crate::raft::StateView;
use crate::specimen::{self, Coin, accept, apply_to, coin, register, request, started, wallet};

const TTL: Millis = Millis(60_000);

fn reserve(view: &StateView, n: u32) -> ReservationId {
    let command = Reserve { wallet: wallet("w"), outpoints: vec![coin(n)], ttl: TTL, payment: None, selected: false };
    match apply_to(view, Some(request(&format!("q{n}"))), Command::Reserve(command)) {
        Outcome::Reserved { reservation, .. } => reservation,
        other => panic!("{other:?}"),
    }
}

/// Three reservations; then the first was renewed and the second given back.
fn state() -> (StateView, [ReservationId; 3]) {
    let view = started();
    accept(&view, register("w", &[Coin::of(1_000), Coin::of(2_000), Coin::of(3_000)]));
    let ids = [0, 1, 2].map(|n| reserve(&view, n));
    let renew = Command::Renew { reservation: ids[0], ttl: TTL, fence: None };
    assert!(matches!(apply_to(&view, Some(request("renew")), renew), Outcome::Renewed { .. }));
    let release = Command::Release { reservation: ids[1], fence: None };
    assert_eq!(apply_to(&view, Some(request("release")), release), Outcome::Released);
    (view, ids)
}

/// Everything that a caller is told who follows from an index: names, states, and where to resume.
fn told(view: &StateView, filter: &Filter, from: u64) -> Vec<(String, v1::ReservationState, u64)> {
    let (mut all, mut at) = (vec![], Told { index: LogIndex(from), within: None });
    loop {
        let (batch, up_to, more) = view.read(|state| changes(state, filter, &at, Millis(1)));
        for message in batch {
            let reservation = message.reservation.unwrap();
            let state = reservation.state();
            all.push((reservation.reservation_id, state, message.applied_index));
        }
        at = up_to;
        if !more {
            assert_eq!(at.index, view.read(State::applied));
            return all;
        }
    }
}

#[test]
fn each_reservation_is_told_once_at_its_last_change_and_as_it_is() {
    let (view, [renewed, released, untouched]) = state();
    let last = view.read(State::applied).0;
    let expected = vec![
        (untouched.to_string(), Active, last - 2),
        (renewed.to_string(), Active, last - 1),
        (released.to_string(), Released, last),
    ];
    assert_eq!(told(&view, &Filter::default(), 0), expected);
    assert_eq!(told(&view, &Filter::default(), last - 2), expected[1..]);
    assert!(told(&view, &Filter::default(), last).is_empty());
}

#[test]
fn only_what_was_asked_for_is_told() {
    let (view, [renewed, released, _]) = state();
    let named = Filter { reservation: Some(renewed), ..Filter::default() };
    let names = |filter: &Filter| told(&view, filter, 0).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    assert_eq!(names(&named), [renewed.to_string()]);
    let other = Filter { wallet: Some(wallet("other")), reservation: None };
    assert_eq!(names(&other), [released.to_string()], "of one that ended the wallet is not remembered");
}

/// A node that restarted, or received a snapshot, does not know which entry changed what.
#[test]
fn a_caller_who_resumes_at_a_node_that_loaded_later_is_told_everything_and_misses_nothing() {
    let (view, ids) = state();
    let mut loaded = view.read(State::clone);
    loaded.finish_loading();
    let at = Told { index: LogIndex(loaded.applied().0 - 1), within: None };
    let (batch, up_to, more) = changes(&loaded, &Filter::default(), &at, Millis(1));
    assert_eq!((batch.len(), more), (ids.len(), false));
    assert_eq!(up_to.index, loaded.applied());
    // Until the last one of them a caller has to resume before.
    let last = loaded.applied().0;
    let places: Vec<u64> = batch.iter().map(|message| message.applied_index).collect();
    assert_eq!(places, [last - 1, last - 1, last]);
    let (batch, ..) = changes(&loaded, &Filter::default(), &up_to, Millis(1));
    assert!(batch.is_empty());
}

/// safety 31: the node that differs stops serving, streams included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outvoted_node_opens_no_stream_and_ends_those_that_are_open() {
    let folder = tempfile::TempDir::new().unwrap();
    let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
    let asked = v1::WatchReservationsRequest::default();
    let mut open = watch_reservations(&api, &asked).unwrap();
    assert!(open.next().await.unwrap().unwrap().reservation.is_none(), "a mark of progress");

    api.alarms.raise(crate::agreement::MISMATCH, "on purpose");
    let release = Command::Release { reservation: ReservationId(1), fence: None };
    api.replica.propose(None, release, Instant::now() + Duration::from_secs(5)).await.unwrap();
    let broken = open.next().await.unwrap().unwrap_err();
    assert!(status::is_for(&broken, v1::ErrorReason::NotServing), "{broken:?}");
    assert!(open.next().await.is_none(), "the stream has ended");
    assert!(watch_reservations(&api, &asked).is_err());
}
