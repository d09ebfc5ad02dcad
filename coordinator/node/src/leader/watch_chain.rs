//! Drives the log's chain from this leader's bitcoind: one entry for each block that comes or goes.
//!
//! Bursts coalesce: whatever the tip is now, the way to it is found by walking back to a block that the log has.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use onespend_adapters::chain::{ChainError, TipRef};
use onespend_core::command::{BlockRef, Command};
use onespend_core::ids::Height;
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::state::State;
use tracing::{debug, info, warn};

use super::{Duty, block_facts};
use crate::raft::{LeaderTerm, ProposeError};
use crate::runtime;

/// How often the tip is looked at when nothing wakes this duty.
const POLL: Duration = Duration::from_secs(2);
/// How often a block is searched in a row while wallets or coins are registered in between.
const MAX_SEARCHES: u32 = 8;
/// How far below bitcoind's tip a new cluster begins, in blocks.
const START_DEPTH: u32 = 100;
/// The alarm when the chain has left the log's blocks further back than their undo is kept.
pub const UNFOLLOWABLE: &str = "CHAIN_UNFOLLOWABLE";
/// Wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// How the way to a target lies to the log's chain.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// It leaves the log's chain at this height, and these blocks follow, lowest first.
    Leads(u32, Vec<BlockHash>),
    /// The target lies on the log's chain, or on a branch that is shorter: there is nothing to do.
    Behind,
    /// The target lies below every block that the log keeps. Where it leads to is not known yet: bitcoind catches up.
    FarBehind,
}

/// Why the chain could not be followed for now.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("bitcoind: {0}")]
    Chain(#[from] ChainError),
    #[error("proposing: {0}")]
    Propose(#[from] ProposeError),
    #[error("refused: {0}")]
    Refused(Rejection),
    #[error("the branch leaves the log's chain below height {lowest}, the lowest block that is kept")]
    TooDeep { lowest: u32 },
    #[error("bitcoind's chain changed while it was looked at")]
    Changed,
    #[error("the task that asks bitcoind failed")]
    Task,
}

pub(super) async fn run(duty: Arc<Duty>, term: LeaderTerm) {
    let mut tips = duty.bitcoind.tips();
    loop {
        let target = *tips.borrow_and_update();
        if let Some(target) = target.filter(|_| duty.bitcoind.may_follow()) {
            match follow(&duty, &term, target).await {
                // What the log's blocks lead to is not known of one that is far behind.
                Ok(Way::FarBehind) => {}
                Ok(Way::Leads(..) | Way::Behind) => duty.alarms.clear(UNFOLLOWABLE),
                Err(FollowError::Propose(_)) => runtime::sleep(PAUSE).await,
                Err(error) => {
                    if matches!(error, FollowError::TooDeep { .. }) {
                        duty.alarms.raise(UNFOLLOWABLE, &error.to_string());
                    }
                    warn!(%error, height = target.height, "the chain cannot be followed for now");
                    runtime::sleep(PAUSE).await;
                }
            }
        }
        let _ = runtime::timeout(POLL, tips.changed()).await;
    }
}

async fn follow(duty: &Arc<Duty>, term: &LeaderTerm, target: TipRef) -> Result<Way, FollowError> {
    if duty.replica.read(|state| state.tip().is_err()) {
        let first = blocking(duty, move |duty| first_block(duty, target)).await?;
        info!(height = first.height.0, hash = %first.hash, "the cluster begins to follow the chain here");
        propose(duty, term, Command::Start { network: duty.network, tip: first }).await?;
    }
    let way = blocking(duty, move |duty| {
        let read = |height| duty.replica.read(|state| state.block(Height(height)).map(|record| record.hash));
        let kept = duty.replica.read(|state| Kept { tip: state.tip().ok(), lowest: state.lowest_block().0 });
        way(target, kept, read, |hash| duty.chain.header(hash).map(|header| header.prev))
    })
    .await?;
    match &way {
        Way::Behind | Way::FarBehind => debug!(height = target.height, ?way, "bitcoind is behind the log's chain"),
        Way::Leads(fork, to_connect) => {
            disconnect_to(duty, term, *fork).await?;
            for hash in to_connect {
                connect(duty, term, *hash).await?;
            }
        }
    }
    Ok(way)
}

/// Where a new cluster begins: far enough below the tip that no reorganisation reaches it.
fn first_block(duty: &Duty, target: TipRef) -> Result<BlockRef, FollowError> {
    let height = target.height.saturating_sub(START_DEPTH);
    let hash = duty.chain.block_hash_at(height)?.ok_or(FollowError::Changed)?;
    Ok(BlockRef { height: Height(height), hash })
}

/// The blocks that the log keeps.
#[derive(Debug, Clone, Copy)]
struct Kept {
    tip: Option<BlockRef>,
    lowest: u32,
}

/// Walks back from the target until it meets a block that the log has. `known` is the log's block at a height,
/// `previous` the block before one of bitcoind's.
fn way(
    target: TipRef,
    kept: Kept,
    known: impl Fn(u32) -> Option<BlockHash>,
    previous: impl Fn(BlockHash) -> Result<Option<BlockHash>, ChainError>,
) -> Result<Way, FollowError> {
    let lowest = kept.lowest;
    if target.height < lowest {
        return Ok(Way::FarBehind);
    }
    let mut blocks = Vec::new();
    let mut cursor = target;
    while known(cursor.height) != Some(cursor.hash) {
        if cursor.height <= lowest {
            return Err(FollowError::TooDeep { lowest });
        }
        blocks.push(cursor.hash);
        let hash = previous(cursor.hash)?.ok_or(FollowError::Changed)?;
        cursor = TipRef { height: cursor.height - 1, hash };
    }
    blocks.reverse();
    let is_shorter = kept.tip.is_some_and(|tip| target.height < tip.height.0);
    Ok(if blocks.is_empty() || is_shorter { Way::Behind } else { Way::Leads(cursor.height, blocks) })
}

async fn disconnect_to(duty: &Duty, term: &LeaderTerm, fork: u32) -> Result<(), FollowError> {
    while let Some(tip) = duty.replica.read(|state| state.tip().ok()).filter(|tip| tip.height.0 > fork) {
        info!(height = tip.height.0, hash = %tip.hash, "a block was reorganised away");
        propose(duty, term, Command::DisconnectBlock { block: tip }).await?;
    }
    Ok(())
}

/// A block that was searched before a wallet or a coin was registered is refused, and searched again.
async fn connect(duty: &Arc<Duty>, term: &LeaderTerm, hash: BlockHash) -> Result<(), FollowError> {
    let mut searches = 1;
    let tip = || duty.replica.read(|state| state.tip().ok());
    let below = tip();
    loop {
        let command = search(duty, hash).await?;
        match propose(duty, term, command).await {
            Err(FollowError::Refused(rejection))
                if rejection.is_transient() && searches < MAX_SEARCHES && tip() == below =>
            {
                debug!(%rejection, %hash, "a block is searched again");
                searches += 1;
            }
            done => return done,
        }
    }
}

async fn search(duty: &Arc<Duty>, hash: BlockHash) -> Result<Command, FollowError> {
    blocking(duty, move |duty| {
        if duty.replica.read(State::wallet_count) == 0 {
            return empty(duty, hash);
        }
        let block = duty.chain.block(hash)?;
        let covered = duty.scripts.cover(duty.replica.raft().view());
        let height = Height(duty.replica.read(|state| state.tip().map_or(0, |tip| tip.height.0)) + 1);
        let received = block_facts::received(&block, height, &duty.scripts);
        let at = BlockRef { height, hash };
        Ok(duty.replica.read(|state| block_facts::connect(&block, at, received, covered, state)))
    })
    .await
}

/// A block means nothing to a cluster without wallets; its header is enough.
fn empty(duty: &Duty, hash: BlockHash) -> Result<Command, FollowError> {
    let header = duty.chain.header(hash)?;
    let previous = header.prev.ok_or(FollowError::Changed)?;
    let block = BlockRef { height: Height(header.height), hash };
    Ok(Command::ConnectBlock { block, previous, received: vec![], spent: vec![], wallets: 0, followed: None })
}

async fn propose(duty: &Duty, term: &LeaderTerm, command: Command) -> Result<(), FollowError> {
    let applied = duty.replica.propose_as(term, command).await?;
    match applied.outcome {
        Outcome::Rejected(rejection) => Err(FollowError::Refused(rejection)),
        _ => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    duty: &Arc<Duty>,
    work: impl FnOnce(&Duty) -> Result<T, FollowError> + Send + 'static,
) -> Result<T, FollowError> {
    let duty = Arc::clone(duty);
    runtime::blocking(move || work(&duty)).await.map_err(|_| FollowError::Task)?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use bitcoin::hashes::Hash;

    use super::*;

    /// The block at a height of a branch that leaves the main one after height `fork`.
    fn on(branch: u8, fork: u32, height: u32) -> BlockHash {
        let mut bytes = [if height > fork { branch } else { 0 }; 32];
        bytes[..4].copy_from_slice(&height.to_be_bytes());
        BlockHash::from_byte_array(bytes)
    }

    /// The way to a height of a branch, for a log that keeps the main branch's blocks 100 to 388.
    fn way_to(branch: u8, fork: u32, height: u32) -> Result<Way, FollowError> {
        let kept = Kept { tip: Some(BlockRef { height: Height(388), hash: on(0, 0, 388) }), lowest: 100 };
        let known = |height: u32| (100..=388).contains(&height).then(|| on(0, 0, height));
        let previous = |hash: BlockHash| {
            let height = u32::from_be_bytes(hash.to_byte_array()[..4].try_into().unwrap());
            Ok(height.checked_sub(1).map(|below| on(branch, fork, below)))
        };
        way(TipRef { height, hash: on(branch, fork, height) }, kept, known, previous)
    }

    #[test]
    fn a_tip_above_the_logs_leads_on_from_it() {
        assert_eq!(way_to(0, 0, 390).unwrap(), Way::Leads(388, vec![on(0, 0, 389), on(0, 0, 390)]));
    }

    #[test]
    fn a_branch_as_long_is_followed_and_a_shorter_one_is_not() {
        assert_eq!(way_to(1, 387, 388).unwrap(), Way::Leads(387, vec![on(1, 387, 388)]));
        assert_eq!(way_to(1, 386, 387).unwrap(), Way::Behind);
        assert_eq!(way_to(0, 0, 388).unwrap(), Way::Behind);
        assert_eq!(way_to(0, 0, 100).unwrap(), Way::Behind);
    }

    #[test]
    fn a_bitcoind_that_is_far_behind_is_not_on_a_fork() {
        assert_eq!(way_to(0, 0, 99).unwrap(), Way::FarBehind);
        assert_eq!(way_to(1, 20, 50).unwrap(), Way::FarBehind);
    }

    #[test]
    fn a_branch_that_leaves_below_the_lowest_block_cannot_be_followed() {
        assert!(matches!(way_to(1, 99, 390), Err(FollowError::TooDeep { lowest: 100 })));
        assert!(matches!(way_to(1, 99, 100), Err(FollowError::TooDeep { lowest: 100 })));
        assert_eq!(way_to(1, 100, 389).unwrap(), Way::Leads(100, (101..=389).map(|at| on(1, 100, at)).collect()));
    }
}
