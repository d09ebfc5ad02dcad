//! Steps that ask for coins: reservations, payments, further attempts.

use bitcoin::{OutPoint, ScriptBuf};
use onespend_core::command::{BumpByChild, Change, Command, CreatePayment, PayReserved, Relay, Replace, Reserve};
use onespend_core::ids::{AttemptNo, Fence, Millis, PaymentId, PaymentKey, WalletId};
use onespend_core::outcome::Outcome;
use onespend_core::payment::AttemptEnd;
use onespend_core::state::State;
use onespend_core::unconfirmed::{change_of, is_spendable};
use onespend_core::utxo::Claim;
use onespend_core::wallet::Keychain;

use super::signatures::sign;
use super::step::{CALLERS, Coins, Step};
use super::{attempts, payment_id, pick, recipients, reservations, wallet_id};
use crate::world::World;
use crate::world::chain::{foreign_script, transaction};
use crate::world::wallets::fixtures;

/// Steps that ask for coins.
pub(super) fn ask(world: &mut World, step: &Step) {
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
        Coins::Change(at) => pick(&spendable_change(&world.state, &fixtures()[wallet].id), *at).into_iter().collect(),
        Coins::Any(at) => {
            let all = world.coins(wallet);
            at.iter().filter_map(|at| pick(&all, *at)).collect()
        }
    }
}

/// Change of a wallet that is in no block, may be spent, and is claimed by nobody.
fn spendable_change(state: &State, wallet: &WalletId) -> Vec<OutPoint> {
    let open = state.open_payments().into_iter().filter(|key| key.wallet == *wallet);
    let change = open.filter_map(|key| {
        let (_, attempt) = state.payment(&key)?.live_attempt()?;
        let outpoint = change_of(attempt)?;
        let utxo = state.utxo(&outpoint)?;
        (utxo.claim == Claim::Free && is_spendable(state, &outpoint, utxo)).then_some(outpoint)
    });
    change.collect()
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
