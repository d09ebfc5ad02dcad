//! One fixed story in which every kind of command occurs, and every kind of row remains.
#![allow(dead_code)] // Each test that includes this module uses its own part of it.

use bitcoin::OutPoint;
use bitcoin::hashes::Hash;
use onespend_core::command::{
    BumpByChild, Change, Command, CreatePayment, PayReserved, Received, Recipient, RegisterOutpoints, RegisterWallet,
    Relay, Replace, Reserve,
};
use onespend_core::ids::{AttemptNo, Millis, PaymentId, PaymentKey, ReservationId, WalletId};
use onespend_core::limits::{Velocity, WalletLimits};
use onespend_core::outcome::Outcome;
use onespend_core::wallet::{Keychain, SignerRef};

use crate::world::World;
use crate::world::chain::{foreign_script, transaction};
use crate::world::wallets::{SINGLE, fixtures};

const FIRST: AttemptNo = AttemptNo(1);

fn key(wallet: usize, payment: &str) -> PaymentKey {
    PaymentKey { wallet: fixtures()[wallet].id.clone(), payment: PaymentId::parse(payment).unwrap() }
}

fn owed() -> Vec<Recipient> {
    vec![
        Recipient { script: foreign_script(5), amount_sat: 20_000 },
        Recipient { script: foreign_script(4), amount_sat: 3_000 },
    ]
}

fn reserve(world: &mut World, wallet: usize, coin: OutPoint, payment: Option<&str>) -> ReservationId {
    let payment = payment.map(|payment| PaymentId::parse(payment).unwrap());
    let (wallet, outpoints) = (fixtures()[wallet].id.clone(), vec![coin]);
    let command = Reserve { wallet, outpoints, ttl: Millis(600_000), selected: payment.is_none(), payment };
    match world.ask("client/payouts", Command::Reserve(command)) {
        Outcome::Reserved { reservation, .. } => reservation,
        other => panic!("{other:?}"),
    }
}

fn create(world: &mut World, key: PaymentKey, coin: OutPoint) -> Outcome {
    let command = CreatePayment { key, recipients: owed(), outpoints: vec![coin], fee_sat: 500 };
    world.ask("client/payouts", Command::CreatePayment(command))
}

fn sign_and_send(world: &mut World, key: &PaymentKey) {
    let signed = world.signed(key, FIRST).unwrap();
    world.chain.submit(signed.clone());
    let duties = [
        Command::RecordSignature { key: key.clone(), attempt: FIRST, transaction: signed },
        Command::RecordRelay { key: key.clone(), attempt: FIRST, relay: Relay::Refused("mempool full".to_owned()) },
        Command::RecordRelay { key: key.clone(), attempt: FIRST, relay: Relay::Accepted },
    ];
    for duty in duties {
        assert_eq!(world.duty(duty), Outcome::Recorded);
    }
}

/// Tells the story.
pub fn tell() -> World {
    let mut world = World::new();
    for wallet in 0..SINGLE {
        let limits = WalletLimits { finality_depth: 2, max_fee_percent: 20, ..WalletLimits::default() };
        assert_eq!(world.register("operator/alice", wallet, limits), Outcome::WalletChanged);
    }
    let coins: Vec<OutPoint> = (0..6)
        .map(|index| world.chain.fund(fixtures()[(index % 2) as usize].script(Keychain::External, index), 50_000))
        .collect();
    world.mine(Some((fixtures()[2].script(Keychain::External, 0), 70_000)), |_| true);
    give_addresses(&mut world);
    pay_both_ways(&mut world, &coins);
    end_reservations(&mut world, &coins);

    world.chain.spend(&[coins[4]]);
    world.mine(None, |_| true);
    world.mine(None, |_| true);
    world.disconnect();
    world.mine(None, |_| true);
    change_settings(&mut world);
    // What is left open: a reservation, an attempt that waits for its signature, and one that is robbed.
    reserve(&mut world, 1, coins[3], None);
    let last = world.chain.fund(fixtures()[0].script(Keychain::External, 9), 60_000);
    world.mine(None, |_| true);
    assert!(matches!(create(&mut world, key(0, "waits"), last), Outcome::Permitted { .. }));
    replace_and_abort(&mut world);
    recover(&mut world);
    world
}

/// Every way to a further attempt, under a velocity limit; and an attempt that its signer gives up.
fn replace_and_abort(world: &mut World) {
    let wallet = fixtures()[0].id.clone();
    let velocity = Some(Velocity { window: Millis(60_000), max_sat: 1_000_000 });
    let limits = WalletLimits {
        velocity,
        max_reserved_percent: Some(90),
        spend_unconfirmed_change: Some(true),
        ..WalletLimits::default()
    };
    assert_eq!(world.ask("operator/alice", Command::SetLimits { wallet, limits }), Outcome::WalletChanged);
    let fund = |world: &mut World, wallet: usize, index| {
        world.chain.fund(fixtures()[wallet].script(Keychain::External, index), 90_000)
    };
    let coins = [fund(world, 0, 20), fund(world, 0, 21), fund(world, 3, 20)];
    world.mine(None, |_| true);
    for (name, coin) in ["bumped", "cancelled"].into_iter().zip(coins) {
        assert!(matches!(create(world, key(0, name), coin), Outcome::Permitted { .. }));
    }
    let replace = |name, previous: u32, fee_sat| Replace {
        key: key(0, name),
        previous: AttemptNo(previous),
        more: vec![],
        fee_sat,
    };
    let permitted = |outcome| assert!(matches!(outcome, Outcome::Permitted { .. }), "{outcome:?}");
    permitted(world.ask("client/payouts", Command::CancelPayment(replace("cancelled", 1, 900))));
    sign_and_send(world, &key(0, "bumped"));
    let child =
        BumpByChild { key: key(0, "bumped"), parent: FIRST, child: PaymentId::parse("child").unwrap(), fee_sat: 1_000 };
    permitted(world.ask("client/payouts", Command::BumpByChild(child)));
    permitted(world.ask("client/payouts", Command::BumpFee(replace("cancelled", 2, 1_200))));
    assert!(matches!(create(world, key(3, "fenced"), coins[2]), Outcome::Permitted { .. }));
    let abort = world.abort(&key(3, "fenced"), FIRST).unwrap();
    assert_eq!(world.ask("client/payouts", Command::AbortAttempt(abort)), Outcome::Recorded);
}

/// A restored state that is confirmed, and a coin that was held back meanwhile; then another that is not confirmed.
fn recover(world: &mut World) {
    let held = world.chain.fund(fixtures()[1].script(Keychain::External, 30), 40_000);
    world.mine(None, |_| true);
    let wallet = fixtures()[1].id.clone();
    let enter = || Command::EnterRecovery { why: "yesterday's data".to_owned() };
    assert_eq!(world.duty(enter()), Outcome::Recorded);
    let reconcile = Command::Reconcile { basis: world.chain.tip(), spent_outside: vec![held] };
    assert_eq!(world.duty(reconcile), Outcome::Recorded);
    let note = || "checked".to_owned();
    let confirm = Command::ConfirmRecovery { epoch: 3, note: note() };
    assert_eq!(world.ask("operator/alice", confirm), Outcome::Recorded);
    let release = Command::ReleaseQuarantined { wallet, outpoints: vec![held], note: note() };
    assert_eq!(world.ask("operator/alice", release), Outcome::Recorded);
    assert_eq!(world.duty(enter()), Outcome::Recorded);
}

/// Entries about a wallet without descriptors, which the model of the chain knows nothing of.
pub fn outpoints(world: &World) -> Vec<Command> {
    let wallet = WalletId::parse("outpoints").unwrap();
    let basis = world.state.tip().unwrap();
    let register = RegisterWallet {
        wallet: wallet.clone(),
        descriptor: String::new(),
        signer: SignerRef::WatchOnly,
        limits: WalletLimits::default(),
        basis,
        found: vec![],
        fence_key: None,
    };
    let found = Received {
        outpoint: OutPoint { txid: bitcoin::Txid::from_byte_array([7; 32]), vout: 1 },
        wallet: wallet.clone(),
        value_sat: 55_000,
        script: foreign_script(77),
        keychain: Keychain::External,
        index: 0,
        coinbase: false,
        height: basis.height,
    };
    let outpoints = RegisterOutpoints { wallet, basis, found: vec![found] };
    vec![Command::RegisterWallet(register), Command::RegisterOutpoints(outpoints)]
}

fn give_addresses(world: &mut World) {
    for keychain in [Keychain::External, Keychain::Internal] {
        let wallet = fixtures()[0].id.clone();
        let outcome = world.ask("client/payouts", Command::GiveAddresses { wallet, keychain, count: 2 });
        assert!(matches!(outcome, Outcome::AddressesGiven { .. }));
    }
}

/// One payment by the leader's choice, one by the caller's own transaction, one whose coin others take.
fn pay_both_ways(world: &mut World, coins: &[OutPoint]) {
    assert!(matches!(create(world, key(1, "chosen"), coins[1]), Outcome::Permitted { .. }));
    sign_and_send(world, &key(1, "chosen"));
    let reservation = reserve(world, 0, coins[0], Some("own"));
    let mut outputs: Vec<_> = owed().into_iter().map(|recipient| (recipient.script, recipient.amount_sat)).collect();
    outputs.push((fixtures()[0].script(Keychain::Internal, 1), 26_000));
    let command = Command::PayReserved(PayReserved {
        key: key(0, "own"),
        recipients: owed(),
        reservation: Some(reservation),
        fence: reservation.fence(),
        transaction: transaction(&[coins[0]], outputs),
        change: Some(Change { vout: 2, keychain: Keychain::Internal, index: 1 }),
    });
    assert!(matches!(world.ask("client/payouts", command), Outcome::Permitted { .. }));
    sign_and_send(world, &key(0, "own"));
    assert!(matches!(create(world, key(0, "robbed"), coins[4]), Outcome::Permitted { .. }));
}

/// One is released by a role, one is renewed and expires.
fn end_reservations(world: &mut World, coins: &[OutPoint]) {
    let reservation = reserve(world, 1, coins[5], None);
    let command = Command::Release { reservation, fence: Some(reservation.fence()) };
    let mut request = world.request("operator/alice", &command);
    request.for_others = true;
    assert_eq!(world.run(Some(request), command), Outcome::Released);
    let reservation = reserve(world, 1, coins[5], None);
    let renew = Command::Renew { reservation, ttl: Millis(700_000), fence: None };
    assert!(matches!(world.ask("client/payouts", renew), Outcome::Renewed { .. }));
    world.now += 700_000;
    assert_eq!(world.duty(Command::Expire { reservations: vec![reservation] }), Outcome::Recorded);
    assert!(world.state.reservation(reservation).is_none());
}

fn change_settings(world: &mut World) {
    let wallet = fixtures()[2].id.clone();
    let limits = WalletLimits { finality_depth: 10, ..WalletLimits::default() };
    let commands = [
        Command::SetLimits { wallet: wallet.clone(), limits },
        Command::FreezeWallet { wallet: wallet.clone(), why: "audit".to_owned() },
        Command::UnfreezeWallet { wallet: wallet.clone() },
        Command::FreezeWallet { wallet, why: "audit again".to_owned() },
    ];
    for command in commands {
        assert_eq!(world.ask("operator/alice", command), Outcome::WalletChanged);
    }
}
