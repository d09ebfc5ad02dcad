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

use bitcoin::{OutPoint, Txid};
use onespend_adapters::chain::{Chain, ChainError};
use onespend_adapters::signer::SignerError;
use onespend_core::command::{BlockRef, Command};
use onespend_core::outcome::Outcome;
use onespend_core::state::State;
use onespend_core::utxo::Claim;
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

/// A coin that a transaction spends which is no attempt of the state.
struct SpentOutside {
    coin: OutPoint,
    transaction: Txid,
    /// Where that transaction is known from, in words.
    source: String,
    /// Whether the state held the coin back before.
    is_held: bool,
}

impl Comparison {
    /// Compares the state at this tip, and has the log hold back what is spent outside of it: how many coins that are.
    pub(crate) async fn make(&self, term: &LeaderTerm, basis: BlockRef) -> Result<usize, NotCompared> {
        let asked = self.clone();
        let found = runtime::blocking(move || asked.spent_outside(basis)).await??;
        let coins: BTreeSet<OutPoint> = found.iter().map(|one| one.coin).collect();
        let held_back = coins.len();
        let command = Command::Reconcile { basis, spent_outside: coins.into_iter().collect() };
        let applied = self.replica.propose_as(term, command).await?;
        if applied.outcome != Outcome::Recorded {
            // Refused only where the log has gone on meanwhile.
            return Err(NotCompared::OtherTip);
        }
        // Whoever releases a coin has to know why it is held back. Every tip is compared, and one that is held back was told.
        for SpentOutside { coin, transaction, source, .. } in found.iter().filter(|one| !one.is_held) {
            warn!(%coin, %transaction, source, "a coin is spent outside of the state");
        }
        Ok(held_back)
    }

    /// Coins that are spent, in the mempool or as a signer of this node remembers, by transactions that are no attempts.
    /// Attempts that have ended are the state's own: it knows what became of their coins.
    fn spent_outside(&self, basis: BlockRef) -> Result<Vec<SpentOutside>, NotCompared> {
        let view = self.chain.probe()?;
        if view.tip.hash != basis.hash || !view.mempool_loaded {
            return Err(NotCompared::OtherTip);
        }
        let coins: Vec<OutPoint> = self.replica.read(|state| {
            let unspent = state.utxos().filter(|(_, utxo)| utxo.spent.is_none());
            unspent.map(|(outpoint, _)| *outpoint).collect()
        });
        let remembered = self.signing.spenders(&coins)?;
        let remembered = remembered.into_iter().map(|(coin, spender, name)| (coin, spender, format!("signer {name}")));
        let in_mempool = coins.iter().zip(self.chain.spending_prevout(&coins)?);
        let in_mempool = in_mempool.filter_map(|(coin, spender)| Some((*coin, spender?, "mempool".to_owned())));
        let spent: Vec<_> = in_mempool.chain(remembered).collect();
        Ok(self.replica.read(|state| {
            let is_held = |coin: &OutPoint| state.utxo(coin).is_some_and(|utxo| utxo.claim == Claim::Quarantined);
            let outside = spent.into_iter().filter(|(_, transaction, _)| state.attempt_of(*transaction).is_none());
            let outside = outside.map(|(coin, transaction, source)| {
                let is_held = is_held(&coin);
                SpentOutside { coin, transaction, source, is_held }
            });
            outside.collect()
        }))
    }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
