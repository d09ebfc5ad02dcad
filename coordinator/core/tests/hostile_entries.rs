//! Nothing in `apply` may panic, whatever an entry says: a panic would stop every node, and again after each restart.
//! Every number of every entry of a real log is replaced by extremes, and entries come in any order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod story;
mod world;

use std::ops::Range;

use bitcoin::Network;
use bitcoin::hashes::Hash;
use onespend_core::apply::{apply, skip};
use onespend_core::command::{BlockRef, Command, Entry};
use onespend_core::ids::{Height, LogIndex, Millis};
use onespend_core::invariant;
use onespend_core::outcome::Outcome;
use onespend_core::state::State;

const EXTREMES: [u64; 12] = [
    0,
    1,
    2,
    255,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    2_100_000_000_000_001,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// Where the unsigned numbers of a CBOR item are (RFC 8949). Entries hold nothing that is of indefinite length.
fn numbers(bytes: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (major, short) = (bytes[at] >> 5, bytes[at] & 31);
        let width = match short {
            0..24 => 0,
            24..28 => 1_usize << (short - 24),
            _ => panic!("indefinite length"),
        };
        let end = at + 1 + width;
        let argument = bytes[at + 1..end].iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        let argument = if width == 0 { usize::from(short) } else { argument };
        if major == 0 {
            found.push(at..end);
        }
        at = if matches!(major, 2 | 3) { end + argument } else { end };
    }
    found
}

/// Every entry with one number replaced by each extreme, as far as it can be read.
fn spoilt(bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for range in numbers(bytes) {
        for extreme in EXTREMES {
            let number = minicbor::to_vec(extreme).unwrap();
            let spoilt = [&bytes[..range.start], &number, &bytes[range.end..]].concat();
            entries.extend(Entry::from_bytes(&spoilt));
        }
    }
    entries
}

/// Applies what may be anything, and then the rest of the true log.
fn survive(state: &State, index: u64, entry: &Entry) {
    let mut state = state.clone();
    let outcome = apply(&mut state, LogIndex(index), entry);
    if let Err(violation) = invariant::check(&state) {
        panic!("{violation} after {entry:?} ({outcome:?})");
    }
}

#[test]
fn no_number_in_an_entry_can_stop_a_node_or_break_an_invariant() {
    let world = story::tell();
    let mut state = State::default();
    let mut tried = 0;
    for (index, entry, bytes) in &world.log {
        for spoilt in spoilt(bytes) {
            survive(&state, index.0, &spoilt);
            survive(&world.state, u64::MAX, &spoilt);
            tried += 1;
        }
        apply(&mut state, *index, entry);
    }
    assert!(tried > 1_000, "{tried} entries were tried");
}

/// Every entry after every other, at the end of time.
#[test]
fn entries_in_any_order_break_no_invariant() {
    let world = story::tell();
    let end = Entry {
        at: Millis(u64::MAX),
        wall_ms: u64::MAX,
        request: None,
        command: Command::Expire { reservations: vec![] },
    };
    let mut at_the_end = world.state.clone();
    apply(&mut at_the_end, LogIndex(1_000), &end);
    for (at, (_, entry, _)) in world.log.iter().enumerate() {
        for (_, other, _) in &world.log[..=at] {
            let mut state = at_the_end.clone();
            apply(&mut state, LogIndex(2_000), entry);
            survive(&state, 2_001, other);
        }
    }
}

#[test]
fn the_highest_block_and_the_first_one_are_ends() {
    let hash = bitcoin::BlockHash::from_byte_array([1; 32]);
    for height in [Height(0), Height(u32::MAX)] {
        let tip = BlockRef { height, hash };
        let mut state = State::default();
        let run = |state: &mut State, index, command| {
            let entry = Entry { at: Millis(0), wall_ms: 0, request: None, command };
            let outcome = apply(state, LogIndex(index), &entry);
            invariant::check(state).unwrap();
            outcome
        };
        assert_eq!(run(&mut state, 1, Command::Start { network: Network::Regtest, tip }), Outcome::Recorded);
        let outcome = run(&mut state, 2, Command::DisconnectBlock { block: tip });
        assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
        assert_eq!(state.tip().unwrap(), tip);
        let above = BlockRef { height: Height(height.0.wrapping_add(1)), ..tip };
        let (previous, received, spent) = (hash, vec![], vec![]);
        let connect = Command::ConnectBlock { block: above, previous, received, spent, wallets: 0, followed: None };
        assert_eq!(run(&mut state, 3, connect) == Outcome::Recorded, height == Height(0));
        skip(&mut state, LogIndex(u64::MAX));
        let again = run(&mut state, u64::MAX, Command::Expire { reservations: vec![] });
        assert!(matches!(again, Outcome::Rejected(_)), "an entry was applied twice");
    }
}
