//! The lower-case words for the API's enums, on the command line, in tables and in JSON.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use onespend_proto::v1;

/// An enum of the API that has a word for each value but the unspecified one.
pub trait Word: Copy + PartialEq + Send + Sync + 'static {
    /// Every word with its value, in the order of the values.
    const WORDS: &'static [(&'static str, Self)];

    /// The word; `unknown` for a value that this version does not know.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("unknown", |(word, _)| word)
    }
}

macro_rules! words {
    ($($name:ident: $($word:literal = $value:ident),+;)+) => {
        $(impl Word for v1::$name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$value)),+];
        })+
    };
}

words! {
    UtxoState: "available" = Available, "reserved" = Reserved, "exposed" = Exposed,
        "spent_pending" = SpentPending, "spent" = Spent, "quarantined" = Quarantined,
        "immature" = Immature, "unconfirmed" = Unconfirmed;
    Keychain: "external" = External, "internal" = Internal;
    ReservationState: "active" = Active, "used" = Used, "released" = Released, "expired" = Expired, "forgotten" = Forgotten;
    SelectionStrategy: "lowest_fee" = LowestFee, "largest_first" = LargestFirst, "oldest_first" = OldestFirst;
    PaymentState: "signing" = Signing, "signed" = Signed, "broadcast" = Broadcast, "confirming" = Confirming,
        "settled" = Settled, "conflicted" = Conflicted, "cancelled" = Cancelled, "dead" = Dead;
    AttemptState: "signing" = Signing, "signed" = Signed, "broadcast" = Broadcast, "confirming" = Confirming,
        "settled" = Settled, "conflicted" = Conflicted, "dead" = Dead, "aborted" = Aborted;
    AttemptPurpose: "pay" = Pay, "cancel" = Cancel;
    NodeRole: "leader" = Leader, "replica" = Replica, "learner" = Learner, "candidate" = Candidate,
        "stopped" = Stopped;
    BitcoindState: "in_sync" = InSync, "starting" = Starting, "behind" = Behind, "wrong_chain" = WrongChain,
        "forked" = Forked, "few_peers" = FewPeers, "unreachable" = Unreachable, "tip_old" = TipOld;
    CheckPurpose: "primary" = Primary, "readiness" = Readiness, "report" = Report;
}

/// Reads a word of the command line; help and completions list the words.
pub fn parser<E: Word>() -> impl TypedValueParser<Value = E> {
    PossibleValuesParser::new(E::WORDS.iter().map(|(word, _)| *word)).try_map(|given| {
        let found = E::WORDS.iter().find(|(word, _)| *word == given);
        found.map(|(_, value)| *value).ok_or("unknown word")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of the proto enum has its word, which is its name without the prefix.
    fn complete<E: Word + TryFrom<i32>>(prefix: &str, name: fn(&E) -> &'static str) {
        let known = (1..64).filter(|number| E::try_from(*number).is_ok()).count();
        assert_eq!(E::WORDS.len(), known, "{prefix}");
        for (word, value) in E::WORDS {
            assert_eq!(format!("{prefix}_{}", word.to_uppercase()), name(value));
            assert_eq!(value.word(), *word);
        }
    }

    #[test]
    fn words_are_the_names_of_the_api() {
        complete::<v1::UtxoState>("UTXO_STATE", v1::UtxoState::as_str_name);
        complete::<v1::Keychain>("KEYCHAIN", v1::Keychain::as_str_name);
        complete::<v1::ReservationState>("RESERVATION_STATE", v1::ReservationState::as_str_name);
        complete::<v1::SelectionStrategy>("SELECTION_STRATEGY", v1::SelectionStrategy::as_str_name);
        complete::<v1::PaymentState>("PAYMENT_STATE", v1::PaymentState::as_str_name);
        complete::<v1::AttemptState>("ATTEMPT_STATE", v1::AttemptState::as_str_name);
        complete::<v1::AttemptPurpose>("ATTEMPT_PURPOSE", v1::AttemptPurpose::as_str_name);
        complete::<v1::NodeRole>("NODE_ROLE", v1::NodeRole::as_str_name);
        complete::<v1::BitcoindState>("BITCOIND_STATE", v1::BitcoindState::as_str_name);
        complete::<v1::CheckPurpose>("CHECK_PURPOSE", v1::CheckPurpose::as_str_name);
        assert_eq!(v1::UtxoState::Unspecified.word(), "unknown");
    }
}
