//! Whether coins that were refused because somebody holds them can have been held: a service that refuses what is free
//! spends nothing twice, and is of no use.
//!
//! As with grants, only what no order of events can explain is reported. A refusal is decided in the log, and the same
//! request gets the same answer, so each coin that it names was held at some moment between the first try of its request
//! and its answer. These can hold a coin:
//!
//! - A reservation, from the first try of its request until its release was acknowledged, or until another grant of the
//!   coin was answered that was asked for after the first one's answer. Its time to live proves no end: time in the log
//!   stands still while nobody leads.
//! - A request to reserve of which nobody knows what came, from its first try on, for ever: its coins, or any coin if it
//!   named none. A refusal after that decides it: the request has that answer, whenever its other tries arrive.
//! - A payment with an attempt that spends the coin, from when it was first ordered, for ever.
//!
//! Quarantine is not among them: this is for runs in which nobody else has the keys and no reorganisation reaches
//! finality depth. What the harness itself reserves is in no history, so only what was answered before that is judged.

use std::collections::BTreeMap;

use super::answers::is_passing;
use super::reservations::{first_starts, released};
use crate::history::{Answer, Asked, Call, Nanos, PaymentSeen};

/// Every refusal that nothing explains, of those that were answered until then, in words. The payments are those that
/// were there in the end, when all was quiet.
pub fn judge(calls: &[Call], payments: &[PaymentSeen], until: Nanos) -> Vec<String> {
    let holders = Holders::of(calls, payments);
    let starts = first_starts(calls);
    let mut faults = Vec::new();
    for call in calls.iter().filter(|call| call.must_fail.is_none() && call.end_ns <= until) {
        let (Asked::Reserve { .. }, Answer::Refused { conflicts, .. }) = (&call.asked, &call.answer) else { continue };
        let asked = starts.get(&(call.caller, call.request_id.as_str())).copied().unwrap_or(call.start_ns);
        let window = Hold { from: asked, until: call.end_ns };
        for coin in conflicts.iter().filter(|coin| !holders.can_hold(coin, &window)) {
            let (caller, request) = (call.caller, &call.request_id);
            let (from, to) = (asked / NS_PER_MS, call.end_ns / NS_PER_MS);
            faults.push(format!(
                "caller {caller} was refused {coin} ({request}, {from} to {to} ms), which nobody can have held"
            ));
        }
    }
    faults
}

const NS_PER_MS: Nanos = 1_000_000;

/// From when until when somebody can have held a coin, both included.
struct Hold {
    from: Nanos,
    until: Nanos,
}

impl Hold {
    fn meets(&self, other: &Self) -> bool {
        self.from <= other.until && other.from <= self.until
    }
}

#[derive(Default)]
struct Holders<'a> {
    by_coin: BTreeMap<&'a str, Vec<Hold>>,
    /// Of requests that may have been granted any coin.
    of_any: Vec<Hold>,
}

impl<'a> Holders<'a> {
    fn of(calls: &'a [Call], payments: &'a [PaymentSeen]) -> Self {
        let mut holders = Self::default();
        holders.add_reservations(calls);
        holders.add_unknown(calls);
        holders.add_payments(calls, payments);
        holders
    }

    fn can_hold(&self, coin: &str, window: &Hold) -> bool {
        self.by_coin.get(coin).into_iter().flatten().chain(&self.of_any).any(|hold| hold.meets(window))
    }

    fn add(&mut self, coin: &'a str, from: Nanos, until: Nanos) {
        self.by_coin.entry(coin).or_default().push(Hold { from, until });
    }

    fn add_reservations(&mut self, calls: &'a [Call]) {
        let released = released(calls);
        for (coin, grants) in grants(calls) {
            for (id, grant) in &grants {
                let successors = grants.values().filter(|other| other.asked >= grant.answered);
                let succeeded = successors.map(|other| other.answered).min().unwrap_or(Nanos::MAX);
                let until = released.get(id).copied().unwrap_or(Nanos::MAX).min(succeeded);
                self.add(coin, grant.asked, until);
            }
        }
    }

    fn add_unknown(&mut self, calls: &'a [Call]) {
        let mut requests: BTreeMap<(usize, &str, bool), Vec<&Call>> = BTreeMap::new();
        for call in calls.iter().filter(|call| matches!(call.asked, Asked::Reserve { .. })) {
            requests.entry((call.caller, &call.request_id, call.must_fail.is_some())).or_default().push(call);
        }
        for tries in requests.into_values().filter(|tries| !is_decided(tries)) {
            let from = tries.iter().map(|call| call.start_ns).min().unwrap_or(0);
            for call in tries {
                match &call.asked {
                    Asked::Reserve { outpoints, .. } if outpoints.is_empty() => {
                        self.of_any.push(Hold { from, until: Nanos::MAX });
                    }
                    Asked::Reserve { outpoints, .. } => {
                        for coin in outpoints {
                            self.add(coin, from, Nanos::MAX);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn add_payments(&mut self, calls: &'a [Call], payments: &'a [PaymentSeen]) {
        let mut ordered: BTreeMap<&str, Nanos> = BTreeMap::new();
        for call in calls {
            if let Asked::Pay { payment_id, .. } | Asked::Sign { payment_id, .. } = &call.asked {
                let first = ordered.entry(payment_id).or_insert(call.start_ns);
                *first = call.start_ns.min(*first);
            }
        }
        for payment in payments {
            let from = ordered.get(payment.payment_id.as_str()).copied().unwrap_or(0);
            for coin in payment.attempts.iter().flat_map(|attempt| &attempt.inputs) {
                self.add(coin, from, Nanos::MAX);
            }
        }
    }
}

/// One grant: it happened after it was asked for and before it was answered.
struct Grant {
    asked: Nanos,
    answered: Nanos,
}

/// Every grant that a caller knows of, by coin and reservation.
fn grants(calls: &[Call]) -> BTreeMap<&str, BTreeMap<&str, Grant>> {
    let starts = first_starts(calls);
    let mut grants: BTreeMap<&str, BTreeMap<&str, Grant>> = BTreeMap::new();
    for call in calls {
        let Answer::Granted { reservation_id, outpoints, .. } = &call.answer else { continue };
        let asked = starts.get(&(call.caller, call.request_id.as_str())).copied().unwrap_or(call.start_ns);
        for coin in outpoints {
            let of_coin = grants.entry(coin).or_default();
            let grant = of_coin.entry(reservation_id).or_insert(Grant { asked, answered: call.end_ns });
            grant.asked = grant.asked.min(asked);
            grant.answered = grant.answered.min(call.end_ns);
        }
    }
    grants
}

/// Whether it is known what came of a request: an answer of its own, or none of its tries can have been applied.
fn is_decided(tries: &[&Call]) -> bool {
    let refused =
        |call: &Call| matches!(&call.answer, Answer::Refused { reason, .. } if !is_passing(&call.asked, reason));
    let unknown = |call: &Call| matches!(&call.answer, Answer::Unknown { .. });
    tries.iter().any(|call| call.is_acknowledged() || refused(call)) || !tries.iter().any(|call| unknown(call))
}

#[cfg(test)]
#[path = "refusals_tests.rs"]
mod tests;
