//! A restored state: what the cluster did after the backup is not in it (safety 30).
//!
//! Until an operator confirms, reservations and reads work, and nothing is permitted or signed. The leader follows the
//! chain to its tip and looks for coins that transactions spend which nobody here knows, in the mempool or as its
//! signers remember; those are held back. A payment that was ordered before the backup and replaced after it may have
//! been paid by a transaction that is not in this state, so a transaction that nobody here knows does not make it free
//! to be ordered again, for ever (`replacement::check_ends`). What nothing here can show is the name of a payment that
//! was ordered after the backup, whether it is in a block or not: its name is free again, so whoever orders payments
//! must not order under such a name.

use bitcoin::OutPoint;
use minicbor::{Decode, Encode};

use crate::apply::Context;
use crate::chain;
use crate::command::BlockRef;
use crate::ids::Fence;
use crate::limits::MAX_NOTE_LEN;
use crate::outcome::{Outcome, Rejection};
use crate::state::State;
use crate::utxo::Claim;

/// Why coins are held back, in the audit. It is in rows of the state, so these are the words of all versions, also where
/// the leader's signers remember the transaction and the mempool does not have it.
const SPENT_OUTSIDE: &str = "the mempool spends it by a transaction that is not in this state";

/// Blocks that may come between the comparison with bitcoind and the operator's word.
const MAX_RECONCILED_AGE: u32 = 2;

/// The state is not to be believed yet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Recovery {
    /// How that was noticed.
    #[n(0)]
    pub why: String,
    /// The tip at which the state was last compared with chain and mempool.
    #[n(1)]
    pub reconciled: Option<BlockRef>,
}

/// Refuses while the state is not confirmed.
pub(crate) fn check(state: &State) -> Result<(), Rejection> {
    state.recovery().map_or(Ok(()), |recovery| Err(Rejection::RecoveryMode { why: recovery.why.clone() }))
}

pub(crate) fn enter(state: &mut State, why: &str) -> Outcome {
    if state.recovery().is_none() {
        let why = why.chars().take(MAX_NOTE_LEN).collect();
        state.set_recovery(Some(Recovery { why, reconciled: None }));
    }
    Outcome::Recorded
}

pub(crate) fn reconcile(
    state: &mut State,
    ctx: &Context,
    basis: BlockRef,
    spent_outside: &[OutPoint],
) -> Result<Outcome, Rejection> {
    let Some(recovery) = state.recovery().cloned() else {
        return Err(Rejection::RecoveryRefused { why: "the cluster is not in recovery mode".to_owned() });
    };
    if state.tip()? != basis {
        return Err(Rejection::StaleBasis { what: "the tip has moved since the comparison".to_owned() });
    }
    let nobodys = |outpoint: &&OutPoint| {
        state.utxo(outpoint).is_some_and(|utxo| matches!(utxo.claim, Claim::Free | Claim::Reserved(_)))
    };
    let nobodys: Vec<OutPoint> = spent_outside.iter().filter(nobodys).copied().collect();
    chain::hold_back(state, ctx, &nobodys, SPENT_OUTSIDE);
    state.set_recovery(Some(Recovery { reconciled: Some(basis), ..recovery }));
    Ok(Outcome::Recorded)
}

pub(crate) fn confirm(state: &mut State, epoch: u32, note: &str) -> Result<Outcome, Rejection> {
    let refuse = |why: &str| Err(Rejection::RecoveryRefused { why: why.to_owned() });
    let Some(recovery) = state.recovery() else { return refuse("the cluster is not in recovery mode") };
    if note.len() > MAX_NOTE_LEN {
        return refuse("the note is longer than 1000 bytes");
    }
    let tip = state.tip()?;
    let fresh = recovery.reconciled.is_some_and(|at| {
        let in_chain = state.block(at.height).is_some_and(|record| record.hash == at.hash);
        in_chain && tip.height.0.saturating_sub(at.height.0) <= MAX_RECONCILED_AGE
    });
    if !fresh {
        return refuse("the state has not been compared with bitcoind's chain and mempool at this tip yet");
    }
    if epoch <= state.epoch() || epoch > Fence::MAX_EPOCH {
        return refuse("the epoch must be above the one before, and at most 65535");
    }
    state.set_epoch(epoch);
    state.set_recovery(None);
    Ok(Outcome::Recorded)
}
