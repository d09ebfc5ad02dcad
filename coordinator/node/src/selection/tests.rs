//! Selections of every strategy and size, judged by the core and by a search through all subsets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bitcoin::hashes::Hash;
use bitcoin::{PubkeyHash, ScriptBuf, WPubkeyHash};
use onespend_core::command::{Command, CreatePayment};
use onespend_core::ids::{AttemptNo, PaymentId, PaymentKey};
use onespend_core::limits::{MAX_OUTPOINTS, MAX_TRANSACTION_WEIGHT};
use onespend_core::outcome::{FeeLimit, Outcome};
use onespend_core::payment::Attempt;
use onespend_core::transaction;
use onespend_core::wallet::Keychain;
use proptest::prelude::{
    ProptestConfig, Strategy as Generator, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::*;
use crate::specimen::{Coin, accept, apply_to, coin, register, request, started, wallet};

const BTC: u64 = 100_000_000;
/// What spending the change is assumed to cost: 68 vB at 10 sat/vB.
const LATER_SAT: u64 = 680;
/// The least that a P2WPKH output may hold.
const DUST_SAT: u64 = 294;

fn with(coins: &[Coin]) -> StateView {
    let view = started();
    accept(&view, register("w", coins));
    view
}

/// Deep coins of these values.
fn holding(values: &[u64]) -> StateView {
    with(&values.iter().map(|value_sat| Coin::of(*value_sat)).collect::<Vec<_>>())
}

fn aged(value_sat: u64, depth: u32) -> Coin {
    Coin { depth, ..Coin::of(value_sat) }
}

fn to(amount_sat: u64) -> Recipient {
    Recipient { script: ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([5; 20])), amount_sat }
}

struct Asked {
    recipients: Vec<Recipient>,
    feerate_sat_kvb: u64,
    min_depth: u32,
    strategy: Strategy,
}

/// One recipient, 2 sat/vB.
fn asked(amount_sat: u64, strategy: Strategy) -> Asked {
    Asked { recipients: vec![to(amount_sat)], feerate_sat_kvb: 2000, min_depth: 1, strategy }
}

fn order<'a>(asked: &'a Asked, wallet: &'a WalletId) -> Order<'a> {
    let Asked { recipients, feerate_sat_kvb, min_depth, strategy } = asked;
    let (feerate_sat_kvb, min_depth, strategy) = (*feerate_sat_kvb, *min_depth, *strategy);
    Order { wallet, recipients, feerate_sat_kvb, min_depth, strategy }
}

fn ask(view: &StateView, busy: &Busy, asked: &Asked) -> Result<Selected, Rejection> {
    select(view, busy, &order(asked, &wallet("w")))
}

fn chosen(view: &StateView, asked: &Asked) -> Vec<OutPoint> {
    ask(view, &Busy::default(), asked).unwrap().outpoints.clone()
}

/// What the core says to the payment, and the attempt that it permits.
fn pay(view: &StateView, asked: &Asked, selected: &Selected) -> Result<Attempt, Rejection> {
    let key = PaymentKey { wallet: wallet("w"), payment: PaymentId::parse("p").unwrap() };
    let command = Command::CreatePayment(CreatePayment {
        key: key.clone(),
        recipients: asked.recipients.clone(),
        outpoints: selected.outpoints.clone(),
        fee_sat: selected.fee_sat,
    });
    match apply_to(view, Some(request("r")), command) {
        Outcome::Rejected(rejection) => Err(rejection),
        _ => Ok(view.read(|state| state.payment(&key).unwrap().attempt(AttemptNo(1)).unwrap().clone())),
    }
}

/// The fee of a transaction with these coins, as the core weighs it. Change is of this value, if there is any.
fn true_fee(view: &StateView, outpoints: &[OutPoint], asked: &Asked, change_sat: Option<u64>) -> u64 {
    let (script, satisfaction) = view.read(|state| {
        let descriptor = &state.wallet(&wallet("w")).unwrap().descriptor;
        (descriptor.script(Keychain::Internal, 0).unwrap(), descriptor.satisfaction_weight())
    });
    let change = change_sat.map(|change_sat| (script, change_sat));
    let (built, _) = transaction::build(outpoints, &asked.recipients, change);
    let vsize = transaction::signed_weight(&built, satisfaction).div_ceil(4);
    (vsize * asked.feerate_sat_kvb).div_ceil(1000)
}

/// The fee and the score of a selection, worked out from whole transactions.
fn true_bill(view: &StateView, outpoints: &[OutPoint], asked: &Asked) -> Option<(u64, u64)> {
    let input_sat = view.read(|state| state.value_of(outpoints));
    let left_sat = input_sat.checked_sub(asked.recipients.iter().map(|one| one.amount_sat).sum())?;
    let with_change = true_fee(view, outpoints, asked, Some(DUST_SAT));
    if left_sat >= with_change + DUST_SAT {
        return Some((with_change, with_change + LATER_SAT));
    }
    (left_sat >= true_fee(view, outpoints, asked, None)).then_some((left_sat, left_sat))
}

#[test]
fn a_coin_of_100_bitcoin_pays_39() {
    for feerate_sat_kvb in [1000, 2000] {
        let view = holding(&[100 * BTC]);
        let asked = Asked { feerate_sat_kvb, ..asked(39 * BTC, Strategy::LowestFee) };
        let selected = ask(&view, &Busy::default(), &asked).unwrap();
        assert_eq!(selected.outpoints, [coin(0)]);
        let attempt = pay(&view, &asked, &selected).unwrap();
        // 141 vB: one P2WPKH input, two P2WPKH outputs.
        assert_eq!((attempt.fee_sat, selected.fee_sat), (141 * feerate_sat_kvb / 1000, 141 * feerate_sat_kvb / 1000));
    }
}

#[test]
fn the_largest_coins_come_first() {
    let view = holding(&[10_000, 90_000, 50_000, 70_000]);
    assert_eq!(chosen(&view, &asked(140_000, Strategy::LargestFirst)), [coin(1), coin(3)]);
}

#[test]
fn the_oldest_coins_come_first_and_the_larger_of_two_as_old() {
    let view = with(&[aged(60_000, 10), aged(50_000, 90), aged(55_000, 90), aged(500_000, 3)]);
    assert_eq!(chosen(&view, &asked(100_000, Strategy::OldestFirst)), [coin(2), coin(1)]);
    assert_eq!(chosen(&view, &asked(110_000, Strategy::OldestFirst)), [coin(2), coin(1), coin(0)]);
}

#[test]
fn too_many_old_coins_give_way_to_the_most_valuable() {
    let mut coins = vec![aged(1_000, 90); MAX_OUTPOINTS + 50];
    coins.push(aged(BTC, 2));
    let view = with(&coins);
    let last = coin(u32::try_from(coins.len() - 1).unwrap());
    assert_eq!(chosen(&view, &asked(BTC / 2, Strategy::OldestFirst)), [last]);
}

#[test]
fn coins_that_are_too_young_stay_where_they_are() {
    let view = with(&[
        aged(90_000, 2),
        aged(80_000, 3),
        Coin { coinbase: true, ..aged(95_000, 99) },
        Coin { coinbase: true, ..aged(70_000, 100) },
    ]);
    let asked = Asked { min_depth: 3, ..asked(50_000, Strategy::LargestFirst) };
    assert_eq!(chosen(&view, &asked), [coin(1)]);
    // A coinbase with 99 confirmations is immature however deep the order wants it, and none is deep enough here.
    let deeper = Asked { min_depth: 101, ..asked };
    let refused = ask(&view, &Busy::default(), &deeper).err().unwrap();
    assert!(matches!(refused, Rejection::InsufficientFunds { available_sat: 0, .. }), "{refused}");
}

#[test]
fn coins_whose_sum_is_right_leave_no_change() {
    // 2 inputs and 1 output are 178 vB at most: 356 sat.
    let view = holding(&[500_000, 40_256, 60_100, 333_333]);
    let asked = asked(100_000, Strategy::LowestFee);
    let selected = ask(&view, &Busy::default(), &asked).unwrap();
    assert_eq!((selected.outpoints.as_slice(), selected.fee_sat), ([coin(2), coin(1)].as_slice(), 356));
    let attempt = pay(&view, &asked, &selected).unwrap();
    assert_eq!((attempt.transaction.output.len(), attempt.change), (1, None));
}

#[test]
fn what_is_too_little_for_change_goes_to_the_fee() {
    // 110 vB without change, 141 with it: 282 sat, and 294 more to be no dust.
    for (left_sat, fee_sat, outputs) in [(575, 575, 1), (576, 282, 2)] {
        let view = holding(&[50_000 + left_sat]);
        let asked = asked(50_000, Strategy::LargestFirst);
        let selected = ask(&view, &Busy::default(), &asked).unwrap();
        assert_eq!(selected.fee_sat, fee_sat);
        assert_eq!(pay(&view, &asked, &selected).unwrap().transaction.output.len(), outputs);
    }
}

#[test]
fn more_coins_than_a_payment_may_have_are_not_there() {
    let view = holding(&[1_000; MAX_OUTPOINTS + 100]);
    for strategy in [Strategy::LowestFee, Strategy::LargestFirst, Strategy::OldestFirst] {
        let most = asked(340_000, strategy);
        assert!(chosen(&view, &most).len() <= MAX_OUTPOINTS);
        let refused = ask(&view, &Busy::default(), &asked(400_000, strategy)).err().unwrap();
        assert!(matches!(refused, Rejection::InsufficientFunds { available_sat: 400_000, .. }), "{refused}");
    }
}

#[test]
fn a_transaction_stays_below_the_standard_size() {
    let view = holding(&[2_000; MAX_OUTPOINTS]);
    let script = ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array([5; 20]));
    // 1000 outputs leave room for some hundred inputs.
    let recipients = |amount_sat| vec![Recipient { script: script.clone(), amount_sat }; 1000];
    let mut asked = Asked { feerate_sat_kvb: 1000, ..asked(0, Strategy::LowestFee) };
    asked.recipients = recipients(600);
    let selected = ask(&view, &Busy::default(), &asked).unwrap();
    let attempt = pay(&view, &asked, &selected).unwrap();
    assert!(attempt.transaction.weight().to_wu() < MAX_TRANSACTION_WEIGHT);
}

#[test]
fn of_two_choices_of_one_coin_only_the_first_gets_it() {
    let (view, busy) = (holding(&[90_000, 80_000]), Busy::default());
    let asked = asked(50_000, Strategy::LargestFirst);
    let wallet = wallet("w");
    let order = order(&asked, &wallet);
    let choice = || Pool::of(copy(&view, &BTreeSet::new(), &order).unwrap(), &order).choose(order.strategy).unwrap();
    let first = busy.claim(&view, choice()).unwrap();
    assert!(busy.claim(&view, choice()).is_none());
    assert_eq!(ask(&view, &busy, &asked).unwrap().outpoints, [coin(1)]);
    drop(first);
    let again = busy.claim(&view, choice()).unwrap();
    // Applied and no longer busy, it is still not to be had by a choice from before.
    let late = choice();
    pay(&view, &asked, &again).unwrap();
    drop(again);
    assert!(busy.claim(&view, late).is_none());
}

#[test]
fn callers_at_once_get_different_coins() {
    const CALLERS: usize = 8;
    let (view, busy) = (holding(&[90_000; CALLERS * 20]), Busy::default());
    let held: Vec<Selected> = std::thread::scope(|scope| {
        let caller = || (0..20).map(|_| ask(&view, &busy, &asked(50_000, Strategy::LowestFee)).unwrap()).collect();
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().flat_map(|caller| -> Vec<Selected> { caller.join().unwrap() }).collect()
    });
    let different: BTreeSet<OutPoint> = held.iter().flat_map(|selected| selected.outpoints.clone()).collect();
    assert_eq!(different.len(), CALLERS * 20);
    drop(held);
    assert!(busy.lock().is_empty());
}

fn strategies() -> impl Generator<Value = Strategy> {
    prop::sample::select(vec![Strategy::LowestFee, Strategy::LargestFirst, Strategy::OldestFirst])
}

/// Coins of every order of magnitude, 21 million bitcoin in all at most.
fn coins() -> impl Generator<Value = Vec<Coin>> {
    let value = (0_u32..16, 1_u64..1000).prop_map(|(digits, lead)| (lead * 10_u64.pow(digits)) / 100);
    let made = (value, 1_u32..150, any::<bool>());
    let made = made.prop_map(|(value_sat, depth, coinbase)| Coin { value_sat, depth, coinbase });
    prop::collection::vec(made, 1..60).prop_map(|mut coins| {
        let mut left_sat = 21_000_000 * BTC;
        for coin in &mut coins {
            coin.value_sat = coin.value_sat.clamp(1, left_sat.max(1));
            left_sat = left_sat.saturating_sub(coin.value_sat);
        }
        coins
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_core_permits_what_was_selected_and_a_refusal_is_true(
        coins in coins(),
        shares in prop::collection::vec(1_u64..=1_000_000, 1..5),
        part in 0_u64..=1_000_000,
        feerate_sat_kvb in prop_oneof![100_u64..2_000, 1_000_u64..1_000_000],
        min_depth in 0_u32..120,
        strategy in strategies(),
    ) {
        let view = with(&coins);
        let fitting: Vec<u64> = coins
            .iter()
            .filter(|coin| coin.depth >= min_depth.max(1) && (!coin.coinbase || coin.depth >= 100))
            .map(|coin| coin.value_sat)
            .collect();
        let all_sat: u64 = fitting.iter().sum();
        // A part of what is there, in shares; at least 1000 sat for each.
        let paid_sat = u64::try_from(u128::from(all_sat) * u128::from(part) / 1_000_000).unwrap();
        let of: u64 = shares.iter().sum();
        let recipients: Vec<Recipient> = shares
            .iter()
            .map(|share| u64::try_from(u128::from(paid_sat) * u128::from(*share) / u128::from(of)).unwrap())
            .map(|amount_sat| to(amount_sat.max(1000)))
            .collect();
        let paid_sat: u64 = recipients.iter().map(|one| one.amount_sat).sum();
        let asked = Asked { recipients, feerate_sat_kvb, min_depth, strategy };
        match ask(&view, &Busy::default(), &asked) {
            Ok(selected) => {
                let (fee_sat, _) = true_bill(&view, &selected.outpoints, &asked).unwrap();
                prop_assert_eq!(selected.fee_sat, fee_sat);
                match pay(&view, &asked, &selected) {
                    Ok(attempt) => prop_assert_eq!(attempt.fee_sat, fee_sat),
                    // Small payments at high feerates cost more than they pay.
                    Err(Rejection::FeeLimit { limit: FeeLimit::Percent, .. }) => prop_assert!(fee_sat > paid_sat),
                    Err(refused) => prop_assert!(false, "{}", refused),
                }
            }
            Err(Rejection::InsufficientFunds { needed_sat, available_sat }) => {
                let input_sat = (68 * feerate_sat_kvb).div_ceil(1000);
                let worthy: Vec<u64> = fitting.iter().copied().filter(|value_sat| *value_sat > input_sat).collect();
                prop_assert_eq!(available_sat, worthy.iter().sum::<u64>());
                prop_assert!(available_sat < needed_sat);
                prop_assert!(needed_sat > paid_sat);
            }
            Err(refused) => prop_assert!(false, "{}", refused),
        }
    }

    #[test]
    fn no_subset_of_few_coins_costs_less(
        values in prop::collection::vec(1_000_u64..200_000, 1..9),
        wish in prop::collection::vec(any::<bool>(), 9),
        near_sat in 0_u64..3_000,
        feerate_sat_kvb in 100_u64..10_000,
    ) {
        let view = holding(&values);
        // Near what some of them are worth, so that there is often a selection without change.
        let wanted = values.iter().zip(&wish).filter(|(_, wanted)| **wanted);
        let some_sat: u64 = wanted.map(|(value_sat, _)| value_sat).sum();
        let amount_sat = some_sat.saturating_sub(near_sat).max(1000);
        let asked = Asked { feerate_sat_kvb, ..asked(amount_sat, Strategy::LowestFee) };
        let subsets = (1_u32..1 << values.len()).map(|bits| {
            (0..u32::try_from(values.len()).unwrap()).filter(|n| bits & (1 << n) != 0).map(coin).collect::<Vec<_>>()
        });
        let scores = subsets.filter_map(|subset| true_bill(&view, &subset, &asked)).map(|(_, score_sat)| score_sat);
        let least = scores.min();
        let found = ask(&view, &Busy::default(), &asked).ok();
        let found = found.map(|selected| true_bill(&view, &selected.outpoints, &asked).unwrap().1);
        prop_assert_eq!(found, least);
    }
}
