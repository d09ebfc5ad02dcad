//! Refusals that nothing explains, and those that something might.

use super::*;
use crate::history::{AttemptSeen, Position};

const COIN: &str = "c:0";

fn call(request: &str, from_ms: u64, to_ms: u64, asked: Asked, answer: Answer) -> Call {
    Call {
        caller: 1,
        request_id: request.to_owned(),
        via: "node-1".to_owned(),
        start_ns: from_ms * NS_PER_MS,
        end_ns: to_ms * NS_PER_MS,
        asked,
        must_fail: None,
        answer,
    }
}

fn reserve(request: &str, from_ms: u64, to_ms: u64, coins: &[&str], answer: Answer) -> Call {
    let outpoints = coins.iter().map(|coin| (*coin).to_owned()).collect();
    call(request, from_ms, to_ms, Asked::Reserve { outpoints, ttl_ms: Some(1_000) }, answer)
}

fn granted(id: &str) -> Answer {
    let outpoints = vec![COIN.to_owned()];
    Answer::Granted { reservation_id: id.to_owned(), fence: 1, outpoints, at: Position::default() }
}

fn refused_for(reason: &str, conflicts: &[&str]) -> Answer {
    Answer::Refused {
        code: "Aborted".to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        conflicts: conflicts.iter().map(|coin| (*coin).to_owned()).collect(),
    }
}

fn refused() -> Answer {
    refused_for("OUTPOINT_RESERVED", &[COIN])
}

fn unknown() -> Answer {
    Answer::Unknown { code: "Unavailable".to_owned(), message: String::new() }
}

fn release(id: &str, from_ms: u64, to_ms: u64, answer: Answer) -> Call {
    call("release", from_ms, to_ms, Asked::Release { reservation_id: id.to_owned(), fence: 1 }, answer)
}

fn done() -> Answer {
    Answer::Done { at: Position::default() }
}

/// A coin is refused from 100 to 110 ms.
fn faults(before: &[Call]) -> usize {
    let refused = reserve("refused", 100, 110, &[COIN, "d:0"], refused());
    judge(&[before, &[refused]].concat(), &[], Nanos::MAX).len()
}

#[test]
fn a_coin_that_nobody_ever_had_is_not_refused() {
    assert_eq!(faults(&[]), 1);
    let other = Answer::Granted {
        reservation_id: "r-1".to_owned(),
        fence: 1,
        outpoints: vec!["d:0".to_owned()],
        at: Position::default(),
    };
    assert_eq!(faults(&[reserve("a", 0, 10, &["d:0"], other)]), 1, "another coin, which was not named");
    assert_eq!(faults(&[reserve("a", 111, 120, &[COIN], granted("r-1"))]), 1, "only later");
}

#[test]
fn a_reservation_explains_a_refusal_until_its_release_is_acknowledged() {
    let first = reserve("a", 0, 10, &[COIN], granted("r-1"));
    assert_eq!(faults(std::slice::from_ref(&first)), 0);
    assert_eq!(faults(&[first.clone(), release("r-1", 20, 30, done())]), 1);
    assert_eq!(faults(&[first.clone(), release("r-1", 20, 100, done())]), 0, "perhaps only then");
    assert_eq!(faults(&[first.clone(), release("r-1", 20, 30, unknown())]), 0);
    assert_eq!(faults(&[first.clone(), release("r-1", 20, 30, refused_for("STALE_FENCE", &[]))]), 0);
    assert_eq!(faults(&[first, release("r-9", 20, 30, done())]), 0, "another one was released");
    assert_eq!(faults(&[reserve("a", 105, 200, &[COIN], granted("r-1"))]), 0, "it may have come first");
    // Its time was over long ago, but nobody can say what time it is in the log.
    let old = reserve("a", 0, 10, &[COIN], granted("r-1"));
    let late = reserve("refused", 90_000, 90_010, &[COIN], refused());
    assert_eq!(judge(&[old, late], &[], Nanos::MAX).len(), 0);
}

#[test]
fn a_later_grant_of_the_coin_ends_the_one_before_it() {
    let first = reserve("a", 0, 10, &[COIN], granted("r-1"));
    let second = reserve("b", 20, 30, &[COIN], granted("r-2"));
    let back = release("r-2", 40, 50, done());
    assert_eq!(faults(&[first.clone(), second, back.clone()]), 1);
    let at_once = reserve("b", 5, 30, &[COIN], granted("r-2"));
    assert_eq!(faults(&[first, at_once, back]), 0, "the second may have been the first");
}

#[test]
fn a_refusal_counts_from_the_first_try_of_its_request() {
    let first = reserve("a", 0, 10, &[COIN], granted("r-1"));
    let (back, early) = (release("r-1", 20, 30, done()), reserve("refused", 25, 28, &[COIN], unknown()));
    assert_eq!(faults(&[first.clone(), back.clone(), early]), 0, "it may have been decided then");
    let late = reserve("refused", 35, 38, &[COIN], unknown());
    assert_eq!(faults(&[first, back, late]), 1);
}

#[test]
fn a_request_without_an_answer_may_hold_what_it_named_or_anything() {
    assert_eq!(faults(&[reserve("a", 0, 10, &[COIN], unknown())]), 0);
    assert_eq!(faults(&[reserve("a", 0, 10, &["d:0"], unknown())]), 1);
    assert_eq!(faults(&[reserve("a", 0, 10, &[], unknown())]), 0);
    assert_eq!(faults(&[reserve("a", 111, 120, &[], unknown())]), 1, "not before it was sent");
    // Asked again, and answered: then it holds what the answer says, or nothing.
    let tries = |last| [reserve("a", 0, 10, &[], unknown()), reserve("a", 20, 30, &[], last)];
    assert_eq!(faults(&tries(granted("r-1"))), 0);
    assert_eq!(faults(&tries(refused_for("RESERVATION_QUOTA", &[]))), 1);
    assert_eq!(faults(&tries(refused_for("NOT_LEADER", &[]))), 0, "that says nothing of the first");
    // A time is held against the clock of whoever leads; the first try may come to one whose clock says otherwise.
    let until = |from_ms, answer| {
        let asked = Asked::Reserve { outpoints: vec![COIN.to_owned()], ttl_ms: None };
        call("a", from_ms, from_ms + 10, asked, answer)
    };
    assert_eq!(faults(&[until(0, unknown()), until(20, refused_for("FIELD_INVALID", &[]))]), 0);
    assert_eq!(faults(&[until(0, unknown()), until(20, refused_for("OUTPOINT_UNKNOWN", &[]))]), 1);
    assert_eq!(faults(&[until(20, refused_for("FIELD_INVALID", &[]))]), 1, "never applied");
    // A buggy caller's request under the same name is another request.
    let mut buggy = reserve("a", 20, 30, &[], refused_for("REQUEST_ID_REUSED", &[]));
    buggy.must_fail = Some("reused");
    assert_eq!(faults(&[reserve("a", 0, 10, &[], unknown()), buggy]), 0);
}

#[test]
fn a_payment_explains_a_refusal_from_when_it_was_ordered() {
    let attempt = AttemptSeen { number: 2, inputs: vec![COIN.to_owned()], ..AttemptSeen::default() };
    let payment = PaymentSeen { payment_id: "p1".to_owned(), attempts: vec![attempt], ..PaymentSeen::default() };
    let refused = reserve("refused", 100, 110, &[COIN], refused());
    let ordered = |from_ms| {
        let asked = Asked::Pay { payment_id: "p1".to_owned(), amount_sat: 1 };
        let calls = [call("pay", from_ms, from_ms + 5, asked, unknown()), refused.clone()];
        judge(&calls, std::slice::from_ref(&payment), Nanos::MAX).len()
    };
    assert_eq!((ordered(50), ordered(110), ordered(111)), (0, 0, 1));
}

#[test]
fn what_the_harness_itself_may_have_held_is_not_judged() {
    let refused = reserve("refused", 100, 110, &[COIN], refused());
    assert_eq!(judge(std::slice::from_ref(&refused), &[], 110 * NS_PER_MS).len(), 1);
    assert_eq!(judge(&[refused], &[], 109 * NS_PER_MS).len(), 0);
}
