//! Random streams of commands over a model world: the invariants hold after each, the oracle agrees, two nodes agree,
//! and what was stored is the same state. `ONESPEND_CORE_COMMANDS` says how many commands are tried in all,
//! `ONESPEND_CORE_SEED` which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod world;

use bitcoin::{OutPoint, ScriptBuf, Transaction};
use onespend_core::command::{
    BumpByChild, Change, Command, CreatePayment, PayReserved, Received, Recipient, Relay, Replace, Reserve,
};
use onespend_core::ids::{AttemptNo, Fence, Height, Millis, PaymentId, PaymentKey, ReservationId};
use onespend_core::limits::{DEFAULT_RESERVATION_TTL, Velocity, WalletLimits};
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::payment::AttemptEnd;
use onespend_core::wallet::Keychain;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use world::World;
use world::chain::{foreign_script, transaction};
use world::wallets::{ADDRESSES, fixtures};

/// Steps of one world. Some only change the model, so a world sees about 180 commands.
const STEPS_PER_WORLD: usize = 250;
const COMMANDS_PER_WORLD: usize = 175;
const DEFAULT_COMMANDS: usize = 10_000;
/// Coins that each of the first wallets begins with.
const FIRST_COINS: u32 = 5;
const CALLERS: [&str; 3] = ["client/payouts", "client/sweeps", "operator/alice"];
/// Wallets that are there from the beginning; the others come when the stream says so.
const FIRST_WALLETS: usize = 4;
/// Those of the first wallets that this service signs for.
const SIGNED_FOR: usize = 2;
/// Finality depth that the first wallets begin with.
const FIRST_DEPTH: u32 = 3;

/// One step. Numbers choose among what is there at that moment.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Fund { wallet: usize, address: u32, sat: u64 },
    SpendOutside(usize),
    Mine { wanted: u32, coinbase_to: Option<usize> },
    Reorganise { depth: usize, mined: usize, wanted: u32 },
    WrongFacts { kind: u8, wanted: u32 },
    Register { wallet: usize, depth: u32 },
    Limit { wallet: usize, depth: u32 },
    Freeze(usize),
    Unfreeze(usize),
    GiveAddresses { wallet: usize, internal: bool, count: u32 },
    Reserve { wallet: usize, caller: usize, coins: Coins, ttl: u64, payment: Option<u8>, selected: bool },
    Renew { at: usize, caller: usize, ttl: u64 },
    Release { at: usize, caller: usize, others: bool },
    Expire(Vec<usize>),
    Create { wallet: usize, caller: usize, payment: u8, other_content: bool, coins: Coins, fee: u64 },
    Pay { at: usize, caller: usize, payment: u8, fee: u64, fault: u8 },
    Sign { at: usize, spoilt: bool },
    Relay { at: usize, refused: bool },
    Broadcast(usize),
    Replace { at: usize, caller: usize, cancel: bool, fee: u64, more: usize },
    Child { at: usize, caller: usize, fee: u64 },
    Abort { at: usize, honest: bool },
    Recover(u8),
    ReleaseHeld(usize),
    AskAgain { at: usize, how: Again },
    Nobody(usize),
    Skip,
    Reload,
}

#[derive(Debug, Clone)]
enum Coins {
    Free(usize, usize),
    Any(Vec<usize>),
    Change(usize),
}

#[derive(Debug, Clone, Copy)]
enum Again {
    Same,
    OtherContent,
    OtherCaller,
    OldIndex,
}

fn steps() -> impl Strategy<Value = Step> {
    let wallet = 0..fixtures().len();
    let first = prop_oneof![8 => 0..SIGNED_FOR, 3 => Just(2), 1 => Just(3_usize)];
    let caller = 0..CALLERS.len();
    let some = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    let coins = prop::collection::vec(some(), 1..4);
    let chosen = prop_oneof![4 => (0..3_usize, 1..4_usize).prop_map(|(skip, take)| Coins::Free(skip, take)), 1 => coins.prop_map(Coins::Any), 1 => (0..3_usize).prop_map(Coins::Change)];
    let payment = 0..6_u8;
    let ttl = prop_oneof![8 => 1_000..60_000_u64, 1 => Just(0_u64), 1 => Just(u64::MAX)];
    let again = prop_oneof![
        4 => Just(Again::Same),
        1 => Just(Again::OtherContent),
        1 => Just(Again::OtherCaller),
        1 => Just(Again::OldIndex)
    ];
    let deep = prop_oneof![6 => Just(1_usize), 3 => Just(2_usize), 1 => 3..6_usize];
    let fault = prop_oneof![2 => Just(0_u8), 1 => 1..15_u8];
    prop_oneof![
        5 => (1..30_000_u64).prop_map(Step::Wait),
        12 => (wallet.clone(), 0..12_u32, 20_000..500_000_u64)
            .prop_map(|(wallet, address, sat)| Step::Fund { wallet, address, sat }),
        4 => some().prop_map(Step::SpendOutside),
        14 => (any::<u32>(), prop::option::weighted(0.1, wallet.clone()))
            .prop_map(|(wanted, coinbase_to)| Step::Mine { wanted, coinbase_to }),
        2 => (deep, 0..3_usize, any::<u32>())
            .prop_map(|(depth, more, wanted)| Step::Reorganise { depth, mined: depth + more - 1, wanted }),
        2 => (0..12_u8, any::<u32>()).prop_map(|(kind, wanted)| Step::WrongFacts { kind, wanted }),
        1 => (wallet.clone(), 1..5_u32).prop_map(|(wallet, depth)| Step::Register { wallet, depth }),
        2 => (wallet.clone(), 0..8_u32).prop_map(|(wallet, depth)| Step::Limit { wallet, depth }),
        1 => wallet.clone().prop_map(Step::Freeze),
        5 => wallet.prop_map(Step::Unfreeze),
        3 => (first.clone(), any::<bool>(), 0..4_u32)
            .prop_map(|(wallet, internal, count)| Step::GiveAddresses { wallet, internal, count }),
        16 => (first.clone(), caller.clone(), chosen.clone(), ttl.clone(), prop::option::weighted(0.2, payment.clone()), any::<bool>())
            .prop_map(|(wallet, caller, coins, ttl, payment, selected)| {
                Step::Reserve { wallet, caller, coins, ttl, payment, selected }
            }),
        3 => (some(), caller.clone(), ttl).prop_map(|(at, caller, ttl)| Step::Renew { at, caller, ttl }),
        4 => (some(), caller.clone(), any::<bool>())
            .prop_map(|(at, caller, others)| Step::Release { at, caller, others }),
        4 => prop::collection::vec(some(), 0..5).prop_map(Step::Expire),
        10 => (first, caller.clone(), payment.clone(), prop::bool::weighted(0.1), chosen, 0..3_000_u64)
            .prop_map(|(wallet, caller, payment, other_content, coins, fee)| {
                Step::Create { wallet, caller, payment, other_content, coins, fee }
            }),
        10 => (some(), caller, payment, 300..3_000_u64, fault)
            .prop_map(|(at, caller, payment, fee, fault)| Step::Pay { at, caller, payment, fee, fault }),
        10 => (some(), prop::bool::weighted(0.2)).prop_map(|(at, spoilt)| Step::Sign { at, spoilt }),
        3 => (some(), any::<bool>()).prop_map(|(at, refused)| Step::Relay { at, refused }),
        10 => some().prop_map(Step::Broadcast),
        12 => (some(), 0..CALLERS.len(), prop::bool::weighted(0.3), 300..2_600_u64, 0..3_usize)
            .prop_map(|(at, caller, cancel, fee, more)| Step::Replace { at, caller, cancel, fee, more }),
        6 => (some(), 0..CALLERS.len(), 300..2_600_u64).prop_map(|(at, caller, fee)| Step::Child { at, caller, fee }),
        2 => (some(), prop::bool::weighted(0.7)).prop_map(|(at, honest)| Step::Abort { at, honest }),
        2 => (0..8_u8).prop_map(Step::Recover),
        2 => some().prop_map(Step::ReleaseHeld),
        8 => (some(), again).prop_map(|(at, how)| Step::AskAgain { at, how }),
        2 => some().prop_map(Step::Nobody),
        1 => Just(Step::Skip),
        2 => Just(Step::Reload),
    ]
}

fn pick<T: Clone>(items: &[T], at: usize) -> Option<T> {
    (!items.is_empty()).then(|| items[at % items.len()].clone())
}

fn limits(depth: u32) -> WalletLimits {
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

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Wait(ms) => world.now += ms,
        Step::Fund { wallet, address, sat } => {
            world.chain.fund(fixtures()[*wallet].script(Keychain::External, *address), *sat);
        }
        Step::SpendOutside(at) => {
            // Most rob an attempt or a reservation.
            let signed_for = attempts(world).into_iter().flat_map(|(.., transaction)| transaction.input);
            let exposed: Vec<OutPoint> = signed_for.map(|input| input.previous_output).collect();
            let held = world.state.reservations_from(ReservationId(0)).flat_map(|(_, held)| held.outpoints.clone());
            let robbed = match at % 4 {
                0 | 1 => pick(&exposed, at / 4),
                2 => pick(&held.collect::<Vec<_>>(), at / 4),
                _ => None,
            };
            let coins: Vec<OutPoint> = world.chain.coins.keys().copied().collect();
            if let Some(coin) = robbed.or_else(|| pick(&coins, *at)) {
                world.chain.spend(&[coin]);
            }
        }
        Step::Mine { wanted, coinbase_to } => mine(world, *wanted, *coinbase_to),
        Step::Reorganise { depth, mined, wanted } => {
            for _ in 0..(*depth).min(world.chain.blocks.len() - 1) {
                world.disconnect();
            }
            (0..*mined).for_each(|_| mine(world, *wanted, None));
        }
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

/// Steps that ask for coins.
fn ask(world: &mut World, step: &Step) {
    match step {
        Step::Reserve { wallet, caller, coins, ttl, payment, selected } => {
            let outpoints = choose(world, *wallet, coins);
            let payment = payment.map(payment_id);
            let (wallet, ttl, selected) = (wallet_id(*wallet), Millis(*ttl), *selected);
            world.ask(CALLERS[*caller], Command::Reserve(Reserve { wallet, outpoints, ttl, payment, selected }));
        }
        Step::Renew { at, caller, ttl } => {
            let Some(reservation) = pick(&reservations(world), *at) else { return };
            let fence = ttl.is_multiple_of(2).then_some(reservation.fence());
            world.ask(CALLERS[*caller], Command::Renew { reservation, ttl: Millis(*ttl), fence });
        }
        Step::Release { at, caller, others } => {
            let Some(reservation) = pick(&reservations(world), *at) else { return };
            let command = Command::Release { reservation, fence: None };
            let mut request = world.request(CALLERS[*caller], &command);
            request.for_others = *others;
            world.run(Some(request), command);
        }
        Step::Expire(chosen) => {
            let all = reservations(world);
            let mut reservations: Vec<_> = chosen.iter().filter_map(|at| pick(&all, *at)).collect();
            reservations.extend(world.state.due_reservations(Millis(world.now), 2));
            world.duty(Command::Expire { reservations });
        }
        Step::Create { wallet, caller, payment, other_content, coins, fee } => {
            let outpoints = choose(world, *wallet, coins);
            let key = PaymentKey { wallet: wallet_id(*wallet), payment: payment_id(*payment) };
            let recipients = recipients(*payment, *other_content);
            let command = CreatePayment { key, recipients, outpoints, fee_sat: *fee };
            world.ask(CALLERS[*caller], Command::CreatePayment(command));
        }
        Step::Replace { at, caller, cancel, fee, more } => replace(world, *at, CALLERS[*caller], *cancel, *fee, *more),
        Step::Child { at, caller, fee } => child(world, *at, CALLERS[*caller], *fee),
        Step::Pay { at, caller, payment, fee, fault } => pay(world, *at, CALLERS[*caller], *payment, *fee, *fault),
        Step::Sign { at, spoilt } => sign(world, *at, *spoilt),
        Step::Relay { at, refused } => {
            let Some((key, attempt, _)) = pick(&attempts(world), *at) else { return };
            let relay = if *refused { Relay::Refused("mempool full".to_owned()) } else { Relay::Accepted };
            world.duty(Command::RecordRelay { key, attempt, relay });
        }
        Step::Broadcast(at) => {
            let Some((key, number, transaction)) = pick(&attempts(world), *at) else { return };
            let attempt = world.state.payment(&key).unwrap().attempt(number).unwrap();
            if attempt.end != Some(AttemptEnd::Aborted) {
                world.chain.submit(transaction);
            }
        }
        other => panic!("{other:?} asks for no coins"),
    }
}

fn choose(world: &World, wallet: usize, coins: &Coins) -> Vec<OutPoint> {
    match coins {
        Coins::Free(skip, take) => {
            let free = world.state.free_coins(&fixtures()[wallet].id);
            free.map(|(_, outpoint)| outpoint).skip(*skip).take(*take).collect()
        }
        Coins::Change(at) => {
            let change = onespend_core::unconfirmed::spendable_change(&world.state, &fixtures()[wallet].id);
            pick(&change, *at).map(|(outpoint, _)| outpoint).into_iter().collect()
        }
        Coins::Any(at) => {
            let all = world.coins(wallet);
            at.iter().filter_map(|at| pick(&all, *at)).collect()
        }
    }
}

fn mine(world: &mut World, wanted: u32, coinbase_to: Option<usize>) {
    let coinbase = coinbase_to.map(|wallet| (fixtures()[wallet].script(Keychain::External, 0), 30_000));
    let outcome = world.mine(coinbase, |position| wanted & (1 << (position % 32)) != 0);
    assert_eq!(outcome, Outcome::Recorded);
}

/// Facts that contradict the state or each other are refused, and change nothing.
fn wrong_facts(world: &mut World, kind: u8, wanted: u32) {
    let mut ahead = world.chain.clone();
    let reward = (fixtures()[0].script(Keychain::External, 3), 5_000);
    let block = ahead.mine(Some(reward), |position| wanted & (1 << (position % 32)) != 0);
    let (mut received, mut spent) = ahead.facts(&block, &world.registered);
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
    let outcome = world.duty(Command::ConnectBlock { block: at, previous, received, spent, wallets });
    assert!(matches!(outcome, Outcome::Rejected(Rejection::StaleBasis { .. })), "kind {kind}: {outcome:?}");
}

fn give_addresses(world: &mut World, wallet: usize, internal: bool, count: u32) {
    let keychain = if internal { Keychain::Internal } else { Keychain::External };
    let used = world.state.wallet(&wallet_id(wallet)).map_or(0, |wallet| wallet.next_index(keychain));
    if used + count + 20 < ADDRESSES {
        world.ask("client/payouts", Command::GiveAddresses { wallet: wallet_id(wallet), keychain, count });
    }
}

/// Pays with a transaction of the caller's own, which has a fault unless `fault` is 0.
fn pay(world: &mut World, at: usize, caller: &str, payment: u8, fee: u64, fault: u8) {
    let Some(reservation) = pick(&reservations(world), at) else { return };
    let Some(held) = world.state.reservation(reservation).cloned() else {
        let key = PaymentKey { wallet: wallet_id(0), payment: payment_id(payment) };
        let order = PayReserved {
            key,
            recipients: recipients(payment, false),
            reservation: Some(reservation),
            fence: reservation.fence(),
            transaction: transaction(&[], vec![]),
            change: None,
        };
        assert!(matches!(world.ask(caller, Command::PayReserved(order)), Outcome::Rejected(_)));
        return;
    };
    let caller = if at.is_multiple_of(4) { caller } else { held.owner.as_str() };
    let payment = held.payment.as_ref().map_or(payment, |id| id.as_str()[1..].parse().unwrap());
    let order = recipients(payment, false);
    let owed: u64 = order.iter().map(|recipient| recipient.amount_sat).sum();
    let mut outputs: Vec<(ScriptBuf, u64)> = order.iter().map(|r| (r.script.clone(), r.amount_sat)).collect();
    let has_index = world.state.wallet(&held.wallet).unwrap().next_external > 0;
    let mut inputs = held.outpoints.clone();
    inputs.reverse();
    // Half of those that would replace an attempt spend its anchor, as they must.
    let key = PaymentKey { wallet: held.wallet.clone(), payment: payment_id(payment) };
    let anchor = world.state.payment(&key).and_then(|known| known.anchor).filter(|_| at.is_multiple_of(2));
    inputs.extend(anchor);
    let rest = world.state.value_of(&inputs).saturating_sub(owed + fee);
    let wallet = fixtures().iter().position(|fixture| fixture.id == held.wallet).unwrap();
    let change = (has_index && rest > 1_000).then(|| {
        outputs.push((fixtures()[wallet].script(Keychain::External, 0), rest));
        Change { vout: u32::try_from(outputs.len()).unwrap() - 1, keychain: Keychain::External, index: 0 }
    });
    let mut paid = PayReserved {
        key,
        recipients: order,
        reservation: Some(reservation),
        fence: reservation.fence(),
        transaction: transaction(&inputs, outputs),
        change,
    };
    spoil(&mut paid, fault);
    let known = world.state.payment(&paid.key).is_some();
    let outcome = world.ask(caller, Command::PayReserved(paid));
    assert!(fault == 0 || known || matches!(outcome, Outcome::Rejected(_)), "fault {fault} was not seen: {outcome:?}");
}

fn spoil(order: &mut PayReserved, fault: u8) {
    let transaction = &mut order.transaction;
    match fault {
        0 => {}
        1 => transaction.input.clear(),
        2 => transaction.input.push(transaction.input[0].clone()),
        3 => transaction.input[0].previous_output = OutPoint::null(),
        4 => transaction.input[0].previous_output.vout ^= 1,
        5 => transaction.input[0].witness.push([1]),
        6 => transaction.input[0].script_sig = foreign_script(1),
        7 => transaction.output[0].value = bitcoin::Amount::from_sat(u64::MAX),
        8 => transaction.output[0].script_pubkey = foreign_script(9_999),
        9 => transaction.output.push(transaction.output[0].clone()),
        10 => order.fence = Fence(order.fence.0 - 1),
        11 => transaction.lock_time = bitcoin::absolute::LockTime::from_height(400_000_000).unwrap(),
        12 if transaction.input.len() > 1 => drop(transaction.input.pop()),
        12 | 13 => order.change = Some(Change { vout: 0, keychain: Keychain::Internal, index: u32::MAX }),
        _ => order.recipients[0].amount_sat = 1,
    }
}

/// Mostly one that is not settled yet.
fn some_payment(world: &World, at: usize) -> Option<PaymentKey> {
    let open = world.state.open_payments();
    let all: Vec<PaymentKey> = world.state.payments().map(|(key, _)| key.clone()).collect();
    pick(if at.is_multiple_of(8) { &all } else { &open }, at / 8)
}

/// Bumps or cancels; the caller is the owner three times out of four.
fn replace(world: &mut World, at: usize, caller: &str, cancel: bool, fee: u64, more: usize) {
    let Some(key) = some_payment(world, at) else { return };
    let payment = world.state.payment(&key).unwrap();
    let caller = if at.is_multiple_of(4) { caller.to_owned() } else { payment.owner.as_str().to_owned() };
    let previous = payment.live_attempt().map_or(AttemptNo(1), |(number, _)| number);
    let more = world.state.free_coins(&key.wallet).map(|(_, outpoint)| outpoint).take(more).collect();
    let command = Replace { key, previous, more, fee_sat: fee };
    let command = if cancel { Command::CancelPayment(command) } else { Command::BumpFee(command) };
    world.ask(&caller, command);
}

fn child(world: &mut World, at: usize, caller: &str, fee_sat: u64) {
    let Some(key) = some_payment(world, at) else { return };
    let payment = world.state.payment(&key).unwrap();
    let caller = if at.is_multiple_of(4) { caller.to_owned() } else { payment.owner.as_str().to_owned() };
    let parent = payment.live_attempt().map_or(AttemptNo(1), |(number, _)| number);
    // Few names, so that some are taken.
    let child = PaymentId::parse(&format!("c{}", at % 12)).unwrap();
    world.ask(&caller, Command::BumpByChild(BumpByChild { key, parent, child, fee_sat }));
}

/// safety 6: the signer's own word about this very attempt, or nothing.
fn abort(world: &mut World, at: usize, honest: bool) {
    let Some((key, number, transaction)) = pick(&attempts(world), at) else { return };
    // What miners have seen was signed, and its signer would not say otherwise.
    if world.chain.knows(transaction.compute_txid()) {
        return;
    }
    let mut command = world.abort(&key, number).unwrap();
    if !honest {
        command.proof[at % 64] ^= 1;
    }
    let before = world.state.payment(&key).unwrap().attempt(number).unwrap().clone();
    let owner = world.state.payment(&key).unwrap().owner.as_str().to_owned();
    let outcome = world.ask(&owner, Command::AbortAttempt(command));
    let may = fixtures()[3].id == key.wallet && before.signed.is_none() && before.end.is_none() && honest;
    let known = before.end == Some(AttemptEnd::Aborted);
    assert_eq!(outcome == Outcome::Recorded, may || known, "{outcome:?}");
}

fn recover(world: &mut World, part: u8) {
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

fn release_held(world: &mut World, at: usize) {
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

/// Signs what may be signed; a signature that is not plain is refused.
fn sign(world: &mut World, at: usize, spoilt: bool) {
    let Some((key, attempt, _)) = pick(&attempts(world), at) else { return };
    let Some(mut transaction) = world.signed(&key, attempt) else { return };
    if spoilt {
        let items = transaction.input[0].witness.to_vec();
        let mut signature = items[0].clone();
        signature[63] ^= 0x80;
        signature.resize(65, 0);
        signature[64] = 0x81;
        transaction.input[0].witness = bitcoin::Witness::from_slice(&[vec![signature], items[1..].to_vec()].concat());
    }
    let txid = transaction.compute_txid();
    let outcome = world.duty(Command::RecordSignature { key: key.clone(), attempt, transaction });
    let recorded = world.state.payment(&key).unwrap().attempt(attempt).unwrap().signed.as_ref();
    if spoilt {
        assert_eq!(outcome, Outcome::Rejected(Rejection::SignatureMismatch));
        assert_eq!(recorded, None);
    } else {
        assert_eq!(outcome, Outcome::Recorded);
        assert_eq!(recorded.map(Transaction::compute_txid), Some(txid), "safety 13 and 14");
    }
}

/// Retries, reused ids, and entries that come twice; the oracle knows the right answers.
fn ask_again(world: &mut World, at: usize, how: Again) {
    let asked: Vec<usize> = (0..world.log.len()).filter(|at| world.log[*at].1.request.is_some()).collect();
    let Some(position) = pick(&asked, at) else { return };
    let (index, entry, _) = world.log[position].clone();
    let mut request = entry.request.clone().unwrap();
    match how {
        Again::Same => {}
        Again::OtherContent => request.digest[0] ^= 1,
        Again::OtherCaller => {
            request.key.caller = onespend_core::ids::CallerId::parse("client/other").unwrap();
        }
        Again::OldIndex => {
            let mut again = world.state.clone();
            let outcome = onespend_core::apply::apply(&mut again, index, &entry);
            assert!(matches!(outcome, Outcome::Rejected(Rejection::StaleBasis { .. })), "{outcome:?}");
            assert_eq!(again.hash(), world.state.hash());
            return;
        }
    }
    let registers = matches!(entry.command, Command::RegisterWallet(_));
    if !registers {
        world.run(Some(request), entry.command);
    }
}

/// safety 28: a command that belongs to a caller is refused when nobody asks.
fn nobody_asks(world: &mut World, at: usize) {
    let reservation = pick(&reservations(world), at).unwrap_or(ReservationId(1));
    let (wallet, ttl) = (wallet_id(at % SIGNED_FOR), DEFAULT_RESERVATION_TTL);
    let outpoints: Vec<OutPoint> = world.state.free_coins(&wallet).take(2).map(|coin| coin.1).collect();
    let key = PaymentKey { wallet: wallet.clone(), payment: PaymentId::parse("nobody").unwrap() };
    let command = match at % 4 {
        0 => Command::Release { reservation, fence: None },
        1 => Command::Renew { reservation, ttl, fence: None },
        2 => Command::Reserve(Reserve { wallet, outpoints, ttl, payment: None, selected: false }),
        _ => {
            let recipients = recipients(0, false);
            Command::CreatePayment(CreatePayment { key, recipients, outpoints, fee_sat: 500 })
        }
    };
    let outcome = world.duty(command);
    assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// safety 1, 2, 4 to 9, 11 to 15, 17, 19 to 21, 23 to 25, 28, 30, for every stream: what holds in one state by
/// `invariant::check`, what callers were told by the oracle, replay by a second node that reads the bytes, the store by
/// loading it again.
#[test]
fn every_invariant_holds_after_every_command_and_the_history_is_right() {
    let wanted = number("ONESPEND_CORE_COMMANDS", DEFAULT_COMMANDS);
    let worlds = wanted.div_ceil(COMMANDS_PER_WORLD);
    let seed = number("ONESPEND_CORE_SEED", 1) as u64;
    let config = Config {
        cases: u32::try_from(worlds).unwrap(),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 500,
        ..Config::default()
    };
    let seen = std::cell::Cell::new([0_usize; 7]);
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
        ];
        let mut sums = seen.get();
        sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        seen.set(sums);
        Ok(())
    });
    if let Err(error) = result {
        panic!("seed {seed}: {error}");
    }
    // A stream that never gets that far would prove nothing.
    let [commands, payments, settled, died, replaced, cancelled, children] = seen.get();
    println!("commands, payments, settled, died, replaced, cancelled, children: {:?}", seen.get());
    assert!(commands > wanted * 9 / 10, "only {commands} commands were tried");
    assert!(payments > worlds && settled > worlds / 2 && died > worlds / 20, "{commands} commands: {:?}", seen.get());
    assert!(replaced > worlds && cancelled > worlds / 4 && children > worlds / 20, "{:?}", seen.get());
}
