//! Wallets without descriptors: they follow single coins, have no addresses, and take no other wallet's coins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod story;
mod world;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use onespend_core::apply::apply;
use onespend_core::command::{BlockRef, Command, Entry, Received, RegisterOutpoints, Spent};
use onespend_core::ids::{Height, LogIndex};
use onespend_core::invariant;
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::state::State;
use onespend_core::wallet::{DescriptorFault, Keychain};

/// The next entry of the log.
fn run(state: &mut State, command: Command) -> Outcome {
    let entry = Entry { at: state.now(), wall_ms: 0, request: None, command };
    let index = LogIndex(state.applied().0 + 1);
    assert_eq!(Entry::from_bytes(&entry.to_bytes()).unwrap(), entry);
    let outcome = apply(state, index, &entry);
    invariant::check(state).unwrap();
    outcome
}

/// A state in which the wallet `outpoints` follows one coin, how it came to, and a coin of another wallet.
fn followed() -> (State, RegisterOutpoints, OutPoint) {
    let world = story::tell();
    let mut state = world.state.clone();
    let [register, follow] = story::outpoints(&world).try_into().unwrap();
    for command in [register, follow.clone()] {
        assert_eq!(run(&mut state, command), Outcome::WalletChanged);
    }
    let Command::RegisterOutpoints(follow) = follow else { panic!("{follow:?}") };
    (state, follow, world.coins(0)[0])
}

#[test]
fn a_wallet_without_descriptors_gives_no_addresses_and_counts_none() {
    let (mut state, follow, _) = followed();
    for keychain in [Keychain::External, Keychain::Internal] {
        let give = Command::GiveAddresses { wallet: follow.wallet.clone(), keychain, count: 1 };
        let before = state.wallet(&follow.wallet).unwrap().clone();
        let refused = Outcome::Rejected(Rejection::DescriptorInvalid(DescriptorFault::Missing));
        assert_eq!(run(&mut state, give), refused);
        assert_eq!(state.wallet(&follow.wallet).unwrap(), &before);
    }
}

/// safety 1: an outpoint has one owner. The refusal is final: looking the coins up again would change nothing.
#[test]
fn a_coin_of_another_wallet_is_named_and_not_registered() {
    let (mut state, follow, taken) = followed();
    let before = state.utxo(&taken).unwrap().clone();
    assert_ne!(before.wallet, follow.wallet);
    let basis = state.tip().unwrap();
    let found = Received {
        outpoint: taken,
        wallet: follow.wallet.clone(),
        value_sat: before.value_sat,
        script: before.script.clone(),
        keychain: Keychain::External,
        index: 0,
        coinbase: before.coinbase,
        height: basis.height,
    };
    let register = RegisterOutpoints { wallet: follow.wallet.clone(), basis, found: vec![found] };
    let outcome = run(&mut state, Command::RegisterOutpoints(register));
    assert_eq!(outcome, Outcome::Rejected(Rejection::OutpointUnknown { outpoints: vec![taken] }));
    let Outcome::Rejected(refusal) = outcome else { unreachable!() };
    assert!(!refusal.is_transient());
    assert_eq!(state.utxo(&taken), Some(&before));
    // A coin that is followed already may be named again.
    assert_eq!(run(&mut state, Command::RegisterOutpoints(follow)), Outcome::WalletChanged);
}

/// A block on top of the tip.
fn block_with(state: &State, spent: Vec<Spent>) -> Command {
    let tip = state.tip().unwrap();
    let height = Height(tip.height.0 + 1);
    let block = BlockRef { height, hash: BlockHash::from_byte_array([u8::try_from(spent.len()).unwrap(); 32]) };
    let (wallets, followed) = (state.wallet_count(), state.followed());
    Command::ConnectBlock { block, previous: tip.hash, received: vec![], spent, wallets, followed }
}

/// The look at bitcoind that registers one coin more.
fn one_more(state: &State, follow: &RegisterOutpoints) -> (OutPoint, Command) {
    let outpoint = OutPoint { vout: 9, ..follow.found[0].outpoint };
    let found = vec![Received { outpoint, ..follow.found[0].clone() }];
    let register = RegisterOutpoints { wallet: follow.wallet.clone(), basis: state.tip().unwrap(), found };
    (outpoint, Command::RegisterOutpoints(register))
}

fn is_stale(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected(rejection @ Rejection::StaleBasis { .. }) if rejection.is_transient())
}

/// The block was searched when nobody followed the coin that it spends. Were it connected, the coin would be available
/// for ever, though it is spent.
#[test]
fn a_block_that_was_searched_before_a_coin_was_registered_is_searched_again() {
    let (mut state, follow, _) = followed();
    let (outpoint, register) = one_more(&state, &follow);
    let searched = block_with(&state, vec![]);
    assert_eq!(run(&mut state, register), Outcome::WalletChanged);
    let before = state.tip().unwrap();
    let outcome = run(&mut state, searched);
    assert!(is_stale(&outcome), "{outcome:?}");
    assert_eq!(state.tip().unwrap(), before);

    let txid = Txid::from_byte_array([9; 32]);
    let again = block_with(&state, vec![Spent { outpoint, txid }]);
    assert_eq!(run(&mut state, again), Outcome::Recorded);
    assert_eq!(state.utxo(&outpoint).unwrap().spent.as_ref().map(|spend| spend.txid), Some(txid));
}

/// The other order: bitcoind was asked at a tip that the log has left.
#[test]
fn a_coin_that_was_looked_up_before_a_block_came_is_looked_up_again() {
    let (mut state, follow, _) = followed();
    let (outpoint, register) = one_more(&state, &follow);
    let spending = block_with(&state, vec![Spent { outpoint, txid: Txid::from_byte_array([9; 32]) }]);
    assert_eq!(run(&mut state, spending), Outcome::Recorded);
    let outcome = run(&mut state, register);
    assert!(is_stale(&outcome), "{outcome:?}");
    assert_eq!(state.utxo(&outpoint), None);
}

/// What is followed already brings nothing that a search could have missed.
#[test]
fn a_coin_that_is_registered_again_keeps_no_block_out() {
    let (mut state, follow, _) = followed();
    let searched = block_with(&state, vec![]);
    assert_eq!(run(&mut state, Command::RegisterOutpoints(follow)), Outcome::WalletChanged);
    assert_eq!(run(&mut state, searched), Outcome::Recorded);
}
