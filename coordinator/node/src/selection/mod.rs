//! Coin selection over the leader's view, minus the coins that are on their way through the log.
//!
//! Replicas never select: what comes out of here is a fact that travels in the command, and `apply` checks that
//! every coin can still be had. The state is locked only to copy coins out and to look at the chosen ones again;
//! the search itself (`choice.rs`) works on the copy, with the costs of `costs.rs`.

mod choice;
mod costs;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::OutPoint;
use onespend_core::command::Recipient;
use onespend_core::ids::WalletId;
use onespend_core::outcome::Rejection;
use onespend_core::state::State;
use onespend_core::utxo::Claim;
use onespend_core::wallet::Wallet;

use crate::raft::StateView;
use choice::{Choice, Coin};
use costs::Costs;

/// Most coins that one selection looks at: the most valuable ones.
const MAX_CANDIDATES: usize = 1000;
/// How often coins are chosen beside other selections. After that the others wait for this one.
const MAX_RACES: usize = 3;

/// Which coins are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The lowest fee, the cost of spending the change included.
    LowestFee,
    /// The most valuable coins first: fewest inputs.
    LargestFirst,
    /// The coins with most confirmations first; the most valuable ones where too many old ones would be needed.
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

/// Coins on their way through the log, which the state does not show as claimed yet. Where both are locked, this
/// comes before the state.
#[derive(Clone, Default)]
pub struct Busy(Arc<Mutex<BTreeSet<OutPoint>>>);

impl Drop for Selected {
    fn drop(&mut self) {
        let mut busy = self.busy.lock();
        for outpoint in &self.outpoints {
            busy.remove(outpoint);
        }
    }
}

impl Busy {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<OutPoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks what was chosen, unless some of it was taken since it was copied out.
    fn claim(&self, view: &StateView, choice: Choice) -> Option<Selected> {
        let mut taken = self.lock();
        let is_claimed = |outpoint: &OutPoint, state: &State| {
            state.utxo(outpoint).is_none_or(|utxo| utxo.claim != Claim::Free || utxo.spent.is_some())
        };
        let is_gone = choice.outpoints.iter().any(|outpoint| taken.contains(outpoint))
            || view.read(|state| choice.outpoints.iter().any(|outpoint| is_claimed(outpoint, state)));
        (!is_gone).then(|| self.mark(&mut taken, choice))
    }

    fn mark(&self, taken: &mut BTreeSet<OutPoint>, choice: Choice) -> Selected {
        taken.extend(choice.outpoints.iter().copied());
        Selected { outpoints: choice.outpoints, fee_sat: choice.bill.fee_sat, busy: self.clone() }
    }
}

/// Chooses coins for an order. Takes less than a millisecond, and holds up neither the log nor, but in a crowd, other
/// selections meanwhile.
///
/// # Errors
/// [`Rejection::WalletUnknown`], [`Rejection::WalletFrozen`], and [`Rejection::InsufficientFunds`] with what is
/// needed and what one transaction could spend. Nothing is claimed by an error.
pub fn select(view: &StateView, busy: &Busy, order: &Order<'_>) -> Result<Selected, Rejection> {
    for _ in 0..MAX_RACES {
        let copied = copy(view, &busy.lock(), order)?;
        if let Some(selected) = busy.claim(view, Pool::of(copied, order).choose(order.strategy)?) {
            return Ok(selected);
        }
    }
    let mut taken = busy.lock();
    let choice = Pool::of(copy(view, &taken, order)?, order).choose(order.strategy)?;
    Ok(busy.mark(&mut taken, choice))
}

/// What a choice needs to know of the state.
fn copy(view: &StateView, taken: &BTreeSet<OutPoint>, order: &Order<'_>) -> Result<(Wallet, Vec<Coin>), Rejection> {
    view.read(|state| {
        let wallet = state.active_wallet(order.wallet)?.clone();
        let tip = state.tip()?.height;
        let coins = state
            .free_coins(order.wallet)
            .filter(|(_, outpoint)| !taken.contains(outpoint))
            .filter_map(|(value_sat, outpoint)| {
                let utxo = state.utxo(&outpoint)?;
                let depth = utxo.depth(tip);
                let fits = depth >= order.min_depth.max(1) && utxo.is_mature(tip);
                fits.then_some(Coin { outpoint, value_sat, depth })
            })
            .take(MAX_CANDIDATES);
        Ok((wallet, coins.collect()))
    })
}

/// Coins to choose from, and what it costs to spend them.
struct Pool {
    /// The most valuable first.
    coins: Vec<Coin>,
    costs: Costs,
}

impl Pool {
    fn of((wallet, mut coins): (Wallet, Vec<Coin>), order: &Order<'_>) -> Self {
        let costs = Costs::of(&wallet, order);
        // To spend the others costs more than it brings.
        coins.retain(|coin| coin.value_sat > costs.input_fee_sat());
        Self { coins, costs }
    }

    fn choose(&self, strategy: Strategy) -> Result<Choice, Rejection> {
        choice::choose(&self.coins, &self.costs, strategy).ok_or_else(|| self.insufficient())
    }

    fn insufficient(&self) -> Rejection {
        let most = self.coins.len().min(self.costs.max_inputs());
        let available_sat = self.coins.iter().take(most).fold(0_u64, |sum, coin| sum.saturating_add(coin.value_sat));
        Rejection::InsufficientFunds { needed_sat: self.costs.needed_sat(most.max(1)), available_sat }
    }
}
