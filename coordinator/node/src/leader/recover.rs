//! Notices that the state is behind what this node's signers have signed. While the state is not confirmed: compares it
//! with bitcoind's chain and mempool, at each new tip (safety 30).
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
use tracing::{debug, info, warn};

use super::Duty;
use super::sign::Signing;
use crate::raft::LeaderTerm;
use crate::replica::Replica;
use crate::restored;
use crate::runtime;

/// How often it is looked whether there is something to compare.
const POLL: Duration = Duration::from_secs(1);

pub(super) async fn run(duty: Arc<Duty>, term: LeaderTerm) {
    loop {
        notice(&duty.replica, &duty.signing).await;
        if let Some(basis) = duty.replica.read(due) {
            compare(&duty, &term, basis).await;
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

async fn compare(duty: &Arc<Duty>, term: &LeaderTerm, basis: BlockRef) {
    let asked = Arc::clone(duty);
    let found = runtime::blocking(move || spent_outside(&asked, basis)).await;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use bitcoin::Transaction;
    use onespend_adapters::signer::{Signer, SignerError};
    use onespend_core::ids::{Fence, LogIndex};
    use onespend_core::signing::SigningPermit;
    use onespend_core::wallet::WalletDescriptor;
    use tempfile::TempDir;

    use super::*;
    use crate::alarms::Alarms;
    use crate::leader::broadcast;
    use crate::specimen::{leader, soon};

    /// A signer that signs nothing and remembers a fence.
    struct Remembers(Option<Fence>);

    impl Signer for Remembers {
        fn name(&self) -> &'static str {
            "hot"
        }

        fn holds(&self, _: &WalletDescriptor) -> bool {
            true
        }

        fn sign(&self, _: &SigningPermit) -> Result<Transaction, SignerError> {
            Err(SignerError::Unavailable { signer: "hot".to_owned(), why: "it is not asked here".to_owned() })
        }

        fn highest_fence(&self) -> Option<Fence> {
            self.0
        }
    }

    /// Why the cluster is in recovery mode after a leader has looked at a signer that remembers a fence.
    async fn noticed(replica: &Arc<Replica>, fence: Option<Fence>) -> Option<String> {
        let (outbox, _inbox) = broadcast::queue();
        let signing =
            Signing::new(Arc::clone(replica), vec![Arc::new(Remembers(fence))], outbox, Arc::new(Alarms::default()));
        notice(replica, &signing).await;
        replica.read(|state| state.recovery().map(|recovery| recovery.why.clone()))
    }

    /// safety 30: without a mark, too.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_signer_that_remembers_more_than_the_log_has_begins_recovery_mode() {
        let folder = TempDir::new().unwrap();
        let replica = leader(&folder).await;
        let granted = replica.read(State::fence);
        assert_eq!(noticed(&replica, None).await, None, "it remembers nothing");
        assert_eq!(noticed(&replica, Some(granted)).await, None, "the log has what was signed");
        let lost = Fence::of(0, LogIndex(1_000));
        let why = noticed(&replica, Some(lost)).await.expect("the log lacks what was signed");
        assert!(why.contains("signer hot") && why.contains(&lost.to_string()), "{why}");

        // An operator confirms; the epoch is above what the signer remembers, so this is not noticed again.
        let basis = replica.read(State::tip).unwrap();
        let reconcile = Command::Reconcile { basis, spent_outside: vec![] };
        replica.propose(None, reconcile, soon()).await.unwrap();
        let confirm = Command::ConfirmRecovery { epoch: 1, note: "checked".to_owned() };
        assert_eq!(replica.propose(None, confirm, soon()).await.unwrap().outcome, Outcome::Recorded);
        assert_eq!(noticed(&replica, Some(lost)).await, None);
    }
}
