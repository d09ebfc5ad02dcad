//! Names have a form, and tables that could grow for ever have an end: the oldest go first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bitcoin::Network;
use bitcoin::hashes::Hash;
use onespend_core::apply::apply;
use onespend_core::command::{BlockRef, Command, Entry, Request};
use onespend_core::ids::{
    CallerId, Height, LogIndex, Millis, PaymentId, RequestId, RequestKey, ReservationId, WalletId,
};
use onespend_core::invariant;
use onespend_core::limits::{MAX_CACHED_RESULTS, UNDO_BLOCKS};
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::state::State;

fn hash(number: u32) -> bitcoin::BlockHash {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bitcoin::BlockHash::from_byte_array(bytes)
}

fn duty(state: &mut State, index: u64, command: Command) -> Outcome {
    apply(state, LogIndex(index), &Entry { at: Millis(0), wall_ms: 0, request: None, command })
}

#[test]
fn names_have_a_form() {
    assert_eq!(WalletId::parse("hot-1_a.B").unwrap().as_str(), "hot-1_a.B");
    assert_eq!(CallerId::parse("client/payouts").unwrap().to_string(), "client/payouts");
    assert!(PaymentId::parse("invoice:2024/7#3").is_ok());
    for wrong in ["", "a b", "a/b", "ä", "a\n", &"a".repeat(65)] {
        let fault = WalletId::parse(wrong).unwrap_err();
        assert!(fault.to_string().starts_with("wallet_id"), "{fault}");
    }
    assert!(RequestId::parse(&"a".repeat(64)).is_ok() && RequestId::parse(&"a".repeat(65)).is_err());
    assert!(PaymentId::parse(&"a".repeat(128)).is_ok() && PaymentId::parse(&"a".repeat(129)).is_err());
    assert!(PaymentId::parse("ü").is_err() && CallerId::parse("a b").is_err());
}

#[test]
fn reservations_are_named_by_their_fence() {
    let id = ReservationId::parse("r-12").unwrap();
    assert_eq!((id, id.fence().0, id.to_string()), (ReservationId(12), 12, "r-12".to_owned()));
    for wrong in ["", "r-", "12", "r-x", "r--1", "r-+1", "r-99999999999999999999"] {
        assert!(ReservationId::parse(wrong).is_err(), "{wrong}");
    }
}

/// safety, Idempotency: the cache is bounded. An id that was forgotten is free again.
#[test]
fn the_oldest_answers_are_forgotten_first() {
    let mut state = State::default();
    let key = |number: usize| {
        let request = RequestId::parse(&format!("q{number}")).unwrap();
        RequestKey { caller: CallerId::parse("client/a").unwrap(), request }
    };
    let ask = |state: &mut State, index: usize, number: usize, digest: u8| {
        let request = Some(Request { key: key(number), digest: [digest; 32], for_others: false });
        let command = Command::Release { reservation: ReservationId(number as u64), fence: None };
        apply(state, LogIndex(index as u64), &Entry { at: Millis(0), wall_ms: 0, request, command })
    };
    for number in 1..=MAX_CACHED_RESULTS + 2 {
        assert_eq!(ask(&mut state, number, number, 1), Outcome::Rejected(Rejection::ReservationUnknown));
    }
    assert!(state.cached(&key(2)).is_none());
    assert!(state.cached(&key(3)).is_some());
    invariant::check(&state).unwrap();
    let next = MAX_CACHED_RESULTS + 3;
    assert_eq!(ask(&mut state, next, 3, 2), Outcome::Rejected(Rejection::RequestIdReused));
    assert_eq!(ask(&mut state, next + 1, 2, 2), Outcome::Rejected(Rejection::ReservationUnknown));
}

/// safety 17: as many blocks as can be taken back are kept, and no more; a deeper reorganisation is refused.
#[test]
fn as_many_blocks_as_are_kept_can_be_taken_back() {
    let mut state = State::default();
    let at = |height| BlockRef { height: Height(height), hash: hash(height) };
    duty(&mut state, 1, Command::Start { network: Network::Regtest, tip: at(0) });
    let top = 2 * UNDO_BLOCKS;
    for height in 1..=top {
        let (received, spent) = (vec![], vec![]);
        let previous = hash(height - 1);
        let command =
            Command::ConnectBlock { block: at(height), previous, received, spent, wallets: 0, followed: None };
        assert_eq!(duty(&mut state, u64::from(height) + 1, command), Outcome::Recorded);
    }
    invariant::check(&state).unwrap();
    let mut index = u64::from(top) + 1;
    for height in (top - UNDO_BLOCKS + 1..=top).rev() {
        index += 1;
        assert_eq!(duty(&mut state, index, Command::DisconnectBlock { block: at(height) }), Outcome::Recorded);
    }
    invariant::check(&state).unwrap();
    let last = at(top - UNDO_BLOCKS);
    let outcome = duty(&mut state, index + 1, Command::DisconnectBlock { block: last });
    assert!(matches!(outcome, Outcome::Rejected(Rejection::OutOfBounds { .. })), "{outcome:?}");
    assert_eq!(state.tip().unwrap(), last);
}
