//! Coins that a reorganisation took away and that cannot come back: a stranger's deposit whose inputs somebody has spent by
//! another transaction (safety 6, 9).
//!
//! Blocks are searched for what spends the coins of wallets, and so show nothing of that: what a deposit spends is no
//! wallet's. An operator names the transaction, and the leader reads its block and sees that the two conflict. From then on
//! the coin counts as spent by that transaction, in that block. So the ends that rest on it come about as others do, and are
//! taken back as others are, should a reorganisation take the block away (safety 17).

use bitcoin::OutPoint;

use crate::chain;
use crate::command::{BlockRef, DeclareLost};
use crate::ids::{PaymentKey, WalletId};
use crate::outcome::{Outcome, Rejection};
use crate::payment::Attempt;
use crate::settlement;
use crate::state::State;
use crate::utxo::{Spend, depth};

/// Whether a coin may be declared lost at all, by what the state knows of it.
///
/// # Errors
/// [`Rejection::WalletUnknown`], [`Rejection::OutpointUnknown`], or [`Rejection::NotLost`] with the check that failed.
pub fn check_coin(state: &State, wallet: &WalletId, outpoint: &OutPoint) -> Result<(), Rejection> {
    state.wallet(wallet)?;
    let coin = state.utxo(outpoint).filter(|coin| coin.wallet == *wallet);
    let coin = coin.ok_or_else(|| Rejection::OutpointUnknown { outpoints: vec![*outpoint] })?;
    if state.attempt_of(outpoint.txid).is_some() {
        return not_lost("an attempt of this service makes it, and it ends with that attempt");
    }
    if coin.height.is_some() {
        return not_lost("it is in a block");
    }
    if coin.spent.is_some() {
        return not_lost("it was declared lost before");
    }
    if waiting(state, outpoint).is_empty() {
        return not_lost("no attempt that may still confirm spends it");
    }
    Ok(())
}

/// Ends what spends the coin. Everything is checked again that the state can tell.
pub(crate) fn declare(state: &mut State, command: &DeclareLost) -> Result<Outcome, Rejection> {
    let DeclareLost { wallet, outpoint, block, .. } = command;
    check_coin(state, wallet, outpoint)?;
    check_conflict(state, command)?;
    check_block(state, wallet, *block)?;
    let payments = waiting(state, outpoint);
    let spend = Spend { txid: command.by, height: block.height, lost: Some(true) };
    state.update_utxo(outpoint, |utxo| utxo.spent = Some(spend));
    state.note_spent(block.height, *outpoint);
    for key in &payments {
        settlement::settle(state, key);
    }
    chain::forget_buried(state, outpoint);
    Ok(Outcome::Recorded)
}

/// Payments with attempts that spend the coin and have not ended.
fn waiting(state: &State, outpoint: &OutPoint) -> Vec<PaymentKey> {
    let waits = |attempt: &Attempt| attempt.end.is_none() && spends(attempt, outpoint);
    let open = state.open_payments().into_iter();
    open.filter(|key| state.payment(key).is_some_and(|payment| payment.attempts.iter().any(waits))).collect()
}

fn spends(attempt: &Attempt, outpoint: &OutPoint) -> bool {
    attempt.inputs().any(|input| input == *outpoint)
}

/// A transaction takes no coin away from itself, nor from what makes the coin.
fn check_conflict(state: &State, command: &DeclareLost) -> Result<(), Rejection> {
    let spender = state.attempt_of(command.by).is_some_and(|(_, _, attempt)| spends(attempt, &command.outpoint));
    if command.by == command.outpoint.txid || spender {
        return not_lost("the transaction that is named makes it, or spends it");
    }
    Ok(())
}

/// The block is in the log's chain, and at the wallet's finality depth.
fn check_block(state: &State, wallet: &WalletId, block: BlockRef) -> Result<(), Rejection> {
    let tip = state.tip()?.height;
    let in_chain = match state.block(block.height) {
        Some(record) => record.hash == block.hash,
        // No reorganisation that can be followed reaches it.
        None => chain::is_buried(block.height, tip),
    };
    if !in_chain {
        let what = format!("the block {} at height {} is not in the log's chain", block.hash, block.height);
        return Err(Rejection::StaleBasis { what });
    }
    let (got, needed) = (depth(block.height, tip), state.wallet(wallet)?.limits.finality_depth);
    if got < needed {
        return not_lost(&format!("the block has {got} confirmations, and finality takes {needed}"));
    }
    Ok(())
}

fn not_lost(why: &str) -> Result<(), Rejection> {
    Err(Rejection::NotLost { why: why.to_owned() })
}
