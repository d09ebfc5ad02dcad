//! Coin selection over the leader's view, minus the coins that are on their way through the log.
//!
//! Replicas never select: what comes out of here is a fact that travels in the command, and `apply` checks that
//! every coin can still be had.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bdk_coin_select::metrics::LowestFee;
use bdk_coin_select::{Candidate, ChangePolicy, CoinSelector, DrainWeights, FeeRate, Target, TargetFee, TargetOutputs};
use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use onespend_core::command::Recipient;
use onespend_core::ids::WalletId;
use onespend_core::limits::MAX_OUTPOINTS;
use onespend_core::outcome::Rejection;
use onespend_core::state::State;
use onespend_core::transaction;
use onespend_core::wallet::{Keychain, Wallet};

/// Most coins that one selection looks at: the most valuable ones.
const MAX_CANDIDATES: usize = 1000;
/// Rounds of branch and bound before the best selection so far is taken.
const MAX_ROUNDS: usize = 2000;
/// What spending change is assumed to cost some day, in sat/vB (the long-term feerate of Bitcoin Core's wallet).
const LONG_TERM_FEERATE_SAT_VB: f32 = 10.0;

/// Which coins are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Branch and bound for the lowest fee, the cost of spending the change included.
    LowestFee,
    /// The most valuable coins first: fewest inputs.
    LargestFirst,
    /// The coins with most confirmations first.
    OldestFirst,
}

/// What to select for.
pub struct Order<'a> {
    /// Whose coins.
    pub wallet: &'a WalletId,
    /// What is to be paid; the change goes to the wallet.
    pub recipients: &'a [Recipient],
    /// Feerate in sat per 1000 vB.
    pub feerate_sat_kvb: u64,
    /// Confirmations that every coin must have, at least 1.
    pub min_depth: u32,
    /// Which coins are preferred.
    pub strategy: Strategy,
}

/// Selected coins. While this value lives, no other selection on this node takes them.
pub struct Selected {
    /// The coins.
    pub outpoints: Vec<OutPoint>,
    /// The fee of the transaction that spends them and pays the order.
    pub fee_sat: u64,
    busy: Busy,
}

/// Coins on their way through the log, which the state does not show as claimed yet.
#[derive(Clone, Default)]
pub struct Busy(Arc<Mutex<BTreeSet<OutPoint>>>);

impl Drop for Selected {
    fn drop(&mut self) {
        let mut busy = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        for outpoint in &self.outpoints {
            busy.remove(outpoint);
        }
    }
}

/// Chooses coins for an order.
///
/// # Errors
/// [`Rejection::WalletUnknown`], [`Rejection::WalletFrozen`], and [`Rejection::InsufficientFunds`] with what is
/// needed and what is there. Nothing is claimed by an error.
pub fn select(state: &State, busy: &Busy, order: &Order<'_>) -> Result<Selected, Rejection> {
    let wallet = state.active_wallet(order.wallet)?;
    let tip = state.tip()?.height;
    let mut taken = busy.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut coins: Vec<Coin> = state
        .free_coins(order.wallet)
        .filter(|(_, outpoint)| !taken.contains(outpoint))
        .filter_map(|(value_sat, outpoint)| {
            let utxo = state.utxo(&outpoint)?;
            let depth = utxo.depth(tip);
            let fits = depth >= order.min_depth.max(1) && utxo.is_mature(tip);
            fits.then_some(Coin { outpoint, value_sat, depth })
        })
        .take(MAX_CANDIDATES)
        .collect();
    if order.strategy == Strategy::OldestFirst {
        coins.sort_by_key(|coin| std::cmp::Reverse(coin.depth));
    }
    let chosen = choose(&coins, wallet, order).ok_or_else(|| insufficient(&coins, wallet, order))?;
    let outpoints: Vec<OutPoint> = chosen.iter().map(|coin| coin.outpoint).collect();
    let input_sat = chosen.iter().fold(0_u64, |sum, coin| sum.saturating_add(coin.value_sat));
    let fee_sat = fee(&outpoints, input_sat, wallet, order).ok_or_else(|| insufficient(&coins, wallet, order))?;
    taken.extend(outpoints.iter().copied());
    Ok(Selected { outpoints, fee_sat, busy: busy.clone() })
}

struct Coin {
    outpoint: OutPoint,
    value_sat: u64,
    depth: u32,
}

fn choose<'a>(coins: &'a [Coin], wallet: &Wallet, order: &Order<'_>) -> Option<Vec<&'a Coin>> {
    // The count of an input's witness items is one weight unit on top of the satisfaction.
    let satisfaction = wallet.descriptor.satisfaction_weight() + 1;
    let candidates: Vec<Candidate> =
        coins.iter().map(|coin| Candidate::new(coin.value_sat, satisfaction, true)).collect();
    let outputs = order.recipients.iter().map(|recipient| {
        let txout = TxOut { value: Amount::from_sat(recipient.amount_sat), script_pubkey: recipient.script.clone() };
        (txout.weight().to_wu(), recipient.amount_sat)
    });
    let target = Target {
        fee: TargetFee::from_feerate(feerate(order.feerate_sat_kvb)),
        outputs: TargetOutputs::fund_outputs(outputs),
    };
    let mut selector = CoinSelector::new(&candidates);
    if order.strategy == Strategy::LowestFee {
        let change_policy = change_policy(wallet, target)?;
        let long_term_feerate = FeeRate::from_sat_per_vb(LONG_TERM_FEERATE_SAT_VB);
        // Without a solution in time the coins are taken in order, below.
        let _ = selector.run_bnb(LowestFee { target, long_term_feerate, change_policy }, MAX_ROUNDS);
    }
    if !selector.is_target_met(target) {
        selector.select_until_target_met(target).ok()?;
    }
    let chosen: Vec<&Coin> = selector.selected_indices().iter().filter_map(|at| coins.get(*at)).collect();
    (chosen.len() <= MAX_OUTPOINTS).then_some(chosen)
}

fn change_policy(wallet: &Wallet, target: Target) -> Option<ChangePolicy> {
    let script = change_script(wallet)?;
    let txout = TxOut { value: Amount::ZERO, script_pubkey: script.clone() };
    let weights = DrainWeights {
        output_weight: txout.weight().to_wu(),
        spend_weight: bdk_coin_select::TXIN_BASE_WEIGHT + wallet.descriptor.satisfaction_weight() + 1,
        n_outputs: 1,
    };
    let long_term = FeeRate::from_sat_per_vb(LONG_TERM_FEERATE_SAT_VB);
    Some(ChangePolicy::min_value_and_waste(weights, script.minimal_non_dust().to_sat(), target.fee.rate, long_term))
}

fn change_script(wallet: &Wallet) -> Option<ScriptBuf> {
    wallet.descriptor.script(Keychain::Internal, wallet.next_internal)
}

/// The fee in whole sat, exact where the selector calculates with floats: with change if what is left is worth an
/// output, else all that is left.
fn fee(outpoints: &[OutPoint], input_sat: u64, wallet: &Wallet, order: &Order<'_>) -> Option<u64> {
    let paid_sat = paid(order);
    let script = change_script(wallet)?;
    let dust_sat = script.minimal_non_dust().to_sat();
    let cost = |change: Option<(ScriptBuf, u64)>| {
        let (transaction, _) = transaction::build(outpoints, order.recipients, change);
        let weight = transaction::signed_weight(&transaction, wallet.descriptor.satisfaction_weight());
        (weight.div_ceil(4).saturating_mul(order.feerate_sat_kvb)).div_ceil(1000)
    };
    let left_sat = input_sat.checked_sub(paid_sat)?;
    let with_change = cost(Some((script, dust_sat)));
    if left_sat >= with_change.saturating_add(dust_sat) {
        return Some(with_change);
    }
    (left_sat >= cost(None)).then_some(left_sat)
}

fn insufficient(coins: &[Coin], wallet: &Wallet, order: &Order<'_>) -> Rejection {
    let available_sat = coins.iter().fold(0_u64, |sum, coin| sum.saturating_add(coin.value_sat));
    let outpoints: Vec<OutPoint> = coins.iter().take(MAX_OUTPOINTS).map(|coin| coin.outpoint).collect();
    let (transaction, _) = transaction::build(&outpoints, order.recipients, None);
    let weight = transaction::signed_weight(&transaction, wallet.descriptor.satisfaction_weight());
    let fee_sat = (weight.div_ceil(4).saturating_mul(order.feerate_sat_kvb)).div_ceil(1000);
    Rejection::InsufficientFunds { needed_sat: paid(order).saturating_add(fee_sat), available_sat }
}

fn paid(order: &Order<'_>) -> u64 {
    order.recipients.iter().fold(0, |sum, recipient| sum.saturating_add(recipient.amount_sat))
}

#[allow(clippy::cast_precision_loss)] // Feerates are below 2^24 sat per 1000 vB; `fee` is exact in the end.
fn feerate(sat_kvb: u64) -> FeeRate {
    FeeRate::from_sat_per_vb(sat_kvb as f32 / 1000.0)
}
