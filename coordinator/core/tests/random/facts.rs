//! Steps of the chain and of operators, and facts that are none.

use bitcoin::OutPoint;
use onespend_core::command::{Command, Received};
use onespend_core::ids::{Height, ReservationId};
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::wallet::Keychain;

use super::{attempts, pick, wallet_id};
use crate::world::World;
use crate::world::chain::foreign_script;
use crate::world::wallets::{ADDRESSES, fixtures};

pub fn mine(world: &mut World, wanted: u32, coinbase_to: Option<usize>) {
    let coinbase = coinbase_to.map(|wallet| (fixtures()[wallet].script(Keychain::External, 0), 30_000));
    let outcome = world.mine(coinbase, |position| wanted & (1 << (position % 32)) != 0);
    assert_eq!(outcome, Outcome::Recorded);
}

/// A spend of a coin of ours that the service knows nothing of. Most rob an attempt, a reservation, or a wallet that
/// follows single coins.
pub(super) fn spend_outside(world: &mut World, at: usize) {
    let signed_for = attempts(world).into_iter().flat_map(|(.., transaction)| transaction.input);
    let exposed: Vec<OutPoint> = signed_for.map(|input| input.previous_output).collect();
    let held = world.state.reservations_from(ReservationId(0)).flat_map(|(_, held)| held.outpoints.clone());
    let robbed = match at % 5 {
        0 | 1 => pick(&exposed, at / 5),
        2 => pick(&held.collect::<Vec<_>>(), at / 5),
        3 => pick(&world.oracle.unspent_singles(&world.chain), at / 5),
        _ => None,
    };
    let coins: Vec<OutPoint> = world.chain.coins.keys().copied().collect();
    if let Some(coin) = robbed.or_else(|| pick(&coins, at)) {
        world.chain.spend(&[coin]);
    }
}

/// Facts that contradict the state or each other are refused, and change nothing.
pub(super) fn wrong_facts(world: &mut World, kind: u8, wanted: u32) {
    let mut ahead = world.chain.clone();
    let reward = (fixtures()[0].script(Keychain::External, 3), 5_000);
    let block = ahead.mine(Some(reward), |position| wanted & (1 << (position % 32)) != 0);
    let (mut received, mut spent) = ahead.facts(&block, &world.registered, &world.oracle.followed);
    let (mut at, mut previous, mut wallets) = (block.at, block.previous, world.state.wallet_count());
    let ours = received.iter_mut().find(|output| output.wallet == wallet_id(0)).unwrap();
    let known = world.state.utxos().find(|(_, utxo)| utxo.spent.is_some()).map(|(outpoint, _)| *outpoint);
    match (kind, known) {
        (0, _) => ours.script = foreign_script(1),
        (1, _) => ours.index = u32::MAX,
        (2, _) => ours.wallet = onespend_core::ids::WalletId::parse("nobody").unwrap(),
        (3, _) => ours.height = Height(u32::MAX),
        (4, _) => ours.value_sat = u64::MAX,
        (5, _) => ours.keychain = Keychain::Internal,
        (6, _) => at.height = Height(u32::MAX),
        (7, _) => previous = block.at.hash,
        (8, _) => wallets += 1,
        (9, Some(outpoint)) => spent.push(onespend_core::command::Spent { outpoint, txid: outpoint.txid }),
        (10, Some(outpoint)) => {
            let coin = ahead.coins.get(&outpoint);
            received.extend(coin.map(|coin| Received { outpoint, coinbase: coin.coinbase, ..received[0].clone() }));
            wallets += u64::from(coin.is_none());
        }
        _ => {
            let twice = received[0].clone();
            received.push(twice);
        }
    }
    let outcome = world.duty(Command::ConnectBlock { block: at, previous, received, spent, wallets, followed: None });
    assert!(matches!(outcome, Outcome::Rejected(Rejection::StaleBasis { .. })), "kind {kind}: {outcome:?}");
}

pub(super) fn give_addresses(world: &mut World, wallet: usize, internal: bool, count: u32) {
    let keychain = if internal { Keychain::Internal } else { Keychain::External };
    let used = world.state.wallet(&wallet_id(wallet)).map_or(0, |wallet| wallet.next_index(keychain));
    if used + count + 20 < ADDRESSES {
        world.ask("client/payouts", Command::GiveAddresses { wallet: wallet_id(wallet), keychain, count });
    }
}

pub(super) fn recover(world: &mut World, part: u8) {
    let epoch = world.state.epoch() + 1;
    match part {
        0 => drop(world.duty(Command::EnterRecovery { why: "a test".to_owned() })),
        1..=3 => {
            let free: Vec<OutPoint> = world.state.free_coins(&wallet_id(0)).map(|(_, outpoint)| outpoint).collect();
            let held = world.state.reservations_from(ReservationId(0)).flat_map(|(_, held)| held.outpoints.clone());
            let mut spent_outside: Vec<OutPoint> = held.take(1).filter(|_| part == 1).collect();
            spent_outside.extend(free.first().filter(|_| part == 2));
            spent_outside.retain(|outpoint| world.chain.coins.contains_key(outpoint));
            world.duty(Command::Reconcile { basis: world.chain.tip(), spent_outside });
        }
        _ => drop(world.ask("operator/alice", Command::ConfirmRecovery { epoch, note: "checked".to_owned() })),
    }
}

pub(super) fn release_held(world: &mut World, at: usize) {
    let held: Vec<(onespend_core::ids::WalletId, OutPoint)> = world
        .state
        .utxos()
        .filter(|(_, utxo)| utxo.claim == onespend_core::utxo::Claim::Quarantined)
        .map(|(outpoint, utxo)| (utxo.wallet.clone(), *outpoint))
        .collect();
    let Some((wallet, outpoint)) = pick(&held, at) else { return };
    let command = Command::ReleaseQuarantined { wallet, outpoints: vec![outpoint], note: "checked".to_owned() };
    assert_eq!(world.ask("operator/alice", command), Outcome::Recorded);
}
