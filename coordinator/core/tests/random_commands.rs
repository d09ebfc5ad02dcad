//! Random streams of commands over a model world: the invariants hold after each, the oracle agrees, two nodes agree,
//! and what was stored is the same state. `ONESPEND_CORE_COMMANDS` says how many commands are tried in all,
//! `ONESPEND_CORE_SEED` which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod random;
mod world;

use std::cell::Cell;

use onespend_core::outcome::Outcome;
use onespend_core::wallet::Keychain;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use random::facts::mine;
use random::step::steps;
use random::{limits, take};
use world::World;
use world::wallets::fixtures;

/// Steps of one world. Some only change the model, and some are several commands.
const STEPS_PER_WORLD: usize = 250;
const COMMANDS_PER_WORLD: usize = 175;
const DEFAULT_COMMANDS: usize = 10_000;
/// Coins that each of the first wallets begins with.
const FIRST_COINS: u32 = 5;
/// Wallets that are there from the beginning; the others come when the stream says so.
const FIRST_WALLETS: usize = 5;
/// What is counted, so that a run shows that it got there.
const SEEN: usize = 12;
/// Finality depth that the first wallets begin with.
const FIRST_DEPTH: u32 = 3;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// safety 1, 2, 4 to 9, 11 to 15, 17, 19 to 21, 23 to 25, 28, 30, for every stream: what holds in one state by
/// `invariant::check`, what callers were told by the oracle, replay by a second node that reads the bytes, the store by
/// loading it again.
#[test]
fn every_invariant_holds_after_every_command_and_the_history_is_right() {
    let wanted = number("ONESPEND_CORE_COMMANDS", DEFAULT_COMMANDS);
    let seed = number("ONESPEND_CORE_SEED", 1) as u64;
    let seen = Cell::new([0; SEEN]);
    let mut worlds = 0;
    // The first round gets there, or nearly so: worlds differ in how many of their steps are commands.
    for round in 0.. {
        let missing = wanted.saturating_sub(seen.get()[0]);
        if missing == 0 {
            break;
        }
        let more = missing.div_ceil(COMMANDS_PER_WORLD);
        play(seed, round, more, &seen);
        worlds += more;
    }
    // A stream that never gets that far would prove nothing.
    let [commands, payments, settled, died, replaced, cancelled, children, followed, reserved, spent, lost, regained] =
        seen.get();
    println!("commands, payments, settled, died, replaced, cancelled, children: {:?}", &seen.get()[..7]);
    println!("single coins followed, reservations of such, those that were spent: {:?}", &seen.get()[7..10]);
    println!("deposits that were declared lost, those that a reorganisation gave back: {:?}", &seen.get()[10..]);
    assert!(commands >= wanted, "only {commands} commands were tried");
    assert!(payments > worlds && settled > worlds / 2 && died > worlds / 20, "{commands} commands: {:?}", seen.get());
    assert!(replaced > worlds && cancelled > worlds / 4 && children > worlds / 20, "{:?}", seen.get());
    assert!(followed > worlds && reserved > worlds / 10 && spent > worlds / 10, "{:?}", seen.get());
    assert!(lost > worlds / 20 && regained >= worlds / 100, "{:?}", seen.get());
}

/// Lets so many worlds go their ways, which follow from the seed and the round, and adds what came of them to `seen`.
fn play(seed: u64, round: u64, worlds: usize, seen: &Cell<[usize; SEEN]>) {
    let config = Config {
        cases: u32::try_from(worlds).unwrap(),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed ^ (round << 48)),
        max_shrink_iters: u32::try_from(number("ONESPEND_CORE_SHRINKS", 500)).unwrap(),
        ..Config::default()
    };
    let stream = prop::collection::vec(steps(), STEPS_PER_WORLD);
    let result = TestRunner::new(config).run(&stream, |stream| {
        let mut world = World::new();
        for wallet in 0..FIRST_WALLETS {
            assert_eq!(world.register("operator/alice", wallet, limits(FIRST_DEPTH)), Outcome::WalletChanged);
            for address in 0..FIRST_COINS {
                world.chain.fund(fixtures()[wallet].script(Keychain::External, address), 100_000);
            }
        }
        mine(&mut world, u32::MAX, None);
        for step in &stream {
            take(&mut world, step);
            world.check();
        }
        world.reload();
        let more = [
            world.log.len(),
            world.state.payments().count(),
            world.oracle.settled,
            world.oracle.died,
            world.oracle.replaced,
            world.oracle.cancelled,
            world.oracle.children,
            world.oracle.followed.len(),
            world.oracle.reserved_singles,
            world.oracle.spent_singles(&world.chain),
            world.oracle.declared,
            world.oracle.regained,
        ];
        let mut sums = seen.get();
        sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        seen.set(sums);
        Ok(())
    });
    if let Err(error) = result {
        panic!("seed {seed}, round {round}: {error}");
    }
}
