//! The order in which payments and reservations changed, which is what a caller follows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod world;

use bitcoin::OutPoint;
use onespend_core::command::{Command, CreatePayment, Recipient, Reserve};
use onespend_core::ids::{LogIndex, Millis, PaymentId, PaymentKey, ReservationId};
use onespend_core::limits::WalletLimits;
use onespend_core::outcome::Outcome;
use onespend_core::state::State;
use onespend_core::wallet::Keychain;
use world::World;
use world::chain::foreign_script;
use world::wallets::fixtures;

/// Five payments, of which one block touches three.
fn paid() -> World {
    let mut world = World::new();
    let wallet = &fixtures()[0];
    assert_eq!(world.register("operator/alice", 0, WalletLimits::default()), Outcome::WalletChanged);
    let fund = |world: &mut World, index| world.chain.fund(wallet.script(Keychain::External, index), 50_000);
    let coins: Vec<OutPoint> = (0..5).map(|index| fund(&mut world, index)).collect();
    world.mine(None, |_| true);
    for (number, coin) in coins.iter().enumerate() {
        let key = PaymentKey { wallet: wallet.id.clone(), payment: PaymentId::parse(&format!("p{number}")).unwrap() };
        let recipients = vec![Recipient { script: foreign_script(4), amount_sat: 20_000 }];
        let command = CreatePayment { key, recipients, outpoints: vec![*coin], fee_sat: 500 };
        let created = world.ask("client/payouts", Command::CreatePayment(command));
        assert!(matches!(created, Outcome::Permitted { .. }), "{created:?}");
    }
    for coin in [1, 3, 4] {
        world.chain.spend(&[coins[coin]]);
    }
    world.mine(None, |_| true);
    world
}

fn by_scan(state: &State) -> Vec<(LogIndex, PaymentKey)> {
    let mut all: Vec<_> = state.payments().map(|(key, payment)| (payment.changed_at, key.clone())).collect();
    all.sort();
    all
}

fn after(state: &State, index: LogIndex, key: Option<&PaymentKey>) -> Vec<(LogIndex, PaymentKey)> {
    state.payments_changed_after(index, key).map(|(at, key)| (at, key.clone())).collect()
}

#[test]
fn what_changed_after_a_place_is_found_from_every_place() {
    let world = paid();
    let state = &world.state;
    let all = by_scan(state);
    let of_the_block = all.iter().filter(|(at, _)| *at == state.applied()).count();
    assert_eq!((all.len(), of_the_block), (5, 3), "{all:?}");
    for index in 0..=state.applied().0 + 1 {
        let later: Vec<_> = all.iter().filter(|(at, _)| at.0 > index).cloned().collect();
        assert_eq!(after(state, LogIndex(index), None), later, "after {index}");
    }
    for (place, (index, key)) in all.iter().enumerate() {
        assert_eq!(after(state, *index, Some(key)), all[place + 1..], "after {key} at {index}");
    }
}

/// Four coins, each reserved; the second was renewed, then the first given back.
fn reserved() -> (World, Vec<ReservationId>) {
    let mut world = World::new();
    let wallet = &fixtures()[0];
    assert_eq!(world.register("operator/alice", 0, WalletLimits::default()), Outcome::WalletChanged);
    let fund = |world: &mut World, index| world.chain.fund(wallet.script(Keychain::External, index), 50_000);
    let coins: Vec<OutPoint> = (0..4).map(|index| fund(&mut world, index)).collect();
    world.mine(None, |_| true);
    let ttl = Millis(60_000);
    let mut ids = Vec::new();
    for coin in coins {
        let outpoints = vec![coin];
        let command = Reserve { wallet: wallet.id.clone(), outpoints, ttl, payment: None, selected: false };
        match world.ask("client/payouts", Command::Reserve(command)) {
            Outcome::Reserved { reservation, .. } => ids.push(reservation),
            other => panic!("{other:?}"),
        }
    }
    let renewed = world.ask("client/payouts", Command::Renew { reservation: ids[1], ttl, fence: None });
    assert!(matches!(renewed, Outcome::Renewed { .. }), "{renewed:?}");
    let released = world.ask("client/payouts", Command::Release { reservation: ids[0], fence: None });
    assert_eq!(released, Outcome::Released);
    (world, ids)
}

#[test]
fn a_reservation_is_found_after_the_entry_that_changed_it_last() {
    let (world, ids) = reserved();
    let last = world.state.applied().0;
    let found: Vec<_> = world.state.reservations_changed_after(LogIndex(0), None).collect();
    let at = |behind: u64, id: usize| (LogIndex(last - behind), ids[id]);
    assert_eq!(found, [at(3, 2), at(2, 3), at(1, 1), at(0, 0)]);
    for (place, (index, id)) in found.iter().enumerate() {
        let later: Vec<_> = world.state.reservations_changed_after(*index, Some(*id)).collect();
        assert_eq!(later, found[place + 1..], "after {id} at {index}");
    }
}

/// Nothing of it is stored, so a node that loaded its state tells again rather than not at all.
#[test]
fn what_changed_before_a_state_was_loaded_counts_as_changed_by_the_entry_that_was_loaded() {
    let (world, mut ids) = reserved();
    let (mut state, applied) = (world.state.clone(), world.state.applied());
    state.finish_loading();
    ids.sort();
    let found: Vec<_> = state.reservations_changed_after(LogIndex(applied.0 - 1), None).collect();
    assert_eq!(found, ids.iter().map(|id| (applied, *id)).collect::<Vec<_>>());
    assert_eq!(state.reservations_changed_after(applied, None).count(), 0);
    let within: Vec<_> = state.reservations_changed_after(applied, Some(ids[1])).collect();
    assert_eq!(within, ids[2..].iter().map(|id| (applied, *id)).collect::<Vec<_>>());
}
