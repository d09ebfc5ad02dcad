//! Whether the callers' answers can be believed: the same request gets the same answer, what must be refused is
//! refused, the log's order is the order of time, and what was acknowledged is found later.

mod decided;

use std::collections::{BTreeMap, BTreeSet};

use super::reservations::least_ttl_ns;
use crate::history::{Answer, Asked, Call, Nanos, PaymentSeen, Position};

/// Reasons that say nothing of the request itself: another try may end otherwise.
const TRANSIENT: [&str; 8] = [
    "NOT_LEADER",
    "CHAIN_NOT_SYNCED",
    "OVERLOADED",
    "STORAGE_LOW",
    "ALARM",
    "NOT_SERVING",
    "INSUFFICIENT_FUNDS",
    "PAYMENT_UNRESOLVED",
];
/// The reason for a time that is past, or too far away.
pub const OUT_OF_TIME: &str = "FIELD_INVALID";
const NS_PER_MS: Nanos = 1_000_000;

/// Whether a refusal says nothing of the request itself, and so is not its answer. So does one for the time that a
/// request names: it is held against the clock of whoever leads, and another one's clock may say otherwise.
pub(super) fn is_passing(asked: &Asked, reason: &str) -> bool {
    TRANSIENT.contains(&reason) || (asked.names_a_time() && reason == OUT_OF_TIME)
}

/// What the service said in the end, when all was quiet.
#[derive(Clone, Debug, Default)]
pub struct Remains {
    /// Every payment.
    pub payments: Vec<PaymentSeen>,
    /// Every active reservation, with its coins as `txid:vout`.
    pub active: BTreeMap<String, BTreeSet<String>>,
    /// When the reservations were asked for.
    pub asked_ns: Nanos,
    /// When they were there.
    pub answered_ns: Nanos,
}

/// Every contradiction between the answers, in words.
pub fn judge(calls: &[Call]) -> Vec<String> {
    let mut faults = must_fail(calls);
    faults.extend(unexplained(calls));
    faults.extend(other_coins(calls));
    faults.extend(different_answers(calls));
    faults.extend(decided::judge(calls));
    faults.extend(out_of_time(calls));
    faults.extend(reused_scripts(calls));
    faults.extend(disorder(calls));
    faults.extend(terms_out_of_order(calls));
    faults.extend(vanished(calls));
    faults
}

/// What was acknowledged and is not there in the end, in words.
pub fn judge_remains(calls: &[Call], remains: &Remains) -> Vec<String> {
    let mut faults = lost_payments(calls, &remains.payments);
    faults.extend(lost_reservations(calls, remains));
    faults
}

fn must_fail(calls: &[Call]) -> Vec<String> {
    let lies = calls.iter().filter_map(|call| call.must_fail.map(|why| (call, why)));
    lies.filter(|(call, _)| call.is_acknowledged())
        .map(|(call, why)| said(call, &format!("was accepted: {why}")))
        .collect()
}

/// Answers that no caller should ever see.
fn unexplained(calls: &[Call]) -> Vec<String> {
    let mut faults = Vec::new();
    for call in calls {
        match &call.answer {
            Answer::Refused { code, reason, message, .. } if reason.is_empty() => {
                faults.push(said(call, &format!("was refused with {code} and no reason: {message}")));
            }
            Answer::Unknown { code, message } if message.contains("please report") => {
                faults.push(said(call, &format!("met a defect: {code} {message}")));
            }
            _ => {}
        }
    }
    faults
}

/// Grants of other coins than were asked for by name (safety 2).
fn other_coins(calls: &[Call]) -> Vec<String> {
    let sorted = |coins: &[String]| {
        let mut sorted = coins.to_vec();
        sorted.sort();
        sorted
    };
    let mut faults = Vec::new();
    for call in calls {
        let (Asked::Reserve { outpoints: asked, .. }, Answer::Granted { outpoints: granted, .. }) =
            (&call.asked, &call.answer)
        else {
            continue;
        };
        if !asked.is_empty() && sorted(asked) != sorted(granted) {
            faults.push(said(call, &format!("was granted {granted:?}")));
        }
    }
    faults
}

/// What makes two answers the same: ids and contents, not states, which go on.
fn identity(call: &Call) -> Option<String> {
    match &call.answer {
        Answer::Granted { reservation_id, fence, outpoints, .. } => {
            let coins: BTreeSet<&String> = outpoints.iter().collect();
            Some(format!("{reservation_id} {fence} {coins:?}"))
        }
        Answer::Done { .. } => Some("done".to_owned()),
        Answer::Address { script, .. } => Some(format!("the script {script}")),
        Answer::Paid { payment, .. } => {
            let first = payment.attempts.first().map(|attempt| (attempt.fence, &attempt.txid));
            Some(format!("{} {} {first:?}", payment.payment_id, payment.amount_sat))
        }
        Answer::Replaced { payment, attempt, .. } => {
            let made = payment.attempts.iter().find(|one| one.number == *attempt);
            let made = made.map(|attempt| (attempt.fence, &attempt.txid));
            Some(format!("{} {attempt} {made:?}", payment.payment_id))
        }
        Answer::Refused { reason, .. } if is_passing(&call.asked, reason) => None,
        Answer::Refused { reason, .. } => Some(format!("refused: {reason}")),
        Answer::Seen { .. } | Answer::Unknown { .. } => None,
    }
}

fn different_answers(calls: &[Call]) -> Vec<String> {
    let mut first: BTreeMap<(usize, &str), (&Call, String)> = BTreeMap::new();
    let mut faults = Vec::new();
    for call in calls.iter().filter(|call| call.must_fail.is_none()) {
        let Some(now) = identity(call) else { continue };
        match first.get(&(call.caller, call.request_id.as_str())) {
            None => drop(first.insert((call.caller, &call.request_id), (call, now))),
            // Two refusals are looked at by themselves: see `decided`.
            Some((_, then)) if *then == now || (then.starts_with("refused") && now.starts_with("refused")) => {}
            Some((_, then)) => faults.push(said(call, &format!("was answered {now}, and before that {then}"))),
        }
    }
    faults
}

/// What was granted until a time, and refused for that time when it was asked for once more: the answer is what it was,
/// also when the time is past by then, or when another leader's clock would have it so. The answer to the grant may have
/// been lost: then a later try shows it.
fn out_of_time(calls: &[Call]) -> Vec<String> {
    let named: Vec<&Call> = calls.iter().filter(|call| call.must_fail.is_none() && call.asked.names_a_time()).collect();
    let mut granted: BTreeMap<(usize, &str), Vec<&Call>> = BTreeMap::new();
    for call in named.iter().filter(|call| call.is_acknowledged()) {
        granted.entry((call.caller, &call.request_id)).or_default().push(call);
    }
    let refused = named.iter().filter(|call| {
        let for_its_time = matches!(&call.answer, Answer::Refused { reason, .. } if reason == OUT_OF_TIME);
        let answers = granted.get(&(call.caller, call.request_id.as_str()));
        let mut answers = answers.filter(|_| for_its_time).into_iter().flatten();
        answers.any(|answer| granted_since(answer, calls) <= call.start_ns)
    });
    refused.map(|call| said(call, "was refused for its time, and had been granted")).collect()
}

/// From when on the log certainly had what an answer says: from that answer on, or from any earlier one that shows the log at
/// the grant or beyond. The fence of a grant is the index of its entry, and whoever answers with an index has applied all up
/// to it. Fences of later epochs are above every index, and so prove nothing here.
fn granted_since(answer: &Call, calls: &[Call]) -> Nanos {
    let Answer::Granted { fence, .. } = &answer.answer else { return answer.end_ns };
    let beyond = calls.iter().filter(|call| call.position().is_some_and(|at| at.index >= *fence));
    beyond.map(|call| call.end_ns).min().unwrap_or(Nanos::MAX).min(answer.end_ns)
}

/// Addresses that were given out for two requests.
fn reused_scripts(calls: &[Call]) -> Vec<String> {
    let mut first: BTreeMap<&str, &Call> = BTreeMap::new();
    let mut faults = Vec::new();
    for call in calls {
        let Answer::Address { script, .. } = &call.answer else { continue };
        let known = first.entry(script).or_insert(call);
        if (known.caller, &known.request_id) != (call.caller, &call.request_id) {
            let before = said(known, "got it before");
            faults.push(said(call, &format!("got the script {script}, and {before}")));
        }
    }
    faults
}

/// A request that has an answer: when it was first tried, and the lowest log index of its answers. Whoever answers has
/// applied the entry that decided it, so the entry is not later than that.
struct Decided<'a> {
    call: &'a Call,
    first_start: Nanos,
    not_after: u64,
}

fn decided(calls: &[Call]) -> Vec<Decided<'_>> {
    let mut requests: BTreeMap<(usize, &str), Decided<'_>> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.must_fail.is_none()) {
        let first = Decided { call, first_start: call.start_ns, not_after: u64::MAX };
        let request = requests.entry((call.caller, &call.request_id)).or_insert(first);
        request.first_start = request.first_start.min(call.start_ns);
        request.not_after = request.not_after.min(call.position().map_or(u64::MAX, |at| at.index));
    }
    requests.into_values().filter(|request| request.not_after < u64::MAX).collect()
}

/// An answer's log index was applied, and so committed, before the answer was there: whatever is first asked after that
/// is decided by a later entry.
fn disorder(calls: &[Call]) -> Vec<String> {
    let mut requests = decided(calls);
    requests.sort_by_key(|request| request.first_start);
    let mut answers: Vec<(&Call, u64)> = calls.iter().filter_map(|call| Some((call, call.position()?.index))).collect();
    answers.sort_by_key(|(call, _)| call.end_ns);
    let mut ended = answers.into_iter().peekable();
    let mut highest: Option<(&Call, u64)> = None;
    let mut faults = Vec::new();
    for request in requests {
        while let Some(earlier) = ended.next_if(|(earlier, _)| earlier.end_ns < request.first_start) {
            if highest.is_none_or(|(_, known)| earlier.1 > known) {
                highest = Some(earlier);
            }
        }
        if let Some((earlier, known)) = highest.filter(|(_, known)| *known >= request.not_after) {
            let earlier = said(earlier, "had its answer before");
            let at = request.not_after;
            faults.push(said(request.call, &format!("is at log index {at}, not after {known}: {earlier}")));
        }
    }
    faults
}

fn terms_out_of_order(calls: &[Call]) -> Vec<String> {
    let positions: BTreeSet<Position> = calls.iter().filter_map(Call::position).collect();
    let positions: Vec<Position> = positions.into_iter().collect();
    let wrong = positions.windows(2).filter(|pair| pair[0].term > pair[1].term || pair[0].index == pair[1].index);
    wrong.map(|pair| format!("the log has {:?} and {:?}", pair[0], pair[1])).collect()
}

/// A payment that was acknowledged is found by every read that begins later.
fn vanished(calls: &[Call]) -> Vec<String> {
    let mut known: BTreeMap<&str, Nanos> = BTreeMap::new();
    for call in calls {
        if let Some(payment) = call.answer.payment() {
            let first = known.entry(&payment.payment_id).or_insert(call.end_ns);
            *first = call.end_ns.min(*first);
        }
    }
    let unknown = |call: &&Call| matches!(&call.answer, Answer::Refused { reason, .. } if reason == "PAYMENT_UNKNOWN");
    let late = calls.iter().filter(unknown).filter(|call| match &call.asked {
        Asked::Look { payment_id } => known.get(payment_id.as_str()).is_some_and(|since| *since < call.start_ns),
        _ => false,
    });
    late.map(|call| said(call, "found no payment, though it had been acknowledged")).collect()
}

fn lost_payments(calls: &[Call], remains: &[PaymentSeen]) -> Vec<String> {
    let there: BTreeMap<&str, &PaymentSeen> =
        remains.iter().map(|payment| (payment.payment_id.as_str(), payment)).collect();
    let mut faults = BTreeSet::new();
    for call in calls {
        let Some(payment) = call.answer.payment() else { continue };
        let id = payment.payment_id.as_str();
        let Some(now) = there.get(id) else {
            faults.insert(format!("{id} was acknowledged and is not there"));
            continue;
        };
        if now.amount_sat != payment.amount_sat {
            faults.insert(format!("{id} was of {} sat and is of {}", payment.amount_sat, now.amount_sat));
        }
        for attempt in &payment.attempts {
            let kept = now.attempts.iter().find(|other| other.number == attempt.number);
            let same = kept.is_some_and(|kept| (&kept.txid, kept.fence) == (&attempt.txid, attempt.fence));
            if !same {
                let shown = kept.map(|kept| (&kept.txid, kept.fence));
                let (number, txid, fence) = (attempt.number, &attempt.txid, attempt.fence);
                faults.insert(format!("{id}#{number} was {txid} with fence {fence} and is {shown:?}"));
            }
        }
    }
    faults.into_iter().collect()
}

/// A reservation that nothing can have ended is active, with its coins; one whose release was acknowledged is not.
fn lost_reservations(calls: &[Call], remains: &Remains) -> Vec<String> {
    let mut ended: BTreeMap<&str, bool> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.may_be_applied()) {
        match &call.asked {
            Asked::Release { reservation_id, .. } => {
                *ended.entry(reservation_id).or_default() |= call.is_acknowledged();
            }
            // Used by a payment, or with another end than that of the grant.
            Asked::Sign { reservation_id, .. } | Asked::Renew { reservation_id, .. } => {
                ended.entry(reservation_id).or_default();
            }
            Asked::Reserve { .. }
            | Asked::Address
            | Asked::Pay { .. }
            | Asked::Bump { .. }
            | Asked::Cancel { .. }
            | Asked::Look { .. } => {}
        }
    }
    let mut starts: BTreeMap<(usize, &str), Nanos> = BTreeMap::new();
    for call in calls {
        let start = starts.entry((call.caller, &call.request_id)).or_insert(call.start_ns);
        *start = call.start_ns.min(*start);
    }
    let mut faults = BTreeSet::new();
    for call in calls {
        let (Asked::Reserve { ttl_ms, .. }, Answer::Granted { reservation_id, outpoints, .. }) =
            (&call.asked, &call.answer)
        else {
            continue;
        };
        let coins: BTreeSet<String> = outpoints.iter().cloned().collect();
        let active = remains.active.get(reservation_id);
        let asked = starts.get(&(call.caller, call.request_id.as_str())).copied().unwrap_or(0);
        let lives = asked.saturating_add(least_ttl_ns(*ttl_ms)) > remains.answered_ns + NS_PER_MS;
        match (ended.get(reservation_id.as_str()), active) {
            (None, None) if lives => drop(faults.insert(format!("{reservation_id} was acknowledged and is not there"))),
            (Some(true), Some(_)) => drop(faults.insert(format!("{reservation_id} was released and is active"))),
            (_, Some(other)) if *other != coins => {
                faults.insert(format!("{reservation_id} holds {other:?} and was granted with {coins:?}"));
            }
            _ => {}
        }
    }
    faults.into_iter().collect()
}

fn said(call: &Call, what: &str) -> String {
    let (caller, request, via) = (call.caller, &call.request_id, &call.via);
    let asked = serde_json::to_string(&call.asked).unwrap_or_default();
    let (from, to) = (call.start_ns / NS_PER_MS, call.end_ns / NS_PER_MS);
    format!("caller {caller}'s {asked} ({request} by {via}, {from} to {to} ms) {what}")
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
