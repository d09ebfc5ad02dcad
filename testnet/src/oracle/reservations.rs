//! Whether the callers' reservations can be explained: each outpoint is a lock that at most one holds at a time, and
//! that lets go by itself when its time is over.
//!
//! The checker looks for contradictions that no order of events can explain, and for nothing else, so what it reports is
//! a fault for certain. It rests on these bounds:
//!
//! - A grant happened between the start of the first try of its request and the first answer that named it.
//! - A release happened, if at all, after its first try that was not refused began. A try without an answer may happen
//!   at any later time, so it ends what is certain, and never proves that a coin is free.
//! - Time in the log runs only while a leader lives, and never faster than the clock of this machine: a leader proposes
//!   the time that the state had when it came to lead, plus what has passed since. So a reservation lives at least as
//!   long as its time to live, counted from the start of the first try of its request; a renewal moves that to its own
//!   first try and time to live. Milliseconds are cut, hence a slack of some.
//! - Of one that was asked for until a time of the wall clock nothing is believed but that no reservation is shorter than
//!   the shortest: the leader made a time to live of it by its own clock, which may have been wrong by years.
//! - A coin that an acknowledged payment spends stays with that payment until every attempt that spends it is dead by the
//!   blocks: not before the block was mined that made a conflicting transaction final, and else for ever.
//!
//! Between the answer to a grant and the earliest moment at which it can have ended, its holder holds the coin
//! *certainly*. Two that certainly hold one coin at one moment are a fault. So is a grant that must have happened, from
//! its first try to its answer, while another certainly held the coin. And so is what was done with a reservation that
//! had certainly been given back when it was first asked for: the holds do not show it, since they end with the release.

use std::collections::{BTreeMap, BTreeSet};

use super::deaths::Deaths;
use crate::history::{Answer, Asked, Call, Nanos};

/// What cut milliseconds can make up.
const SLACK_NS: Nanos = 5_000_000;
const NS_PER_MS: Nanos = 1_000_000;
/// The service refuses what would be shorter, in the log, so by no clock.
const SHORTEST_TTL_MS: u64 = 1_000;

/// How long a reservation lives at least from when it is granted or renewed.
pub(super) fn least_ttl_ns(ttl_ms: Option<u64>) -> Nanos {
    ttl_ms.unwrap_or(SHORTEST_TTL_MS).saturating_mul(NS_PER_MS)
}

/// A claim on a coin, with what is certain of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hold<'a> {
    /// A reservation or a payment.
    holder: &'a str,
    /// The earliest moment at which it may have begun.
    asked: Nanos,
    /// From here on it is certain.
    from: Nanos,
    /// Until here it is certain.
    until: Nanos,
}

/// Every contradiction, in words. The deaths must have been read from the blocks after the calls were made.
pub fn judge(calls: &[Call], deaths: &Deaths) -> Vec<String> {
    let starts = first_starts(calls);
    let mut faults = Vec::new();
    let mut by_coin: BTreeMap<&str, Vec<Hold<'_>>> = BTreeMap::new();
    let reservations = reservations(calls, &starts, &mut faults);
    for (coins, hold) in reservations {
        for coin in coins {
            by_coin.entry(coin).or_default().push(hold.clone());
        }
    }
    faults.extend(used_after_release(calls));
    let used = used_reservations(calls);
    let mut exposed: BTreeMap<&str, Vec<Hold<'_>>> = BTreeMap::new();
    for (coin, hold) in exposures(calls, deaths) {
        exposed.entry(coin).or_default().push(hold);
    }
    for (coin, holds) in &mut by_coin {
        holds.sort_by_key(|hold| hold.from);
        faults.extend(overlaps(coin, holds));
        for payment in exposed.get(coin).into_iter().flatten() {
            faults.extend(against_payment(coin, holds, payment, &used));
        }
    }
    for (coin, payments) in exposed {
        let holders: BTreeSet<&str> = among_themselves(&payments);
        if !holders.is_empty() {
            faults.push(format!("{coin} was given to several payments: {holders:?}"));
        }
    }
    faults
}

/// Payments that certainly had one coin at one moment. One may follow another whose attempt was dead before the coin
/// was seen with the second.
fn among_themselves<'a>(payments: &[Hold<'a>]) -> BTreeSet<&'a str> {
    let at_once = |one: &Hold<'_>, other: &Hold<'_>| one.until > other.from && other.until > one.from;
    let mut holders = BTreeSet::new();
    for (number, one) in payments.iter().enumerate() {
        for other in payments.iter().skip(number + 1).filter(|other| at_once(one, other)) {
            holders.extend([one.holder, other.holder]);
        }
    }
    holders
}

/// When each request was first tried.
pub(super) fn first_starts(calls: &[Call]) -> BTreeMap<(usize, &str), Nanos> {
    let mut starts = BTreeMap::new();
    for call in calls {
        let start = starts.entry((call.caller, call.request_id.as_str())).or_insert(call.start_ns);
        *start = call.start_ns.min(*start);
    }
    starts
}

/// When the release of a reservation was first acknowledged.
pub(super) fn released(calls: &[Call]) -> BTreeMap<&str, Nanos> {
    let mut released: BTreeMap<&str, Nanos> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.is_acknowledged()) {
        if let Asked::Release { reservation_id, .. } = &call.asked {
            let first = released.entry(reservation_id).or_insert(call.end_ns);
            *first = call.end_ns.min(*first);
        }
    }
    released
}

/// Every reservation that a caller was granted, with its coins. One id for two requests is a fault by itself.
fn reservations<'a>(
    calls: &'a [Call],
    starts: &BTreeMap<(usize, &'a str), Nanos>,
    faults: &mut Vec<String>,
) -> Vec<(&'a [String], Hold<'a>)> {
    let mut granted: BTreeMap<&str, (&Call, &[String], Hold<'_>)> = BTreeMap::new();
    for call in calls {
        let (Asked::Reserve { ttl_ms, .. }, Answer::Granted { reservation_id, outpoints, .. }) =
            (&call.asked, &call.answer)
        else {
            continue;
        };
        let asked = starts.get(&(call.caller, call.request_id.as_str())).copied().unwrap_or(call.start_ns);
        let until = asked.saturating_add(least_ttl_ns(*ttl_ms)).saturating_sub(SLACK_NS);
        let hold = Hold { holder: reservation_id, asked, from: call.end_ns, until };
        match granted.get_mut(reservation_id.as_str()) {
            None => drop(granted.insert(reservation_id, (call, outpoints, hold))),
            Some((first, _, known)) => {
                if (first.caller, &first.request_id) != (call.caller, &call.request_id) {
                    faults.push(format!("{reservation_id} was granted to two requests"));
                }
                known.from = known.from.min(hold.from);
            }
        }
    }
    let mut ends = ends(calls);
    for (reservation, (_, _, hold)) in &mut granted {
        if let Some(end) = ends.remove(*reservation) {
            end.shorten(hold);
        }
    }
    granted.into_values().map(|(_, coins, hold)| (coins, hold)).collect()
}

/// What callers asked of one reservation that moves its end.
#[derive(Default)]
struct End<'a> {
    renewals: BTreeMap<(usize, &'a str), Renewal>,
    /// The first moment at which a release may have been applied.
    released: Option<Nanos>,
}

/// One request to renew.
struct Renewal {
    asked: Nanos,
    acknowledged: Option<Nanos>,
    ttl_ns: Nanos,
}

fn ends(calls: &[Call]) -> BTreeMap<&str, End<'_>> {
    let mut ends: BTreeMap<&str, End<'_>> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.may_be_applied()) {
        match &call.asked {
            Asked::Renew { reservation_id, ttl_ms, .. } => {
                let renewals = &mut ends.entry(reservation_id).or_default().renewals;
                let renewal = renewals.entry((call.caller, &call.request_id)).or_insert(Renewal {
                    asked: call.start_ns,
                    acknowledged: None,
                    ttl_ns: least_ttl_ns(*ttl_ms),
                });
                renewal.asked = renewal.asked.min(call.start_ns);
                if call.is_acknowledged() {
                    let first = renewal.acknowledged.unwrap_or(call.end_ns);
                    renewal.acknowledged = Some(first.min(call.end_ns));
                }
            }
            Asked::Release { reservation_id, .. } => {
                let end = ends.entry(reservation_id).or_default();
                end.released = Some(end.released.unwrap_or(call.start_ns).min(call.start_ns));
            }
            Asked::Reserve { .. }
            | Asked::Address
            | Asked::Pay { .. }
            | Asked::Sign { .. }
            | Asked::Bump { .. }
            | Asked::Cancel { .. }
            | Asked::Look { .. } => {}
        }
    }
    ends
}

impl End<'_> {
    /// The expiry is that of the renewal that was applied last: the one acknowledged last, or one that was under way at
    /// the same time, or one without an answer. The earliest of these is certain. An acknowledged renewal proves that
    /// the reservation had not ended before.
    fn shorten(&self, hold: &mut Hold<'_>) {
        let last = self.renewals.values().filter(|one| one.acknowledged.is_some()).max_by_key(|one| one.acknowledged);
        let may_count = |one: &&Renewal| match (one.acknowledged, last) {
            (Some(acknowledged), Some(last)) => acknowledged >= last.asked,
            _ => true,
        };
        let ends = |one: &Renewal| one.asked.saturating_add(one.ttl_ns).saturating_sub(SLACK_NS);
        let first = if last.is_some() { Nanos::MAX } else { hold.until };
        hold.until = self.renewals.values().filter(may_count).map(ends).fold(first, Nanos::min);
        hold.until = hold.until.min(self.released.unwrap_or(Nanos::MAX));
    }
}

/// Renewals of reservations, and signatures on them, that were acknowledged and first asked for when the release had
/// been acknowledged. What was asked for before may have been applied before, whenever its answer came. (Callers have a
/// payment signed on one reservation only, so no such answer is one that was due anyway.)
fn used_after_release(calls: &[Call]) -> BTreeSet<String> {
    let released = released(calls);
    let mut asked: BTreeMap<(usize, &str, &str), Nanos> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.may_be_applied()) {
        let Some((how, _)) = use_of(call) else { continue };
        let start = asked.entry((call.caller, &call.request_id, how)).or_insert(call.start_ns);
        *start = call.start_ns.min(*start);
    }
    let mut faults = BTreeSet::new();
    for call in calls.iter().filter(|call| call.is_acknowledged()) {
        let Some((how, reservation)) = use_of(call) else { continue };
        let Some(since) = released.get(reservation) else { continue };
        let (caller, request) = (call.caller, call.request_id.as_str());
        if asked.get(&(caller, request, how)).is_some_and(|start| start >= since) {
            let since = since / NS_PER_MS;
            faults.insert(format!(
                "{reservation} was {how} for caller {caller} ({request}), and had been given back by {since} ms"
            ));
        }
    }
    faults
}

/// What a call would do with a reservation that is there.
fn use_of(call: &Call) -> Option<(&'static str, &str)> {
    match &call.asked {
        Asked::Renew { reservation_id, .. } => Some(("renewed", reservation_id)),
        Asked::Sign { reservation_id, .. } => Some(("signed away", reservation_id)),
        Asked::Reserve { .. }
        | Asked::Release { .. }
        | Asked::Address
        | Asked::Pay { .. }
        | Asked::Bump { .. }
        | Asked::Cancel { .. }
        | Asked::Look { .. } => None,
    }
}

/// Which reservations the payments' callers named.
fn used_reservations(calls: &[Call]) -> BTreeSet<(&str, &str)> {
    let used = calls.iter().filter_map(|call| match &call.asked {
        Asked::Sign { payment_id, reservation_id, .. } => Some((payment_id.as_str(), reservation_id.as_str())),
        _ => None,
    });
    used.collect()
}

/// Every coin that an acknowledged payment spends.
fn exposures<'a>(calls: &'a [Call], deaths: &Deaths) -> Vec<(&'a str, Hold<'a>)> {
    let mut asked: BTreeMap<&str, Nanos> = BTreeMap::new();
    for call in calls {
        if let Asked::Pay { payment_id, .. } | Asked::Sign { payment_id, .. } = &call.asked {
            let start = asked.entry(payment_id).or_insert(call.start_ns);
            *start = call.start_ns.min(*start);
        }
    }
    let mut known: BTreeMap<(&str, &str), Hold<'_>> = BTreeMap::new();
    for call in calls {
        let Some(payment) = call.answer.payment() else { continue };
        let id = payment.payment_id.as_str();
        for attempt in &payment.attempts {
            let until = deaths.get(&(id.to_owned(), attempt.number)).copied().unwrap_or(Nanos::MAX);
            for coin in &attempt.inputs {
                let asked = asked.get(id).copied().unwrap_or(0);
                let hold = Hold { holder: id, asked, from: call.end_ns, until };
                let first = known.entry((coin, id)).or_insert(hold);
                first.from = first.from.min(call.end_ns);
                first.until = first.until.max(until);
            }
        }
    }
    known.into_iter().map(|((coin, _), hold)| (coin, hold)).collect()
}

/// Reservations that contradict each other, sorted by when they are certain from.
fn overlaps(coin: &str, holds: &[Hold<'_>]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut longest: Option<&Hold<'_>> = None;
    for hold in holds {
        if let Some(other) = longest.filter(|other| hold.from < hold.until && hold.from < other.until) {
            faults.push(said(coin, other, hold, "at once"));
        }
        if hold.from < hold.until && longest.is_none_or(|other| hold.until > other.until) {
            longest = Some(hold);
        }
    }
    // A grant that was over before its caller heard of it holds nothing for certain, but had to happen all the same.
    for hold in holds.iter().filter(|hold| hold.from >= hold.until) {
        let around = holds.iter().find(|other| other.from <= hold.asked && hold.from <= other.until);
        faults.extend(around.map(|other| said(coin, other, hold, "one within the other")));
    }
    faults
}

fn against_payment(coin: &str, holds: &[Hold<'_>], payment: &Hold<'_>, used: &BTreeSet<(&str, &str)>) -> Vec<String> {
    let strangers = holds.iter().filter(|hold| !used.contains(&(payment.holder, hold.holder)));
    let contradicts = |hold: &&Hold<'_>| {
        let granted_after = hold.asked >= payment.from && hold.from < payment.until;
        let taken_away = hold.from <= payment.asked && payment.from <= hold.until;
        granted_after || taken_away
    };
    strangers.filter(contradicts).map(|hold| said(coin, payment, hold, "though it may be signed away")).collect()
}

fn said(coin: &str, one: &Hold<'_>, other: &Hold<'_>, how: &str) -> String {
    let ms = |ns: Nanos| ns / NS_PER_MS;
    let interval = |hold: &Hold<'_>| match hold.until {
        Nanos::MAX => format!("{} from {} ms on", hold.holder, ms(hold.from)),
        until => format!("{} asked at {} ms, from {} to {} ms", hold.holder, ms(hold.asked), ms(hold.from), ms(until)),
    };
    format!("{coin} was given to two, {how}: {}; {}", interval(one), interval(other))
}

#[cfg(test)]
#[path = "reservations_tests.rs"]
mod tests;
