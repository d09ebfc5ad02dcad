//! While the state is not confirmed: compares it with bitcoind's chain and mempool, at each new tip (safety 30).
//!
//! The chain is followed as always, so a spend that is in a block is known once the log has reached bitcoind's tip. What
//! is left is the mempool: a transaction there that spends a coin of ours and is no attempt of this state was made by
//! what the backup does not have. Its coins are held back.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::OutPoint;
use onespend_adapters::chain::ChainError;
use onespend_core::command::{BlockRef, Command};
use onespend_core::outcome::Outcome;
use onespend_core::state::State;
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use super::Duty;
use crate::raft::LeaderTerm;

/// How often it is looked whether there is something to compare.
const POLL: Duration = Duration::from_secs(1);

pub(super) async fn run(duty: Arc<Duty>, term: LeaderTerm) {
    loop {
        if let Some(basis) = duty.replica.read(due) {
            compare(&duty, &term, basis).await;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The tip that the state has yet to be compared at.
fn due(state: &State) -> Option<BlockRef> {
    let tip = state.tip().ok()?;
    (state.recovery()?.reconciled != Some(tip)).then_some(tip)
}

async fn compare(duty: &Arc<Duty>, term: &LeaderTerm, basis: BlockRef) {
    let asked = Arc::clone(duty);
    let found = spawn_blocking(move || spent_outside(&asked, basis)).await;
    let spent_outside = match found {
        Ok(Ok(Some(spent))) => spent,
        Ok(Ok(None)) => {
            debug!(height = basis.height.0, "bitcoind is not at the log's tip, or has not loaded its mempool yet");
            return;
        }
        Ok(Err(error)) => {
            warn!(%error, "the state cannot be compared with bitcoind for now");
            return;
        }
        Err(error) => {
            warn!(%error, "the task that asks bitcoind failed");
            return;
        }
    };
    let held_back = spent_outside.len();
    match duty.replica.propose_as(term, Command::Reconcile { basis, spent_outside }).await {
        Ok(applied) if applied.outcome == Outcome::Recorded => {
            info!(height = basis.height.0, held_back, "the state is compared with bitcoind's chain and mempool");
        }
        Ok(applied) => debug!(outcome = ?applied.outcome, "the comparison is made again"),
        Err(error) => debug!(%error, "the comparison is made again"),
    }
}

/// Coins that the mempool spends by transactions that are no attempts. `None` while bitcoind has another tip than the
/// log, or has not loaded its mempool.
fn spent_outside(duty: &Duty, basis: BlockRef) -> Result<Option<Vec<OutPoint>>, ChainError> {
    let view = duty.chain.probe()?;
    if view.tip.hash != basis.hash || !view.mempool_loaded {
        return Ok(None);
    }
    let coins: Vec<OutPoint> = duty.replica.read(|state| {
        let unspent = state.utxos().filter(|(_, utxo)| utxo.spent.is_none());
        unspent.map(|(outpoint, _)| *outpoint).collect()
    });
    let spenders = duty.chain.spending_prevout(&coins)?;
    let spent = coins.into_iter().zip(spenders).filter_map(|(coin, spender)| Some((coin, spender?)));
    Ok(Some(duty.replica.read(|state| {
        let outside = spent.filter(|(_, spender)| state.attempt_of(*spender).is_none());
        outside.map(|(coin, _)| coin).collect()
    })))
}
