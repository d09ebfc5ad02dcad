//! Random steps, and what each does to the model world.

pub mod facts;
mod lost;
mod orders;
mod retries;
mod signatures;
mod singles;
pub mod step;

use bitcoin::Transaction;
use onespend_core::command::{Command, Recipient};
use onespend_core::ids::{AttemptNo, Millis, PaymentId, PaymentKey, ReservationId};
use onespend_core::limits::{Velocity, WalletLimits};
use onespend_core::outcome::Outcome;
use onespend_core::wallet::Keychain;

use self::facts::{give_addresses, mine, recover, release_held, spend_outside, wrong_facts};
use self::orders::ask;
use self::retries::{ask_again, nobody_asks};
use self::signatures::abort;
use self::singles::follow;
use self::step::Step;
use crate::world::World;
use crate::world::chain::foreign_script;
use crate::world::wallets::fixtures;

pub fn take(world: &mut World, step: &Step) {
    match step {
        Step::Wait(ms) => world.now += ms,
        Step::Fund { wallet, address, sat } => {
            world.chain.fund(fixtures()[*wallet].script(Keychain::External, *address), *sat);
        }
        Step::SpendOutside(at) => spend_outside(world, *at),
        Step::Mine { wanted, coinbase_to } => mine(world, *wanted, *coinbase_to),
        Step::Reorganise { depth, mined, wanted } => {
            for _ in 0..(*depth).min(world.chain.blocks.len() - 1) {
                world.disconnect();
            }
            (0..*mined).for_each(|_| mine(world, *wanted, None));
        }
        Step::DoubleSpend { at, mined, wanted } => lost::double_spend(world, *at, *mined, *wanted),
        Step::DeclareLost { at, lie, undo } => lost::declare(world, *at, *lie, *undo),
        Step::WrongFacts { kind, wanted } => wrong_facts(world, *kind, *wanted),
        Step::Register { wallet, depth } => {
            world.register("operator/alice", *wallet, limits(*depth));
        }
        Step::Limit { wallet, depth } => {
            let command = Command::SetLimits { wallet: wallet_id(*wallet), limits: limits(*depth) };
            world.ask("operator/alice", command);
        }
        Step::Freeze(wallet) => {
            world.ask("operator/alice", Command::FreezeWallet { wallet: wallet_id(*wallet), why: "test".to_owned() });
        }
        Step::Unfreeze(wallet) => {
            world.ask("operator/alice", Command::UnfreezeWallet { wallet: wallet_id(*wallet) });
        }
        Step::GiveAddresses { wallet, internal, count } => give_addresses(world, *wallet, *internal, *count),
        Step::Follow { coins, fault } => follow(world, coins, *fault),
        Step::Abort { at, honest } => abort(world, *at, *honest),
        Step::Recover(part) => recover(world, *part),
        Step::ReleaseHeld(at) => release_held(world, *at),
        Step::AskAgain { at, how } => ask_again(world, *at, *how),
        Step::Nobody(at) => nobody_asks(world, *at),
        Step::Skip => world.skip(),
        Step::Reload => world.reload(),
        _ => ask(world, step),
    }
}

fn pick<T: Clone>(items: &[T], at: usize) -> Option<T> {
    (!items.is_empty()).then(|| items[at % items.len()].clone())
}

pub fn limits(depth: u32) -> WalletLimits {
    WalletLimits {
        finality_depth: depth,
        max_reservations: 5,
        max_fee_sat: 2_500,
        max_reserved_percent: (depth % 3 == 2).then_some(60),
        velocity: (depth % 4 == 3).then_some(Velocity { window: Millis(60_000), max_sat: 120_000 }),
        spend_unconfirmed_change: Some(depth % 2 == 1),
        ..WalletLimits::default()
    }
}

fn payment_id(number: u8) -> PaymentId {
    PaymentId::parse(&format!("p{number}")).unwrap()
}

/// What a payment's name stands for, so that most orders of one name agree.
fn recipients(payment: u8, other_content: bool) -> Vec<Recipient> {
    let recipient = |number: u64, amount_sat| Recipient { script: foreign_script(number), amount_sat };
    let mut recipients = vec![recipient(u64::from(payment), 15_000 + u64::from(payment))];
    if payment.is_multiple_of(2) {
        recipients.push(recipient(100, 3_000));
    }
    if other_content {
        recipients[0].amount_sat += 1;
    }
    recipients
}

fn wallet_id(wallet: usize) -> onespend_core::ids::WalletId {
    fixtures()[wallet].id.clone()
}

/// Attempts in a fixed order.
fn attempts(world: &World) -> Vec<(PaymentKey, AttemptNo, Transaction)> {
    let payments = world.state.payments();
    payments
        .flat_map(|(key, payment)| payment.numbered().map(|(no, a)| (key.clone(), no, a.transaction.clone())))
        .collect()
}

fn reservations(world: &World) -> Vec<ReservationId> {
    let from_log = |outcome: &Outcome| match outcome {
        Outcome::Reserved { reservation, .. } => Some(*reservation),
        _ => None,
    };
    let cached = world.log.iter().rev().take(60).filter_map(|(_, entry, _)| {
        let key = &entry.request.as_ref()?.key;
        from_log(&world.state.cached(key)?.outcome)
    });
    let active = world.state.reservations_from(ReservationId(0)).map(|(id, _)| *id);
    active.chain(cached).collect()
}
