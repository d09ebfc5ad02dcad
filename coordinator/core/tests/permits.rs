//! When a signer may be called, and with what (safety 3, 14, 18); and what weight its result is paid for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use bitcoin::{OutPoint, Transaction, Witness};
use onespend_core::command::{Command, CreatePayment, Recipient, Replace};
use onespend_core::ids::{AttemptNo, PaymentId, PaymentKey};
use onespend_core::limits::WalletLimits;
use onespend_core::outcome::Outcome;
use onespend_core::signing::SigningPermit;
use onespend_core::transaction::{build, signed_weight};
use onespend_core::wallet::{Keychain, SignerRef, WalletDescriptor};

use world::World;
use world::chain::foreign_script;
use world::wallets::fixtures;

const FIRST: AttemptNo = AttemptNo(1);

/// A wallet with one payment whose intent is committed.
fn permitted() -> (World, PaymentKey, [OutPoint; 2]) {
    ordered(60_000)
}

/// The same of another amount, of the 100011 sat that there are.
fn ordered(amount_sat: u64) -> (World, PaymentKey, [OutPoint; 2]) {
    let mut world = World::new();
    let limits = WalletLimits { finality_depth: 2, ..WalletLimits::default() };
    assert_eq!(world.register("operator/alice", 0, limits), Outcome::WalletChanged);
    let coins = [4, 7]
        .map(|index| world.chain.fund(fixtures()[0].script(Keychain::External, index), 50_000 + u64::from(index)));
    world.mine(None, |_| true);
    let key = PaymentKey { wallet: fixtures()[0].id.clone(), payment: PaymentId::parse("p1").unwrap() };
    assert_eq!(SigningPermit::for_attempt(&world.state, &key, FIRST), None, "there is no intent yet");
    let recipients = vec![Recipient { script: foreign_script(1), amount_sat }];
    let command = CreatePayment { key: key.clone(), recipients, outpoints: coins.to_vec(), fee_sat: 500 };
    let outcome = world.ask("client/payouts", Command::CreatePayment(command));
    assert_eq!(outcome, Outcome::Permitted { payment: key.clone(), attempt: FIRST });
    (world, key, coins)
}

/// safety 3, 14, 18: none before the intent is applied, always the same one after it, and the coins as the state has
/// them.
#[test]
fn a_permit_holds_the_committed_bytes_and_our_own_view_of_the_coins() {
    let (world, key, coins) = permitted();
    let permit = SigningPermit::for_attempt(&world.state, &key, FIRST).unwrap();
    assert_eq!(permit.transaction(), &world.state.payment(&key).unwrap().attempts[0].transaction);
    assert_eq!(permit.fence().0, world.state.applied().0);
    assert_eq!(permit.signer(), &SignerRef::Named("hot".to_owned()));
    for (input, coin) in permit.transaction().input.iter().zip(permit.inputs()) {
        assert_eq!(input.previous_output, coin.outpoint);
        let index = if coin.outpoint == coins[0] { 4 } else { 7 };
        assert_eq!((coin.keychain, coin.index), (Keychain::External, index));
        assert_eq!(coin.txout.value.to_sat(), 50_000 + u64::from(index));
        assert_eq!(coin.txout.script_pubkey, fixtures()[0].script(Keychain::External, index));
    }
    let again = SigningPermit::for_attempt(&world.state, &key, FIRST).unwrap();
    assert_eq!(again, permit, "signing again is signing the same");
    for number in [0, 2, u32::MAX] {
        assert_eq!(SigningPermit::for_attempt(&world.state, &key, AttemptNo(number)), None);
    }
}

#[test]
fn nothing_is_permitted_while_the_wallet_is_frozen() {
    let (mut world, key, _) = permitted();
    let wallet = key.wallet.clone();
    world.ask("operator/alice", Command::FreezeWallet { wallet: wallet.clone(), why: "audit".to_owned() });
    assert_eq!(SigningPermit::for_attempt(&world.state, &key, FIRST), None);
    world.ask("operator/alice", Command::UnfreezeWallet { wallet });
    assert!(SigningPermit::for_attempt(&world.state, &key, FIRST).is_some());
}

/// safety 13: after the signature is recorded there is nothing to sign.
#[test]
fn nothing_is_permitted_twice_or_after_the_end() {
    let (mut world, key, coins) = permitted();
    let (signed, mut robbed) = (world.signed(&key, FIRST).unwrap(), permitted().0);
    world.duty(Command::RecordSignature { key: key.clone(), attempt: FIRST, transaction: signed });
    assert_eq!(SigningPermit::for_attempt(&world.state, &key, FIRST), None);

    robbed.chain.spend(&coins);
    robbed.mine(None, |_| true);
    assert!(SigningPermit::for_attempt(&robbed.state, &key, FIRST).is_some(), "a conflict below finality is no end");
    robbed.mine(None, |_| true);
    assert_eq!(SigningPermit::for_attempt(&robbed.state, &key, FIRST), None);
}

/// safety 30: nothing is permitted, and a signature that a signer was making when the mode began is kept.
#[test]
fn in_recovery_mode_nothing_is_permitted_and_a_signature_that_exists_is_recorded() {
    let (mut world, key, _) = permitted();
    let signed = world.signed(&key, FIRST).unwrap();
    assert_eq!(world.duty(Command::EnterRecovery { why: "a copy".to_owned() }), Outcome::Recorded);
    assert_eq!(SigningPermit::for_attempt(&world.state, &key, FIRST), None);
    let record = Command::RecordSignature { key: key.clone(), attempt: FIRST, transaction: signed.clone() };
    assert_eq!(world.duty(record), Outcome::Recorded);
    assert_eq!(world.state.payment(&key).unwrap().attempt(FIRST).unwrap().signed, Some(signed));
}

/// safety 10, 21: what a signer's memory may sign although it remembers something else.
#[test]
fn a_cancellation_pays_only_the_wallet_and_a_payment_does_not() {
    for (amount_sat, has_change) in [(60_000, true), (99_511, false)] {
        let (mut world, key, _) = ordered(amount_sat);
        let permit = SigningPermit::for_attempt(&world.state, &key, FIRST).unwrap();
        assert_eq!((permit.change().is_some(), permit.pays_only_the_wallet()), (has_change, false));
        let replace = Replace { key: key.clone(), previous: FIRST, more: vec![], fee_sat: 2_000 };
        let (outcome, attempt) = (world.ask("client/payouts", Command::CancelPayment(replace)), AttemptNo(2));
        assert_eq!(outcome, Outcome::Permitted { payment: key.clone(), attempt });
        let cancel = SigningPermit::for_attempt(&world.state, &key, attempt).unwrap();
        assert!(cancel.pays_only_the_wallet(), "{cancel:?}");
    }
}

/// safety 22: the feerate is that of the signed transaction, so the bound on its weight must never be too small.
#[test]
fn the_weight_bound_covers_the_largest_signature() {
    for (fixture, largest) in [(&fixtures()[0], vec![vec![1; 72], vec![2; 33]]), (&fixtures()[1], vec![vec![1; 65]])] {
        let descriptor = WalletDescriptor::parse(&fixture.descriptor, bitcoin::Network::Regtest).unwrap();
        for inputs in [1, 2, 252, 253, 400] {
            let outpoints: Vec<OutPoint> = (0..inputs).map(|vout| OutPoint { vout, ..OutPoint::null() }).collect();
            let order = [Recipient { script: foreign_script(1), amount_sat: 1 }];
            let (mut transaction, _): (Transaction, _) = build(&outpoints, &order, None);
            let bound = signed_weight(&transaction, descriptor.satisfaction_weight());
            for input in &mut transaction.input {
                input.witness = Witness::from_slice(&largest);
            }
            let weight = transaction.weight().to_wu();
            assert!(weight <= bound && bound <= weight + 4 * u64::from(inputs), "{weight} of {bound} for {inputs}");
        }
    }
}

/// BIP-69 orders txids as they are shown, then outputs by amount and script.
#[test]
fn built_transactions_are_in_the_order_of_bip_69() {
    use bitcoin::hashes::Hash;
    let outpoint = |first: u8, last: u8, vout| {
        let mut txid = [0; 32];
        (txid[0], txid[31]) = (first, last);
        OutPoint { txid: bitcoin::Txid::from_byte_array(txid), vout }
    };
    let sorted = [outpoint(9, 0, 0), outpoint(1, 1, 0), outpoint(1, 1, 300), outpoint(2, 1, 2), outpoint(0, 2, 1)];
    let mut shuffled = sorted;
    shuffled.reverse();
    shuffled.swap(0, 2);
    let recipient = |number, amount_sat| Recipient { script: foreign_script(number), amount_sat };
    let order = [recipient(2, 500), recipient(1, 500), recipient(3, 100)];
    let (transaction, change) = build(&shuffled, &order, Some((foreign_script(0), 500)));
    let inputs: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
    assert_eq!(inputs, sorted);
    let shown: Vec<String> = inputs.iter().map(|outpoint| outpoint.txid.to_string()).collect();
    assert!(shown.is_sorted());
    let outputs: Vec<_> = transaction.output.iter().map(|o| (o.value.to_sat(), o.script_pubkey.clone())).collect();
    let expected = [(100, 3), (500, 0), (500, 1), (500, 2)].map(|(sat, number)| (sat, foreign_script(number)));
    assert_eq!(outputs, expected);
    assert_eq!(change, Some(1));
}
