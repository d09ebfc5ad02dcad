//! What a payment says beyond its fields: whom the attempt that matters now pays.

use crate::v1::{Attempt, AttemptPurpose, Payment, PaymentState};

impl Payment {
    /// The attempt that `txid` names, of which `state` speaks; `None` where every attempt is dead.
    pub fn leading_attempt(&self) -> Option<&Attempt> {
        self.attempts.iter().rfind(|attempt| !self.txid.is_empty() && attempt.txid == self.txid)
    }

    /// Whether it is on its way to be cancelled: `state` and `txid` are of an attempt that gives the coins back, and
    /// its confirmations pay nobody. Until the state is `CANCELLED` an older attempt may still confirm, and pay.
    pub fn is_cancelling(&self) -> bool {
        let under_way =
            [PaymentState::Signing, PaymentState::Signed, PaymentState::Broadcast, PaymentState::Confirming];
        let cancels = |attempt: &Attempt| attempt.purpose() == AttemptPurpose::Cancel;
        under_way.contains(&self.state()) && self.leading_attempt().is_some_and(cancels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A payment with an attempt that pays and one that gives the coins back; `txid` names one of them.
    fn payment(state: PaymentState, txid: &str) -> Payment {
        let attempt = |number, txid: &str, purpose: AttemptPurpose| Attempt {
            number,
            txid: txid.to_owned(),
            purpose: purpose.into(),
            ..Attempt::default()
        };
        let attempts = vec![attempt(1, "aa", AttemptPurpose::Pay), attempt(2, "bb", AttemptPurpose::Cancel)];
        Payment { state: state.into(), txid: txid.to_owned(), attempts, ..Payment::default() }
    }

    /// safety 10.
    #[test]
    fn a_payment_is_cancelling_while_the_attempt_that_counts_gives_the_coins_back() {
        use PaymentState as S;
        for state in [S::Signing, S::Signed, S::Broadcast, S::Confirming] {
            assert!(payment(state, "bb").is_cancelling(), "{state:?}");
            assert!(!payment(state, "aa").is_cancelling(), "the older attempt is ahead: {state:?}");
        }
        for state in [S::Settled, S::Conflicted, S::Cancelled, S::Dead] {
            assert!(!payment(state, "bb").is_cancelling(), "{state:?}");
        }
    }

    #[test]
    fn a_payment_whose_attempts_are_all_dead_has_none_that_counts() {
        let dead = payment(PaymentState::Dead, "");
        assert_eq!(dead.leading_attempt(), None);
        let unnamed = Payment { attempts: vec![Attempt::default()], ..dead };
        assert_eq!(unnamed.leading_attempt(), None, "no txid is no name");
        let named = payment(PaymentState::Broadcast, "aa");
        assert_eq!(named.leading_attempt().map(|attempt| attempt.number), Some(1));
    }
}
