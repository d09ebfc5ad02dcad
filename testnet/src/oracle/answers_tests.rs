//! Answers that must be flagged, and those that must not.

use super::*;
use crate::history::AttemptSeen;

fn call(request: &str, from_ms: u64, to_ms: u64, asked: Asked, answer: Answer) -> Call {
    Call {
        caller: 1,
        request_id: request.to_owned(),
        via: "haproxy".to_owned(),
        start_ns: from_ms * NS_PER_MS,
        end_ns: to_ms * NS_PER_MS,
        asked,
        must_fail: None,
        answer,
    }
}

fn granted(id: &str, index: u64) -> Answer {
    let at = Position { index, term: 1 };
    Answer::Granted { reservation_id: id.to_owned(), fence: 1, outpoints: vec!["c:0".to_owned()], at }
}

fn refused(reason: &str) -> Answer {
    let (code, reason) = ("Aborted".to_owned(), reason.to_owned());
    Answer::Refused { code, reason, message: String::new(), conflicts: Vec::new() }
}

fn reserve(request: &str, from_ms: u64, answer: Answer) -> Call {
    call(request, from_ms, from_ms + 5, Asked::Reserve { outpoints: vec![], ttl_ms: Some(1_000) }, answer)
}

fn payment(txid: &str) -> PaymentSeen {
    let attempt = AttemptSeen { number: 1, fence: 5, txid: txid.to_owned(), ..AttemptSeen::default() };
    PaymentSeen { payment_id: "p1".to_owned(), amount_sat: 7, attempts: vec![attempt], ..PaymentSeen::default() }
}

fn pay(request: &str, from_ms: u64, index: u64, txid: &str) -> Call {
    let asked = Asked::Pay { payment_id: "p1".to_owned(), amount_sat: 7 };
    let answer = Answer::Paid { payment: payment(txid), at: Position { index, term: 1 } };
    call(request, from_ms, from_ms + 5, asked, answer)
}

#[test]
fn another_answer_to_the_same_request_is_caught() {
    let first = reserve("a", 0, granted("r-1", 1));
    assert_eq!(judge(&[first.clone(), reserve("a", 10, granted("r-1", 3))]).len(), 0, "the position goes on");
    assert_eq!(judge(&[first.clone(), reserve("a", 10, granted("r-2", 2))]).len(), 1);
    assert_eq!(judge(&[first.clone(), reserve("a", 10, refused("OUTPOINT_RESERVED"))]).len(), 1);
    assert_eq!(judge(&[first.clone(), reserve("a", 10, refused("NOT_LEADER"))]).len(), 0);
    assert_eq!(judge(&[reserve("a", 10, refused("OUTPOINT_RESERVED")), reserve("a", 20, granted("r-2", 2))]).len(), 1);
    let mut other_caller = reserve("a", 10, granted("r-2", 2));
    other_caller.caller = 2;
    assert_eq!(judge(&[first, other_caller]).len(), 0);
}

/// A request is decided once, also where it is refused.
#[test]
fn another_decided_refusal_of_the_same_request_is_caught() {
    let at = |from_ms, reason: &str| reserve("a", from_ms, refused(reason));
    assert_eq!(judge(&[at(0, "OUTPOINT_RESERVED"), at(10, "OUTPOINT_RESERVED")]).len(), 0);
    assert_eq!(judge(&[at(0, "OUTPOINT_RESERVED"), at(10, "OUTPOINT_SPENT")]).len(), 1);
    assert_eq!(judge(&[at(0, "RESERVATION_EXPIRED"), at(10, "STALE_FENCE")]).len(), 1);
    assert_eq!(judge(&[at(0, "NOT_OWNER"), at(2, "PAYMENT_ID_REUSED")]).len(), 1, "also where they overlap");
    assert_eq!(judge(&[at(0, "OUTPOINT_RESERVED"), at(10, "CHAIN_NOT_SYNCED"), at(20, "OUTPOINT_RESERVED")]).len(), 0);
    let lie = |from_ms, reason| Call { must_fail: Some("the fence is not that of the grant"), ..at(from_ms, reason) };
    assert_eq!(judge(&[lie(0, "STALE_FENCE"), lie(10, "RESERVATION_EXPIRED")]).len(), 1, "a lie has one answer, too");
    assert_eq!(judge(&[at(0, "OUTPOINT_RESERVED"), lie(10, "STALE_FENCE")]).len(), 0, "an id that was used before");
    let other_caller = Call { caller: 2, ..at(10, "OUTPOINT_SPENT") };
    assert_eq!(judge(&[at(0, "OUTPOINT_RESERVED"), other_caller]).len(), 0);
}

/// The leader refuses by itself what it sees at once; only the log's decision is remembered.
#[test]
fn a_refusal_from_before_the_decision_may_be_for_another_reason_and_one_from_after_it_may_not() {
    let sign = |from_ms, reason| {
        let (payment_id, reservation_id) = ("p1".to_owned(), "r-1".to_owned());
        let asked = Asked::Sign { payment_id, amount_sat: 7, reservation_id, fence: 1 };
        call("a", from_ms, from_ms + 5, asked, refused(reason))
    };
    let (checked, decided) = ("FOREIGN_INPUT", "RESERVATION_EXPIRED");
    assert_eq!(judge(&[sign(0, checked), sign(10, decided)]).len(), 0, "its answer was lost before");
    assert_eq!(judge(&[sign(0, decided), sign(3, checked)]).len(), 0, "checked before it was decided, perhaps");
    assert_eq!(judge(&[sign(0, decided), sign(10, checked)]).len(), 1, "it had its answer");
    assert_eq!(judge(&[sign(0, checked), sign(10, "OUTPUT_INVALID")]).len(), 0, "nothing was decided");
    let several = [sign(0, checked), sign(10, decided), sign(20, decided), sign(30, "STALE_FENCE")];
    assert_eq!(judge(&several).len(), 1);
}

fn reserve_until(request: &str, from_ms: u64, answer: Answer) -> Call {
    call(request, from_ms, from_ms + 5, Asked::Reserve { outpoints: vec![], ttl_ms: None }, answer)
}

#[test]
fn a_time_that_is_out_of_bounds_for_one_leader_is_no_answer_and_takes_none_back() {
    let refused_for_time = |from_ms| reserve_until("a", from_ms, refused("FIELD_INVALID"));
    let granted_at = |from_ms| reserve_until("a", from_ms, granted("r-1", 1));
    assert_eq!(judge(&[refused_for_time(0), granted_at(10)]).len(), 0, "another leader has another clock");
    assert_eq!(judge(&[granted_at(10), refused_for_time(12)]).len(), 0, "it was judged before the grant, perhaps");
    assert_eq!(judge(&[granted_at(0), refused_for_time(10)]).len(), 1, "it had its answer");
    assert_eq!(judge(&[granted_at(0), reserve_until("a", 10, granted("r-2", 2))]).len(), 1, "granted twice");
    assert_eq!(judge(&[granted_at(0), reserve_until("a", 10, refused("OUTPOINT_RESERVED"))]).len(), 1);
    // Without a time there is nothing that could have changed.
    let plain = [reserve("a", 0, refused("FIELD_INVALID")), reserve("a", 10, granted("r-1", 1))];
    assert_eq!(judge(&plain).len(), 1);
}

#[test]
fn a_grant_whose_answer_was_lost_is_not_refused_for_its_time_later() {
    let lost = Answer::Unknown { code: "Unavailable".to_owned(), message: "transport error".to_owned() };
    let first = call("a", 0, 1, Asked::Reserve { outpoints: vec![], ttl_ms: None }, lost);
    let refused_at = |from_ms| reserve_until("a", from_ms, refused("FIELD_INVALID"));
    let at = Position { index: 9, term: 1 };
    let shown = |fence| {
        let answer = Answer::Granted { reservation_id: "r-5".to_owned(), fence, outpoints: vec!["c:0".to_owned()], at };
        reserve_until("a", 20, answer)
    };
    // Somebody else's answer, at 7 ms: by then the log had the entry with index 7.
    let other = reserve("b", 2, granted("r-7", 7));
    let judged = |refused_ms, fence| judge(&[first.clone(), other.clone(), refused_at(refused_ms), shown(fence)]).len();
    assert_eq!(judged(10, 5), 1, "the log had the grant when it was refused");
    assert_eq!(judged(10, 7), 1);
    assert_eq!(judged(10, 8), 0, "nothing shows that the log had it before the answer");
    assert_eq!(judged(6, 5), 0, "it was refused before that, perhaps");
    assert_eq!(judged(10, (1 << 48) + 5), 0, "a fence of a later epoch is no log index");
    let other_caller = Call { caller: 2, ..refused_at(10) };
    assert_eq!(judge(&[first.clone(), other.clone(), other_caller, shown(5)]).len(), 0, "another one's request");
    assert_eq!(judge(&[first, other, refused_at(10)]).len(), 0, "nobody knows whether it was granted");
    // An answer to a renewal names no entry.
    let renew = |from_ms, answer| {
        let asked = Asked::Renew { reservation_id: "r-1".to_owned(), fence: 1, ttl_ms: None };
        call("c", from_ms, from_ms + 5, asked, answer)
    };
    let done = Answer::Done { at: Position { index: 9, term: 1 } };
    let refused = || refused("FIELD_INVALID");
    assert_eq!(judge(&[renew(0, refused()), renew(10, done.clone())]).len(), 0);
    assert_eq!(judge(&[renew(0, done), renew(10, refused())]).len(), 1);
}

/// safety 2: all or none of the coins that were asked for, and no others.
#[test]
fn a_grant_of_other_coins_than_were_asked_for_is_caught() {
    let granted = |asked: &[&str], coins: &[&str]| {
        let named = |coins: &[&str]| coins.iter().map(|coin| (*coin).to_owned()).collect::<Vec<_>>();
        let at = Position { index: 1, term: 1 };
        let answer = Answer::Granted { reservation_id: "r-1".to_owned(), fence: 1, outpoints: named(coins), at };
        judge(&[call("a", 0, 5, Asked::Reserve { outpoints: named(asked), ttl_ms: Some(1_000) }, answer)]).len()
    };
    assert_eq!(granted(&["c:0", "d:0"], &["d:0", "c:0"]), 0, "in another order");
    assert_eq!(granted(&[], &["c:0"]), 0, "the service chose");
    assert_eq!(granted(&["c:0", "d:0"], &["c:0"]), 1, "a part");
    assert_eq!(granted(&["c:0"], &["c:0", "d:0"]), 1, "more");
    assert_eq!(granted(&["c:0"], &["d:0"]), 1, "another");
    assert_eq!(granted(&["c:0", "d:0"], &["c:0", "c:0"]), 1, "one of them twice");
    assert_eq!(granted(&["c:0"], &[]), 1, "none");
}

#[test]
fn another_transaction_for_the_same_request_is_caught() {
    assert_eq!(judge(&[pay("a", 0, 1, "t1"), pay("a", 10, 2, "t1")]).len(), 0);
    assert_eq!(judge(&[pay("a", 0, 1, "t1"), pay("a", 10, 2, "t2")]).len(), 1);
}

fn bump(request: &str, from_ms: u64, index: u64, number: u32, txid: &str) -> Call {
    let mut payment = payment("t1");
    payment.attempts.push(AttemptSeen { number, fence: 6, txid: txid.to_owned(), ..AttemptSeen::default() });
    let answer = Answer::Replaced { payment, attempt: number, at: Position { index, term: 1 } };
    call(request, from_ms, from_ms + 5, Asked::Bump { payment_id: "p1".to_owned() }, answer)
}

#[test]
fn another_replacement_for_the_same_request_is_caught() {
    let first = bump("a", 0, 1, 2, "t2");
    assert_eq!(judge(&[first.clone(), bump("a", 10, 2, 2, "t2")]).len(), 0);
    assert_eq!(judge(&[first.clone(), bump("a", 10, 2, 2, "t3")]).len(), 1, "other bytes");
    assert_eq!(judge(&[first.clone(), bump("a", 10, 2, 3, "t3")]).len(), 1, "one more attempt");
    assert_eq!(judge(&[first.clone(), bump("b", 10, 2, 3, "t3")]).len(), 0, "another request");
    assert_eq!(judge_remains(&[first], &Remains { payments: vec![payment("t1")], ..Remains::default() }).len(), 1);
}

#[test]
fn an_address_for_two_requests_and_two_for_one_are_caught() {
    let address = |request, from_ms, index, script: &str| {
        let answer = Answer::Address { script: script.to_owned(), at: Position { index, term: 1 } };
        call(request, from_ms, from_ms + 5, Asked::Address, answer)
    };
    let first = address("a", 0, 1, "0014aa");
    assert_eq!(judge(&[first.clone(), address("a", 10, 2, "0014aa"), address("b", 20, 3, "0014bb")]).len(), 0);
    assert_eq!(judge(&[first.clone(), address("a", 10, 2, "0014bb")]).len(), 1, "the retry got another");
    assert_eq!(judge(&[first.clone(), address("b", 10, 2, "0014aa")]).len(), 1, "two requests got one");
    let other_caller = Call { caller: 2, ..address("a", 10, 2, "0014aa") };
    assert_eq!(judge(&[first, other_caller]).len(), 1, "so did two callers");
}

#[test]
fn an_accepted_lie_is_caught() {
    let mut lie = reserve("a", 0, granted("r-1", 1));
    lie.must_fail = Some("the request id was used for something else");
    assert_eq!(judge(&[lie.clone()]).len(), 1);
    lie.answer = refused("REQUEST_ID_REUSED");
    assert_eq!(judge(&[lie]).len(), 0);
}

#[test]
fn a_refusal_without_a_reason_and_a_defect_are_caught() {
    assert_eq!(judge(&[reserve("a", 0, refused(""))]).len(), 1);
    let defect = Answer::Unknown { code: "Internal".to_owned(), message: "odd: please report this".to_owned() };
    assert_eq!(judge(&[reserve("a", 0, defect)]).len(), 1);
    let lost = Answer::Unknown { code: "Unavailable".to_owned(), message: "transport error".to_owned() };
    assert_eq!(judge(&[reserve("a", 0, lost)]).len(), 0);
}

#[test]
fn a_log_that_goes_back_is_caught() {
    let (early, late) = (reserve("a", 0, granted("r-9", 9)), reserve("b", 10, granted("r-3", 3)));
    assert_eq!(judge(&[early.clone(), late]).len(), 1);
    let mut under_way = reserve("b", 10, granted("r-3", 3));
    under_way.start_ns = 4 * NS_PER_MS;
    assert_eq!(judge(&[early.clone(), under_way]).len(), 0, "they overlap");
    // What is repeated by a node that lags was asked for before.
    let asked = Asked::Release { reservation_id: "r-9".to_owned(), fence: 9 };
    let done = |index| Answer::Done { at: Position { index, term: 1 } };
    let release = |request, from_ms, index| call(request, from_ms, from_ms + 1, asked.clone(), done(index));
    let repeated = [release("c", 20, 12), release("d", 22, 14), release("c", 30, 13)];
    assert_eq!(judge(&repeated).len(), 0);
    assert_eq!(judge(&[&repeated[..], &[release("e", 40, 14)]].concat()).len(), 1, "one entry for two requests");
    let mut later_term = reserve("b", 10, granted("r-12", 12));
    later_term.answer = Answer::Done { at: Position { index: 12, term: 0 } };
    assert_eq!(judge(&[early.clone(), later_term.clone()]).len(), 1, "a term that goes back");
    later_term.answer = Answer::Done { at: Position { index: 9, term: 2 } };
    later_term.start_ns = 0;
    assert_eq!(judge(&[early, later_term]).len(), 1, "one index in two terms");
}

#[test]
fn a_payment_that_a_later_read_does_not_find_is_caught() {
    let look = |from_ms| {
        let asked = Asked::Look { payment_id: "p1".to_owned() };
        call("look", from_ms, from_ms + 1, asked, refused("PAYMENT_UNKNOWN"))
    };
    assert_eq!(judge(&[pay("a", 0, 1, "t1"), look(10)]).len(), 1);
    assert_eq!(judge(&[pay("a", 0, 1, "t1"), look(3)]).len(), 0);
}

#[test]
fn an_acknowledged_payment_that_is_gone_or_another_is_caught() {
    let calls = [pay("a", 0, 1, "t1")];
    let remains = |payments| Remains { payments, ..Remains::default() };
    assert_eq!(judge_remains(&calls, &remains(vec![payment("t1")])).len(), 0);
    assert_eq!(judge_remains(&calls, &remains(vec![])).len(), 1);
    assert_eq!(judge_remains(&calls, &remains(vec![payment("t2")])).len(), 1);
    let richer = PaymentSeen { amount_sat: 8, ..payment("t1") };
    assert_eq!(judge_remains(&calls, &remains(vec![richer])).len(), 1);
}

#[test]
fn an_acknowledged_reservation_that_is_gone_too_early_is_caught() {
    let grant = reserve("a", 0, granted("r-1", 1));
    let at = |ms: u64, active: &[(&str, &str)]| Remains {
        active: active.iter().map(|(id, coin)| ((*id).to_owned(), BTreeSet::from([(*coin).to_owned()]))).collect(),
        asked_ns: ms * NS_PER_MS,
        answered_ns: (ms + 5) * NS_PER_MS,
        ..Remains::default()
    };
    let calls = [grant.clone()];
    assert_eq!(judge_remains(&calls, &at(500, &[("r-1", "c:0")])).len(), 0);
    assert_eq!(judge_remains(&calls, &at(500, &[])).len(), 1);
    assert_eq!(judge_remains(&calls, &at(1_000, &[])).len(), 0, "expired");
    let until = [reserve_until("a", 0, granted("r-1", 1))];
    assert_eq!(judge_remains(&until, &at(500, &[])).len(), 1, "no reservation is that short");
    assert_eq!(judge_remains(&until, &at(1_000, &[])).len(), 0, "nobody knows for how long it was");
    assert_eq!(judge_remains(&calls, &at(500, &[("r-1", "d:0")])).len(), 1, "other coins");
    let asked = Asked::Release { reservation_id: "r-1".to_owned(), fence: 1 };
    let released = call("b", 10, 20, asked, Answer::Done { at: Position { index: 2, term: 1 } });
    let calls = [grant, released];
    assert_eq!(judge_remains(&calls, &at(500, &[])).len(), 0);
    assert_eq!(judge_remains(&calls, &at(500, &[("r-1", "c:0")])).len(), 1);
}
