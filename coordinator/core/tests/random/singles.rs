//! Coins that the wallet without descriptors is to follow, and facts about such that are none.

use bitcoin::{Amount, OutPoint};
use onespend_core::command::{Command, Received, RegisterOutpoints};
use onespend_core::ids::Height;
use onespend_core::outcome::{Outcome, Rejection};

use super::{pick, wallet_id};
use crate::world::World;
use crate::world::wallets::SINGLE;

/// Follows some of the coins that there are, or refuses to because of a fault, unless `fault` is 0.
pub(super) fn follow(world: &mut World, chosen: &[usize], fault: u8) {
    let there = world.chain.found(SINGLE);
    let mut found: Vec<Received> = chosen.iter().filter_map(|at| pick(&there, *at)).collect();
    found.sort_by_key(|one| one.outpoint);
    found.dedup();
    let Some(first) = found.first().cloned() else { return };
    let taken = world.state.utxos().find(|(_, utxo)| utxo.wallet != first.wallet).map(|(outpoint, _)| *outpoint);
    let mut command = RegisterOutpoints { wallet: first.wallet.clone(), basis: world.chain.tip(), found };
    let refusal = wrong_wish(&mut command, &first, taken, fault);
    let is_stale = refusal.is_none() && stale_facts(&mut command, fault);
    let outcome = world.ask("client/sweeps", Command::RegisterOutpoints(command));
    match refusal {
        Some(refusal) => assert_eq!(outcome, Outcome::Rejected(refusal)),
        None if is_stale => assert!(matches!(outcome, Outcome::Rejected(Rejection::StaleBasis { .. })), "{outcome:?}"),
        None => assert_eq!(outcome, Outcome::WalletChanged),
    }
}

/// What is refused for ever: looking again would find the same.
fn wrong_wish(
    command: &mut RegisterOutpoints,
    first: &Received,
    taken: Option<OutPoint>,
    fault: u8,
) -> Option<Rejection> {
    match (fault, taken) {
        (1, Some(outpoint)) => {
            command.found.push(Received { outpoint, ..first.clone() });
            Some(Rejection::OutpointUnknown { outpoints: vec![outpoint] })
        }
        (2, _) => {
            command.found.push(first.clone());
            Some(Rejection::DuplicateInput { outpoint: first.outpoint })
        }
        (3, _) => {
            command.wallet = wallet_id(0);
            Some(Rejection::WalletHasDescriptors)
        }
        _ => None,
    }
}

/// Facts that cannot be, or not at this tip. Whether there are some.
fn stale_facts(command: &mut RegisterOutpoints, fault: u8) -> bool {
    match fault {
        4 => command.basis.height = Height(command.basis.height.0 + 1),
        5 => command.found[0].value_sat = Amount::MAX_MONEY.to_sat() + 1,
        6 => command.found[0].index = 1,
        _ => return false,
    }
    true
}
