#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, BlockHash, Network, TxIn, WScriptHash};
use onespend_core::apply::apply;
use onespend_core::command::{BlockRef, Command, CreatePayment, Entry, Received, RegisterWallet, Replace, Request};
use onespend_core::ids::{CallerId, Height, LogIndex, Millis, PaymentId, RequestId, RequestKey, WalletId};
use onespend_core::limits::WalletLimits;
use onespend_core::outcome::Outcome;
use onespend_core::wallet::{SignerRef, WalletDescriptor};

use super::*;

/// A state, and the next entry's place.
struct World {
    state: State,
    index: u64,
}

const TIP: u32 = 200;

impl World {
    /// A wallet with coins of these values.
    fn new(values_sat: &[u64]) -> Self {
        let mut world = Self { state: State::default(), index: 0 };
        let tip = BlockRef { height: Height(TIP), hash: BlockHash::from_byte_array([7; 32]) };
        world.apply(Command::Start { network: Network::Regtest, tip });
        let key = Xpub::from_priv(&Secp256k1::new(), &Xpriv::new_master(Network::Regtest, &[9; 32]).unwrap());
        let descriptor = WalletDescriptor::parse(&format!("wpkh({key}/<0;1>/*)"), Network::Regtest).unwrap();
        let coin = |(index, value_sat): (u32, &u64)| Received {
            outpoint: OutPoint::new(Txid::from_byte_array([1; 32]), index),
            wallet: key_of("p").wallet,
            value_sat: *value_sat,
            script: descriptor.script(Keychain::External, index).unwrap(),
            keychain: Keychain::External,
            index,
            coinbase: false,
            height: Height(100),
        };
        world.apply(Command::RegisterWallet(RegisterWallet {
            wallet: key_of("p").wallet,
            descriptor: descriptor.as_str().to_owned(),
            signer: SignerRef::Named("hot".to_owned()),
            limits: WalletLimits { max_fee_percent: 100, ..WalletLimits::default() },
            basis: tip,
            found: (0..).zip(values_sat).map(coin).collect(),
            fence_key: None,
        }));
        world
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let key = RequestKey {
            caller: CallerId::parse("client/payouts").unwrap(),
            request: RequestId::parse(&self.index.to_string()).unwrap(),
        };
        let request = Some(Request { key, digest: [0; 32], for_others: false });
        let entry = Entry { at: Millis(self.index), wall_ms: 0, request, command };
        let outcome = apply(&mut self.state, LogIndex(self.index), &entry);
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }

    /// Pays with these coins at a fee.
    fn pay(&mut self, coins: &[u32], amount_sat: u64, fee_sat: u64) {
        let script = ScriptBuf::new_p2wsh(&WScriptHash::hash(b"somebody"));
        let outpoints = coins.iter().map(|n| OutPoint::new(Txid::from_byte_array([1; 32]), *n)).collect();
        let recipients = vec![Recipient { script, amount_sat }];
        self.apply(Command::CreatePayment(CreatePayment { key: key_of("p"), recipients, outpoints, fee_sat }));
    }

    /// Gives the payment so many attempts, all like its first one. A thousand bumps would take long.
    fn fill(&mut self, attempts: usize) {
        let mut payment = self.state.payment(&key_of("p")).unwrap().clone();
        let stored = minicbor::to_vec(&payment).unwrap();
        let row = self.state.drain_changes().into_iter().find(|row| row.value.as_ref() == Some(&stored)).unwrap();
        let first = payment.attempts[0].clone();
        payment.attempts.resize(attempts, first);
        self.state.load_row(row.table, &row.key, &minicbor::to_vec(&payment).unwrap()).unwrap();
        self.state.finish_loading();
    }

    fn plan(&self, sat_kvb: u64, purpose: Purpose) -> Result<Plan, Rejection> {
        plan(&self.state, &key_of("p"), sat_kvb, purpose)
    }

    /// Applies a plan, as a leader would, and gives the transaction that it makes.
    fn carry_out(&mut self, plan: Plan, purpose: Purpose) -> Transaction {
        let Plan { previous, more, fee_sat } = plan;
        let replace = Replace { key: key_of("p"), previous, more, fee_sat };
        self.apply(match purpose {
            Purpose::Bump => Command::BumpFee(replace),
            Purpose::Cancel => Command::CancelPayment(replace),
        });
        self.newest().transaction.clone()
    }

    /// What the leader says of a caller's own transaction for the payment.
    fn check_own(&self, transaction: &Transaction) -> Result<(), Rejection> {
        let recipients = &self.state.payment(&key_of("p")).unwrap().recipients;
        check_own(&self.state, &key_of("p"), recipients, transaction)
    }

    fn newest(&self) -> &Attempt {
        self.state.payment(&key_of("p")).unwrap().live_attempt().unwrap().1
    }

    fn newest_sat_kvb(&self) -> u64 {
        let wallet = self.state.wallet(&key_of("p").wallet).unwrap();
        let weight = signed_weight(&self.newest().transaction, wallet.descriptor.satisfaction_weight());
        self.newest().fee_sat * 1000 / weight.div_ceil(4)
    }
}

/// The transaction of an attempt, for more fees.
fn dearer(attempt: &Attempt) -> Transaction {
    let mut transaction = attempt.transaction.clone();
    let vout = attempt.change.as_ref().unwrap().vout as usize;
    transaction.output[vout].value -= Amount::from_sat(1_000);
    transaction
}

fn key_of(payment: &str) -> PaymentKey {
    PaymentKey { wallet: WalletId::parse("w").unwrap(), payment: PaymentId::parse(payment).unwrap() }
}

#[test]
fn a_bump_is_paid_by_the_change_where_that_suffices() {
    let mut world = World::new(&[100_000, 500_000]);
    world.pay(&[0], 50_000, 200);
    let plan = world.plan(10_000, Purpose::Bump).unwrap();
    assert_eq!(plan.more, [], "no further coin is touched");
    let transaction = world.carry_out(plan, Purpose::Bump);
    assert_eq!((transaction.input.len(), transaction.output.len()), (1, 2));
    assert!((10_000..10_050).contains(&world.newest_sat_kvb()), "{}", world.newest_sat_kvb());
}

#[test]
fn a_bump_takes_the_most_valuable_spare_coins_where_the_change_does_not_suffice() {
    let mut world = World::new(&[52_000, 1_000, 30_000, 20_000]);
    world.pay(&[0], 50_000, 200);
    let plan = world.plan(50_000, Purpose::Bump).unwrap();
    assert_eq!(plan.more, [OutPoint::new(Txid::from_byte_array([1; 32]), 2)]);
    let transaction = world.carry_out(plan, Purpose::Bump);
    assert_eq!(transaction.input.len(), 2);
    assert!(world.newest_sat_kvb() >= 50_000);
}

#[test]
fn change_that_would_be_dust_goes_to_the_fee() {
    let mut world = World::new(&[52_000]);
    world.pay(&[0], 50_000, 200);
    // 1800 sat of change; 10 sat/vB for 154 vB leave less than an output is worth.
    let plan = world.plan(11_500, Purpose::Bump).unwrap();
    assert_eq!(plan.fee_sat, 2_000);
    assert_eq!(world.carry_out(plan, Purpose::Bump).output.len(), 1);
}

#[test]
fn a_bump_that_would_not_raise_the_feerate_is_refused() {
    let mut world = World::new(&[100_000]);
    world.pay(&[0], 50_000, 1_530);
    let now = world.newest_sat_kvb();
    for wanted in [100, now] {
        let refused = world.plan(wanted, Purpose::Bump);
        // The least that is taken, as below.
        let expected = Rejection::FeeLimit { limit: FeeLimit::ReplacementFeerate, got: wanted, bound: now + 1 };
        assert_eq!(refused, Err(expected));
    }
    let plan = world.plan(now + 1, Purpose::Bump).unwrap();
    assert!(plan.fee_sat > 1_530, "and pays for its own relay: {plan:?}");
    world.carry_out(plan, Purpose::Bump);
}

#[test]
fn a_cancellation_pays_at_least_what_a_replacement_must() {
    let mut world = World::new(&[100_000]);
    world.pay(&[0], 50_000, 5_000);
    let plan = world.plan(100, Purpose::Cancel).unwrap();
    assert!(plan.fee_sat > 5_000, "{plan:?}");
    let transaction = world.carry_out(plan, Purpose::Cancel);
    assert_eq!(transaction.output.len(), 1, "all goes back");
    assert!(world.newest().is_cancel());
    let again = world.plan(100_000, Purpose::Cancel).unwrap();
    assert_eq!((again.more.len(), again.fee_sat), (0, 0), "it is cancelled already");
    let bumped = world.plan(100_000, Purpose::Bump).unwrap();
    world.carry_out(bumped, Purpose::Bump);
    assert!(world.newest().is_cancel(), "a bump of a cancellation cancels");
}

#[test]
fn what_cannot_be_paid_or_replaced_is_told() {
    let mut world = World::new(&[51_000]);
    assert_eq!(world.plan(1_000, Purpose::Bump), Err(Rejection::PaymentUnknown));
    world.pay(&[0], 50_000, 200);
    let poor = world.plan(100_000, Purpose::Bump).unwrap_err();
    assert!(matches!(poor, Rejection::InsufficientFunds { available_sat: 51_000, .. }), "{poor:?}");
}

#[test]
fn a_child_lifts_both_to_the_feerate() {
    let mut world = World::new(&[100_000]);
    world.pay(&[0], 50_000, 153);
    let (parent, fee_sat) = child_fee(&world.state, &key_of("p"), 10_000).unwrap();
    assert_eq!(parent, AttemptNo(1));
    // 153 vB of the parent and 110 vB of the child: 2630 sat in all, 153 of which are paid.
    assert!((2_400..2_550).contains(&fee_sat), "{fee_sat}");
    let low = child_fee(&world.state, &key_of("p"), 900).unwrap_err();
    assert!(matches!(low, Rejection::FeeLimit { limit: FeeLimit::ReplacementFeerate, .. }), "{low:?}");
}

#[test]
fn a_child_needs_change_to_spend() {
    let mut world = World::new(&[50_200]);
    world.pay(&[0], 50_000, 200);
    let refused = child_fee(&world.state, &key_of("p"), 10_000);
    assert!(matches!(refused, Err(Rejection::NotReplaceable { .. })), "{refused:?}");
}

/// safety 24: a replacement that spends the change of what it replaces has no parent once it is mined.
#[test]
fn an_own_transaction_that_spends_what_it_would_replace_is_refused() {
    let mut world = World::new(&[100_000]);
    world.pay(&[0], 50_000, 200);
    let paid = world.newest().clone();
    let mut transaction = dearer(&paid);
    assert_eq!(world.check_own(&transaction), Ok(()));
    let change = change_of(&paid).unwrap();
    transaction.input.push(TxIn { previous_output: change, ..TxIn::default() });
    let refused = world.check_own(&transaction).unwrap_err();
    assert!(matches!(refused, Rejection::TransactionInvalid { .. }), "{refused:?}");
    assert!(refused.to_string().contains(&format!("{change} is an output of attempt 1")), "{refused}");
}

/// safety 10: nothing that pays takes the place of what gives the coins back.
#[test]
fn an_own_transaction_does_not_replace_a_cancellation() {
    let mut world = World::new(&[100_000]);
    world.pay(&[0], 50_000, 200);
    let paid = world.newest().clone();
    let plan = world.plan(100, Purpose::Cancel).unwrap();
    world.carry_out(plan, Purpose::Cancel);
    let refused = world.check_own(&dearer(&paid));
    assert!(matches!(refused, Err(Rejection::NotReplaceable { .. })), "{refused:?}");
    assert_eq!(world.check_own(&paid.transaction), Ok(()), "the same bytes are the same attempt");
    let of_other_content = check_own(&world.state, &key_of("p"), &[], &dearer(&paid));
    assert_eq!(of_other_content, Ok(()), "of that `apply` says more");
}

/// One row holds them all, and one message shows them. What gives the coins back is made all the same.
#[test]
fn a_payment_gets_only_so_many_attempts_and_can_be_cancelled_then() {
    let mut world = World::new(&[100_000]);
    world.pay(&[0], 50_000, 200);
    let paid = world.newest().clone();
    world.fill(MAX_ATTEMPTS - 1);
    assert_eq!(world.check_own(&dearer(&paid)), Ok(()));
    let last = world.plan(10_000, Purpose::Bump).unwrap();
    world.carry_out(last, Purpose::Bump);
    for refused in [world.plan(20_000, Purpose::Bump).map(drop), world.check_own(&dearer(&paid))] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Rejection::NotReplaceable { .. }), "{refused:?}");
        assert!(refused.to_string().contains("has 1000 attempts"), "{refused}");
    }
    assert_eq!(world.check_own(&paid.transaction), Ok(()), "the same bytes are the same attempt");
    let plan = world.plan(20_000, Purpose::Cancel).unwrap();
    world.carry_out(plan, Purpose::Cancel);
    assert!(world.newest().is_cancel());
}
