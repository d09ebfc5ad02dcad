//! Wallets without descriptors: they follow single coins, have no addresses, and take no other wallet's coins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod story;
mod world;

use bitcoin::OutPoint;
use onespend_core::apply::apply;
use onespend_core::command::{Command, Entry, Received, RegisterOutpoints};
use onespend_core::ids::LogIndex;
use onespend_core::invariant;
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::state::State;
use onespend_core::wallet::{DescriptorFault, Keychain};

/// The next entry of the log.
fn run(state: &mut State, command: Command) -> Outcome {
    let entry = Entry { at: state.now(), wall_ms: 0, request: None, command };
    let index = LogIndex(state.applied().0 + 1);
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
