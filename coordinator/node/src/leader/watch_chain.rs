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
use tokio::task::spawn_blocking;
use tracing::{debug, error, info, warn};

use super::{Duty, block_facts};
use crate::raft::{LeaderTerm, ProposeError};

/// How often the tip is looked at when nothing wakes this duty.
const POLL: Duration = Duration::from_secs(2);
/// How far below bitcoind's tip a new cluster begins, in blocks.
const START_DEPTH: u32 = 100;
/// The alarm when the chain has left the log's blocks further back than their undo is kept.
const UNFOLLOWABLE: &str = "CHAIN_UNFOLLOWABLE";
/// Wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

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
    #[error("the task that asks bitcoind failed")]
    Task,
}

pub(super) async fn run(duty: Arc<Duty>, term: LeaderTerm) {
    let mut tips = duty.bitcoind.tips();
    loop {
        let target = *tips.borrow_and_update();
        if let Some(target) = target.filter(|_| duty.bitcoind.may_follow()) {
            match follow(&duty, &term, target).await {
                Ok(()) => {}
                Err(FollowError::Propose(_)) => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    if matches!(error, FollowError::TooDeep { .. }) {
                        duty.alarms.raise(UNFOLLOWABLE, &error.to_string());
                    }
                    warn!(%error, height = target.height, "the chain cannot be followed for now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        let _ = tokio::time::timeout(POLL, tips.changed()).await;
    }
}

async fn follow(duty: &Arc<Duty>, term: &LeaderTerm, target: TipRef) -> Result<(), FollowError> {
    let Some(tip) = duty.replica.read(|state| state.tip().ok()) else {
        let first = blocking(duty, move |duty| first_block(duty, target)).await?;
        info!(height = first.height.0, hash = %first.hash, "the cluster begins to follow the chain here");
        propose(duty, term, Command::Start { network: duty.network, tip: first }).await?;
        return Box::pin(follow(duty, term, target)).await;
    };
    if tip.hash == target.hash {
        return Ok(());
    }
    let branch = blocking(duty, move |duty| branch(duty, target)).await?;
    let Some((fork, to_connect)) = branch else {
        debug!(height = target.height, "bitcoind is behind the log's chain");
        return Ok(());
    };
    disconnect_to(duty, term, fork).await?;
    for hash in to_connect {
        connect(duty, term, hash).await?;
    }
    Ok(())
}

/// Where a new cluster begins: far enough below the tip that no reorganisation reaches it.
fn first_block(duty: &Duty, target: TipRef) -> Result<BlockRef, FollowError> {
    let height = target.height.saturating_sub(START_DEPTH);
    let hash = duty.chain.block_hash_at(height)?.ok_or(FollowError::TooDeep { lowest: height })?;
    Ok(BlockRef { height: Height(height), hash })
}

/// The height at which the way to the target leaves the log's chain, and the blocks above it, lowest first. `None`
/// where the target lies on the log's chain, or on a branch that is shorter.
fn branch(duty: &Duty, target: TipRef) -> Result<Option<(u32, Vec<BlockHash>)>, FollowError> {
    let known = |height: u32| duty.replica.read(|state| state.block(Height(height)).map(|record| record.hash));
    let (tip, lowest) = duty.replica.read(|state| (state.tip().map_or(0, |tip| tip.height.0), state.lowest_block().0));
    let mut way = Vec::new();
    let mut cursor = target;
    while known(cursor.height) != Some(cursor.hash) {
        if cursor.height <= lowest {
            return Err(FollowError::TooDeep { lowest });
        }
        way.push(cursor.hash);
        let header = duty.chain.header(cursor.hash)?;
        let Some(previous) = header.prev else { return Err(FollowError::TooDeep { lowest }) };
        cursor = TipRef { height: cursor.height - 1, hash: previous };
    }
    way.reverse();
    Ok((!way.is_empty() && target.height >= tip).then_some((cursor.height, way)))
}

async fn disconnect_to(duty: &Duty, term: &LeaderTerm, fork: u32) -> Result<(), FollowError> {
    while let Some(tip) = duty.replica.read(|state| state.tip().ok()).filter(|tip| tip.height.0 > fork) {
        info!(height = tip.height.0, hash = %tip.hash, "a block was reorganised away");
        propose(duty, term, Command::DisconnectBlock { block: tip }).await?;
        report_frozen(duty);
    }
    Ok(())
}

/// A reorganisation that took away settled blocks freezes wallets: a human must look (safety 17).
fn report_frozen(duty: &Duty) {
    let frozen: Vec<(String, String)> = duty.replica.read(|state| {
        let wallets = state.wallets().filter_map(|(id, wallet)| Some((id.to_string(), wallet.frozen.clone()?)));
        wallets.collect()
    });
    for (wallet, why) in frozen {
        error!(wallet, why, "the wallet is frozen until an operator has looked");
    }
}

async fn connect(duty: &Arc<Duty>, term: &LeaderTerm, hash: BlockHash) -> Result<(), FollowError> {
    let command = blocking(duty, move |duty| {
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
    .await?;
    propose(duty, term, command).await
}

/// A block means nothing to a cluster without wallets; its header is enough.
fn empty(duty: &Duty, hash: BlockHash) -> Result<Command, FollowError> {
    let header = duty.chain.header(hash)?;
    let previous = header.prev.ok_or(FollowError::TooDeep { lowest: 0 })?;
    let block = BlockRef { height: Height(header.height), hash };
    Ok(Command::ConnectBlock { block, previous, received: vec![], spent: vec![], wallets: 0 })
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
    spawn_blocking(move || work(&duty)).await.map_err(|_| FollowError::Task)?
}
