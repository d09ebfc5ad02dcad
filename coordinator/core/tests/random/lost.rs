//! Deposits that payments spend and strangers spend a second time: a reorganisation takes one away, and another transaction
//! takes what it would spend (safety 6, 9, 17).

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use onespend_core::command::{Command, CreatePayment, DeclareLost};
use onespend_core::ids::{PaymentKey, WalletId};
use onespend_core::outcome::Outcome;
use onespend_core::payment::Attempt;
use onespend_core::wallet::Keychain;

use super::facts::mine;
use super::step::SIGNED_FOR;
use super::{payment_id, pick, recipients, wallet_id};
use crate::world::World;
use crate::world::wallets::fixtures;

/// Most confirmations of a deposit that is spent a second time: less than what most wallets call final.
const YOUNG: u32 = 2;
/// Most confirmations of what took a deposit away, for it to be taken back again.
const DEEPEST: u32 = 5;
/// Names of payments that no other step uses begin here.
const FIRST_PAYMENT: u8 = 6;
const PAYMENTS: usize = 30;

/// Takes a deposit out of the chain that a payment waits for, and mines what spends the same, and some blocks more.
pub(super) fn double_spend(world: &mut World, at: usize, mined: usize, wanted: u32) {
    let found = pick(&young_deposits(world), at);
    let Some(maker) = found.or_else(|| pay_with_a_new_deposit(world, at)) else { return };
    while world.chain.depth(maker) > 0 {
        world.disconnect();
    }
    world.chain.double_spend(maker);
    mine_the_last(world);
    (0..mined).for_each(|_| mine(world, wanted, None));
}

/// A block with nothing in it but what was submitted last.
fn mine_the_last(world: &mut World) {
    let last = world.chain.pending.len() - 1;
    assert_eq!(world.mine(None, |position| position == last), Outcome::Recorded);
}

/// Transactions of strangers that made what running attempts spend, and that can still be taken away.
fn young_deposits(world: &World) -> Vec<Txid> {
    let running = world.state.payments().flat_map(|(_, payment)| &payment.attempts).filter(|one| one.end.is_none());
    let coins = running.flat_map(Attempt::inputs);
    let mut makers: Vec<Txid> = coins.filter(|coin| is_young(world, coin)).map(|coin| coin.txid).collect();
    makers.sort_unstable();
    makers.dedup();
    makers
}

fn is_young(world: &World, coin: &OutPoint) -> bool {
    if world.state.attempt_of(coin.txid).is_some() {
        return false;
    }
    match world.chain.depth(coin.txid) {
        0 => world.chain.waiting(coin.txid).is_some_and(|waiting| world.chain.rival_of(waiting).is_none()),
        depth => depth <= YOUNG && world.chain.coins.get(coin).is_some_and(|coin| !coin.coinbase),
    }
}

/// An order that spends a new deposit, half of the time beside a coin that was there; `None` where it is refused.
fn pay_with_a_new_deposit(world: &mut World, at: usize) -> Option<Txid> {
    let wallet = at % SIGNED_FOR;
    let free = world.state.free_coins(&fixtures()[wallet].id).map(|(_, outpoint)| outpoint);
    let mut outpoints: Vec<OutPoint> = free.take(at / SIGNED_FOR % 2).collect();
    let deposit = world.chain.fund(fixtures()[wallet].script(Keychain::External, 0), 60_000);
    mine_the_last(world);
    outpoints.push(deposit);
    let payment = FIRST_PAYMENT + u8::try_from(at / 4 % PAYMENTS).unwrap();
    let key = PaymentKey { wallet: wallet_id(wallet), payment: payment_id(payment) };
    let order = CreatePayment { key, recipients: recipients(payment, false), outpoints, fee_sat: 600 };
    let outcome = world.ask("client/payouts", Command::CreatePayment(order));
    matches!(outcome, Outcome::Permitted { .. }).then_some(deposit.txid)
}

/// Declares a coin lost of which the chain has what took it away, with a lie in it unless `lie` is 0. With `undo`, what took
/// it away is taken back, where it is not too deep for that.
pub(super) fn declare(world: &mut World, at: usize, lie: u8, undo: bool) {
    let (all, strangers) = taken_away(world);
    let Some((wallet, outpoint, by)) = pick(if at.is_multiple_of(4) { &all } else { &strangers }, at / 4) else {
        return;
    };
    let block = world.chain.block_of(by).unwrap().at;
    let mut command = DeclareLost { wallet: wallet.clone(), outpoint, by, block, note: "looked up".to_owned() };
    let is_lost = is_lost(world, &command);
    let is_lie = spoil(&mut command, lie, spender(world, &outpoint));
    let outcome = world.ask("operator/alice", Command::DeclareLost(command));
    let is_recorded = outcome == Outcome::Recorded;
    assert_eq!(is_recorded, is_lost && !is_lie, "safety 6: {outcome:?}");
    if is_recorded && undo && world.chain.depth(by) <= DEEPEST {
        while world.chain.depth(by) > 0 {
            world.disconnect();
        }
        assert!(world.state.wallet(&wallet).unwrap().frozen.is_some(), "safety 17: {wallet} goes on");
    }
}

/// A coin that is in no block, and what is in a block and spends the same as what made it.
type Taken = (WalletId, OutPoint, Txid);

/// All that were taken away; and those of strangers, of which nobody has said so yet.
fn taken_away(world: &World) -> (Vec<Taken>, Vec<Taken>) {
    let (mut all, mut strangers) = (Vec::new(), Vec::new());
    for (outpoint, coin) in world.state.utxos().filter(|(_, coin)| coin.height.is_none()) {
        let waiting = world.chain.waiting(outpoint.txid);
        let Some(by) = waiting.and_then(|waiting| world.chain.rival_of(waiting)) else { continue };
        let taken = (coin.wallet.clone(), *outpoint, by);
        if coin.spent.is_none() && world.state.attempt_of(outpoint.txid).is_none() {
            strangers.push(taken.clone());
        }
        all.push(taken);
    }
    (all, strangers)
}

fn spender(world: &World, outpoint: &OutPoint) -> Option<Txid> {
    let mut spenders = world.state.payments().flat_map(|(_, payment)| &payment.attempts);
    spenders.find(|attempt| attempt.inputs().any(|input| input == *outpoint)).map(Attempt::txid)
}

/// A stranger's, which somebody waits for, and lost at finality depth; and nobody has said so yet.
fn is_lost(world: &World, command: &DeclareLost) -> bool {
    let DeclareLost { wallet, outpoint, by, .. } = command;
    let waits = |attempt: &Attempt| attempt.end.is_none() && attempt.inputs().any(|input| input == *outpoint);
    world.state.attempt_of(outpoint.txid).is_none()
        && world.state.utxo(outpoint).unwrap().spent.is_none()
        && world.chain.depth(*by) >= world.state.wallet(wallet).unwrap().limits.finality_depth
        && world.state.payments().any(|(_, payment)| payment.attempts.iter().any(waits))
}

/// What the core can tell to be wrong. Whether two transactions conflict it has to believe; that one is no lie of these.
fn spoil(command: &mut DeclareLost, lie: u8, spender: Option<Txid>) -> bool {
    match (lie, spender) {
        (1, _) => command.block.hash = BlockHash::all_zeros(),
        (2, _) => command.by = command.outpoint.txid,
        (3, Some(txid)) => command.by = txid,
        (4, _) => command.wallet = wallet_id(usize::from(command.wallet == wallet_id(0))),
        _ => return false,
    }
    true
}
