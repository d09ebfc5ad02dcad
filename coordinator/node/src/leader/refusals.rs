//! What the log was told of attempts that a signer refuses. They are tried again each second, and the same words each time
//! would bury everything else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use onespend_core::ids::{AttemptNo, PaymentKey};
use tokio::time::Instant;

/// How long the same words about the same attempt are not repeated.
const QUIET: Duration = Duration::from_mins(1);

/// Which attempt was refused, in which words; they name the signer where it has a memory.
type Refusal = (PaymentKey, AttemptNo, String);

/// When each refusal was told last. What is older than the quiet time is forgotten with the next one that is told, so an
/// attempt that is signed or ended does not stay.
#[derive(Default)]
pub(super) struct Refusals(Mutex<BTreeMap<Refusal, Instant>>);

impl Refusals {
    /// Whether the log has to be told of a refusal now; if so, it counts as told.
    pub(super) fn is_due(&self, key: &PaymentKey, attempt: AttemptNo, words: &str, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < QUIET;
        let refusal = (key.clone(), attempt, words.to_owned());
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&refusal).is_some_and(|at| is_recent(*at)) {
            return false;
        }
        told.retain(|_, at| is_recent(*at));
        told.insert(refusal, now);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_core::ids::PaymentId;

    use super::*;
    use crate::specimen::wallet;

    #[test]
    fn a_refusal_is_told_at_once_and_again_only_after_a_while_or_in_other_words() {
        let key = |name: &str| PaymentKey { wallet: wallet("w"), payment: PaymentId::parse(name).unwrap() };
        let (refusals, start, first) = (Refusals::default(), Instant::now(), AttemptNo(1));
        let is_due = |name: &str, attempt, words: &str, seconds| {
            refusals.is_due(&key(name), attempt, words, start + Duration::from_secs(seconds))
        };
        assert!(is_due("p", first, "no", 0));
        assert!((1..60).all(|seconds| !is_due("p", first, "no", seconds)));
        assert!(is_due("p", AttemptNo(2), "no", 30) && is_due("q", first, "no", 30) && is_due("p", first, "never", 30));
        assert!(is_due("p", first, "no", 60) && !is_due("p", first, "no", 61));
    }

    #[test]
    fn what_is_not_refused_any_more_is_forgotten() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        for number in 0..100_u32 {
            let key = PaymentKey { wallet: wallet("w"), payment: PaymentId::parse(&format!("p{number}")).unwrap() };
            assert!(refusals.is_due(&key, AttemptNo(1), "no", start + number * QUIET));
        }
        assert_eq!(refusals.0.lock().unwrap().len(), 1);
    }
}
