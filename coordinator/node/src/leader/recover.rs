//! Notices that the state is behind what this node's signers have signed. While the state is not confirmed: compares it
//! with bitcoind's chain and mempool, and with what the signers remember, at each new tip, and once more when an
//! operator confirms (safety 30).
//!
//! The chain is followed as always, so a spend that is in a block is known once the log has reached bitcoind's tip. What
//! is left is the mempool, and what was signed and is in neither: a transaction that spends a coin of ours and is no
//! attempt of this state was made by what the backup does not have. Its coins are held back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::OutPoint;
use onespend_adapters::chain::{Chain, ChainError};
use onespend_adapters::signer::SignerError;
use onespend_core::command::{BlockRef, Command};
use onespend_core::outcome::Outcome;
use onespend_core::state::State;
use tracing::{debug, info, warn};

use super::Duty;
use super::sign::Signing;
use crate::raft::{LeaderTerm, ProposeError};
use crate::replica::Replica;
use crate::restored;
use crate::runtime::{self, WorkLost};

/// How often it is looked whether there is something to compare.
const POLL: Duration = Duration::from_secs(1);

pub(super) async fn run(duty: Arc<Duty>, term: LeaderTerm) {
    let (replica, chain, signing) = (Arc::clone(&duty.replica), Arc::clone(&duty.chain), Arc::clone(&duty.signing));
    let comparison = Comparison { replica, chain, signing };
    loop {
        notice(&duty.replica, &duty.signing).await;
        if let Some(basis) = duty.replica.read(due) {
            compare(&comparison, &term, basis).await;
        }
        runtime::sleep(POLL).await;
    }
}

/// A signer that remembers more than the log has is as good as a mark on the folder: the log was put back.
async fn notice(replica: &Replica, signing: &Signing) {
    if let Some(why) = signing.ahead() {
        restored::suspect(replica, &why).await;
    }
}

/// The tip that the state has yet to be compared at.
fn due(state: &State) -> Option<BlockRef> {
    let tip = state.tip().ok()?;
    (state.recovery()?.reconciled != Some(tip)).then_some(tip)
}

async fn compare(comparison: &Comparison, term: &LeaderTerm, basis: BlockRef) {
    let height = basis.height.0;
    match comparison.make(term, basis).await {
        Ok(held_back) => info!(height, held_back, "the state is compared with chain, mempool and signers"),
        Err(error @ (NotCompared::OtherTip | NotCompared::Proposing(_))) => {
            debug!(height, %error, "the comparison is made again");
        }
        Err(error) => warn!(height, %error, "the state cannot be compared; it is tried again each second"),
    }
}

/// Why there was no comparison.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotCompared {
    /// The log and bitcoind are about to come together, as a rule.
    #[error("bitcoind is not at the log's tip, or has not loaded its mempool yet")]
    OtherTip,
    #[error("asking bitcoind: {0}")]
    Chain(#[from] ChainError),
    #[error("asking the signers what they remember: {0}")]
    Signer(#[from] SignerError),
    #[error("asking bitcoind and the signers: {0}")]
    Lost(#[from] WorkLost),
    #[error("writing it into the log: {0}")]
    Proposing(#[from] ProposeError),
}

/// A state that is not confirmed, and what it is compared with.
#[derive(Clone)]
pub(crate) struct Comparison {
    pub(crate) replica: Arc<Replica>,
    /// This node's bitcoind.
    pub(crate) chain: Arc<dyn Chain>,
    /// The way to this node's signers.
    pub(crate) signing: Arc<Signing>,
}

impl Comparison {
    /// Compares the state at this tip, and has the log hold back what is spent outside of it: how many coins that are.
    pub(crate) async fn make(&self, term: &LeaderTerm, basis: BlockRef) -> Result<usize, NotCompared> {
        let asked = self.clone();
        let spent_outside = runtime::blocking(move || asked.spent_outside(basis)).await??;
        let held_back = spent_outside.len();
        let applied = self.replica.propose_as(term, Command::Reconcile { basis, spent_outside }).await?;
        // Refused only where the log has gone on meanwhile.
        if applied.outcome == Outcome::Recorded { Ok(held_back) } else { Err(NotCompared::OtherTip) }
    }

    /// Coins that are spent, in the mempool or as a signer of this node remembers, by transactions that are no attempts.
    /// Attempts that have ended are the state's own: it knows what became of their coins.
    fn spent_outside(&self, basis: BlockRef) -> Result<Vec<OutPoint>, NotCompared> {
        let view = self.chain.probe()?;
        if view.tip.hash != basis.hash || !view.mempool_loaded {
            return Err(NotCompared::OtherTip);
        }
        let coins: Vec<OutPoint> = self.replica.read(|state| {
            let unspent = state.utxos().filter(|(_, utxo)| utxo.spent.is_none());
            unspent.map(|(outpoint, _)| *outpoint).collect()
        });
        let remembered = self.signing.spenders(&coins)?;
        let in_mempool = self.chain.spending_prevout(&coins)?;
        let in_mempool = coins.into_iter().zip(in_mempool).filter_map(|(coin, spender)| Some((coin, spender?)));
        let spent: Vec<_> = in_mempool.chain(remembered).collect();
        let outside: BTreeSet<OutPoint> = self.replica.read(|state| {
            let outside = spent.iter().filter(|(_, spender)| state.attempt_of(*spender).is_none());
            outside.map(|(coin, _)| *coin).collect()
        });
        Ok(outside.into_iter().collect())
    }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
