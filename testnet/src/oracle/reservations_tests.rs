//! Histories that must be flagged, and those that must not.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::history::{AttemptSeen, PaymentSeen, Position};

const TTL_MS: u64 = 1_000;

fn ms(ms: u64) -> Nanos {
    ms * NS_PER_MS
}

fn call(request: &str, from_ms: u64, to_ms: u64, asked: Asked, answer: Answer) -> Call {
    Call {
        caller: 1,
        request_id: request.to_owned(),
        via: "node-1".to_owned(),
        start_ns: ms(from_ms),
        end_ns: ms(to_ms),
        asked,
        must_fail: None,
        answer,
    }
}

fn reserve(request: &str, from_ms: u64, to_ms: u64, answer: Answer) -> Call {
    let asked = Asked::Reserve { outpoints: vec!["c:0".to_owned()], ttl_ms: Some(TTL_MS) };
    call(request, from_ms, to_ms, asked, answer)
}

/// Until a time of the wall clock.
fn reserve_until(request: &str, from_ms: u64, to_ms: u64, answer: Answer) -> Call {
    let asked = Asked::Reserve { outpoints: vec!["c:0".to_owned()], ttl_ms: None };
    call(request, from_ms, to_ms, asked, answer)
}

fn granted(id: &str) -> Answer {
    let outpoints = vec!["c:0".to_owned()];
    Answer::Granted { reservation_id: id.to_owned(), fence: 1, outpoints, at: Position::default() }
}

fn unknown() -> Answer {
    Answer::Unknown { code: "Unavailable".to_owned(), message: String::new() }
}

fn refused() -> Answer {
    let (code, reason) = ("Aborted".to_owned(), "OUTPOINT_RESERVED".to_owned());
    Answer::Refused { code, reason, message: String::new(), conflicts: vec!["c:0".to_owned()] }
}

fn done() -> Answer {
    Answer::Done { at: Position::default() }
}

fn release(request: &str, id: &str, from_ms: u64, to_ms: u64, answer: Answer) -> Call {
    call(request, from_ms, to_ms, Asked::Release { reservation_id: id.to_owned(), fence: 1 }, answer)
}

fn renew(request: &str, id: &str, ttl_ms: u64, from_ms: u64, to_ms: u64, answer: Answer) -> Call {
    let asked = Asked::Renew { reservation_id: id.to_owned(), fence: 1, ttl_ms: Some(ttl_ms) };
    call(request, from_ms, to_ms, asked, answer)
}

fn paid(payment: &str, coin: &str) -> Answer {
    let attempt = AttemptSeen { number: 1, inputs: vec![coin.to_owned()], ..AttemptSeen::default() };
    let payment = PaymentSeen { payment_id: payment.to_owned(), attempts: vec![attempt], ..PaymentSeen::default() };
    Answer::Paid { payment, at: Position::default() }
}

fn pay(payment: &str, from_ms: u64, to_ms: u64) -> Call {
    let asked = Asked::Pay { payment_id: payment.to_owned(), amount_sat: 1 };
    call(payment, from_ms, to_ms, asked, paid(payment, "c:0"))
}

fn sign(payment: &str, reservation: &str, from_ms: u64, to_ms: u64) -> Call {
    let asked =
        Asked::Sign { payment_id: payment.to_owned(), amount_sat: 1, reservation_id: reservation.to_owned(), fence: 1 };
    call(payment, from_ms, to_ms, asked, paid(payment, "c:0"))
}

fn faults(calls: &[Call]) -> usize {
    judge(calls, &Deaths::new()).len()
}

#[test]
fn two_grants_of_one_coin_at_once_are_caught() {
    assert_eq!(faults(&[reserve("a", 0, 10, granted("r-1")), reserve("b", 20, 30, granted("r-2"))]), 1);
    // In either order of their answers.
    assert_eq!(faults(&[reserve("b", 20, 30, granted("r-2")), reserve("a", 0, 10, granted("r-1"))]), 1);
    assert_eq!(faults(&[reserve("a", 0, 10, granted("r-1")), reserve("b", 20, 30, refused())]), 0);
}

#[test]
fn a_grant_after_release_or_expiry_is_fine() {
    let first = reserve("a", 0, 10, granted("r-1"));
    let released = release("c", "r-1", 15, 18, done());
    assert_eq!(faults(&[first.clone(), released, reserve("b", 16, 30, granted("r-2"))]), 0);
    assert_eq!(faults(&[first.clone(), reserve("b", 900, 1_100, granted("r-2"))]), 0, "it may have expired");
    assert_eq!(faults(&[first, reserve("b", 500, 600, granted("r-2"))]), 1, "it cannot have expired");
}

#[test]
fn a_release_without_an_answer_may_have_freed_and_a_refused_one_has_not() {
    let first = reserve("a", 0, 10, granted("r-1"));
    let second = reserve("b", 500, 600, granted("r-2"));
    assert_eq!(faults(&[first.clone(), release("c", "r-1", 20, 30, unknown()), second.clone()]), 0);
    assert_eq!(faults(&[first, release("c", "r-1", 20, 30, refused()), second]), 1);
}

#[test]
fn what_is_done_with_a_reservation_that_was_given_back_is_caught() {
    let before = [reserve("a", 0, 10, granted("r-1")), release("c", "r-1", 20, 30, done())];
    let after = |calls: &[Call]| faults(&[&before[..], calls].concat());
    let late = renew("w", "r-1", 1_000, 40, 50, done());
    assert_eq!(after(std::slice::from_ref(&late)), 1);
    assert_eq!(after(&[sign("p1", "r-1", 40, 50)]), 1);
    for answer in [refused(), unknown()] {
        assert_eq!(after(&[renew("w", "r-1", 1_000, 40, 50, answer)]), 0);
    }
    assert_eq!(after(&[renew("w", "r-1", 1_000, 29, 50, done())]), 0, "it may have come before the release");
    assert_eq!(after(&[renew("w", "r-2", 1_000, 40, 50, done())]), 0, "another one");
    assert_eq!(after(&[sign("p1", "r-2", 1_040, 1_050)]), 0, "another one");
    // An answer that is repeated: its first try may have been applied, unless it was refused.
    let first = |answer| renew("w", "r-1", 1_000, 15, 25, answer);
    assert_eq!(after(&[first(unknown()), late.clone()]), 0);
    assert_eq!(after(&[first(refused()), late.clone()]), 1);
    // Where nobody knows whether it was given back, and where it was not.
    for answer in [unknown(), refused()] {
        assert_eq!(faults(&[before[0].clone(), release("c", "r-1", 20, 30, answer), late.clone()]), 0);
    }
}

#[test]
fn a_grant_counts_from_the_first_try_of_its_request() {
    // The first try may have been the one that was granted, so its time is over at 1000.
    let tries = [reserve("a", 0, 100, unknown()), reserve("a", 900, 910, granted("r-1"))];
    assert_eq!(faults(&[tries[0].clone(), tries[1].clone(), reserve("b", 1_001, 1_010, granted("r-2"))]), 0);
    assert_eq!(faults(&[tries[0].clone(), tries[1].clone(), reserve("b", 911, 920, granted("r-2"))]), 1);
}

#[test]
fn a_renewal_moves_the_end_and_one_without_an_answer_only_brings_it_nearer() {
    let first = reserve("a", 0, 10, granted("r-1"));
    let late = reserve("b", 1_500, 1_600, granted("r-2"));
    assert_eq!(faults(&[first.clone(), renew("w", "r-1", 1_000, 800, 810, done()), late.clone()]), 1);
    assert_eq!(faults(&[first.clone(), renew("w", "r-1", 1_000, 800, 810, unknown()), late.clone()]), 0);
    let early = reserve("b", 500, 600, granted("r-2"));
    assert_eq!(faults(&[first.clone(), renew("w", "r-1", 100, 20, 30, unknown()), early.clone()]), 0);
    // A long renewal that is repeated after a short one is not done again.
    let short_again = [
        first,
        renew("w", "r-1", 5_000, 20, 30, done()),
        renew("x", "r-1", 1_000, 40, 50, done()),
        renew("w", "r-1", 5_000, 60, 70, done()),
    ];
    assert_eq!(faults(&[&short_again[..], &[late]].concat()), 0);
    assert_eq!(faults(&[&short_again[..], &[early]].concat()), 1);
}

/// By its own clock the leader may have made a second of it, or a day; but it was granted at some moment.
#[test]
fn of_a_grant_until_a_time_only_the_shortest_length_is_believed() {
    let until = reserve_until("a", 0, 10, granted("r-1"));
    assert_eq!(faults(&[until.clone(), reserve("b", 500, 600, granted("r-2"))]), 1, "no reservation is that short");
    assert_eq!(faults(&[until.clone(), reserve("b", 1_000, 1_100, granted("r-2"))]), 0, "its caller meant more");
    assert_eq!(faults(&[reserve("a", 0, 10, granted("r-1")), reserve_until("b", 500, 600, granted("r-2"))]), 1);
    let holder = [reserve("a", 0, 10, granted("r-1")), renew("w", "r-1", 60_000, 20, 30, done())];
    let slow = reserve_until("b", 100, 3_000, granted("r-2"));
    assert_eq!(faults(&[&holder[..], &[slow]].concat()), 1, "it had to be granted at some moment");
    // A renewal may have brought the end nearer, by a wrong clock, but not below the shortest.
    let asked = Asked::Renew { reservation_id: "r-1".to_owned(), fence: 1, ttl_ms: None };
    let renewed = [&holder[..], &[call("x", 100, 110, asked, done())]].concat();
    assert_eq!(faults(&[&renewed[..], &[reserve("b", 1_000, 1_090, granted("r-2"))]].concat()), 1);
    assert_eq!(faults(&[&renewed[..], &[reserve("b", 1_100, 1_200, granted("r-2"))]].concat()), 0);
}

#[test]
fn a_grant_that_was_over_before_it_was_answered_still_had_to_happen() {
    let holder = [reserve("a", 0, 10, granted("r-1")), renew("w", "r-1", 60_000, 20, 30, done())];
    let slow = reserve("b", 100, 3_000, granted("r-2"));
    assert_eq!(faults(&[&holder[..], &[slow]].concat()), 1);
}

#[test]
fn one_id_for_two_requests_is_caught_and_a_repeated_answer_is_not() {
    let first = reserve("a", 0, 10, granted("r-1"));
    let mut other = reserve("b", 2_000, 2_010, granted("r-1"));
    assert_eq!(faults(&[first.clone(), first.clone()]), 0);
    assert_eq!(faults(&[first.clone(), other.clone()]), 1);
    other.request_id = "a".to_owned();
    other.caller = 2;
    assert_eq!(faults(&[first, other]), 1);
}

#[test]
fn what_is_signed_away_is_granted_to_nobody() {
    let payment = pay("p1", 0, 10);
    assert_eq!(faults(&[payment.clone(), reserve("a", 3_600_000, 3_600_010, granted("r-1"))]), 1);
    assert_eq!(faults(&[payment.clone(), reserve("a", 5, 20, granted("r-1"))]), 0, "it may have come before");
}

/// The only attempt of `p1` is dead, not before a moment.
fn dead_from(from_ms: u64) -> Deaths {
    Deaths::from([(("p1".to_owned(), 1), ms(from_ms))])
}

#[test]
fn a_coin_that_is_granted_anew_before_the_attempt_that_spends_it_is_dead_is_caught() {
    let calls = [pay("p1", 0, 10), reserve("a", 500, 510, granted("r-1"))];
    assert_eq!(judge(&calls, &dead_from(400)), Vec::<String>::new());
    assert_eq!(judge(&calls, &dead_from(505)), Vec::<String>::new(), "the grant may have come after it");
    assert_eq!(judge(&calls, &dead_from(511)).len(), 1, "not yet final when the grant was answered");
    assert_eq!(judge(&calls, &dead_from(9_000)).len(), 1);
}

#[test]
fn a_coin_whose_attempt_is_dead_was_still_taken_from_whoever_held_it() {
    let holder = [reserve("a", 0, 10, granted("r-1")), renew("w", "r-1", 60_000, 20, 30, done())];
    let calls = [&holder[..], &[pay("p1", 100, 110)]].concat();
    assert_eq!(judge(&calls, &dead_from(400)).len(), 1);
}

#[test]
fn a_coin_goes_to_another_payment_when_the_first_is_dead_and_not_before() {
    let calls = [pay("p1", 0, 10), pay("p2", 500, 510)];
    assert_eq!(judge(&calls, &dead_from(400)), Vec::<String>::new());
    assert_eq!(judge(&calls, &dead_from(600)).len(), 1);
    // Nor the other way round: the second never let go of it.
    assert_eq!(judge(&[pay("p2", 0, 10), pay("p1", 500, 510)], &dead_from(900)).len(), 1);
}

#[test]
fn two_payments_with_one_coin_are_caught_whenever_they_came() {
    assert_eq!(faults(&[pay("p1", 0, 10), pay("p2", 9_000_000, 9_000_010)]), 1);
    assert_eq!(faults(&[pay("p1", 0, 10), pay("p1", 9_000, 9_010)]), 0);
}

#[test]
fn a_payment_takes_its_own_reservation_and_no_other() {
    let reservation = reserve("a", 0, 10, granted("r-1"));
    assert_eq!(faults(&[reservation.clone(), sign("p1", "r-1", 20, 30)]), 0);
    assert_eq!(faults(&[reservation.clone(), sign("p1", "r-9", 20, 30)]), 1);
    assert_eq!(faults(&[reservation, pay("p1", 20, 30)]), 1);
}
