//! Reads that see everything that was acknowledged before they began (ReadIndex of the Raft paper, section 6.4).

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::time::Instant as Deadline;

use super::leadership::LeaderHint;
use super::types::Raft;
use super::view::StateView;
use crate::runtime::timeout_at;

/// Why the state may not be read as the latest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node does not lead. Ask the leader.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if known. The term is that of this node.
        hint: Option<LeaderHint>,
    },
    /// No quorum confirmed in time that this node leads. Safe to try again.
    #[error("no quorum confirmed in time that this node leads")]
    NoQuorum,
    /// This node stops. Safe to try elsewhere.
    #[error("this node stops")]
    Stopped,
}

/// Waits until a quorum has confirmed that this node leads, and until everything is applied that was committed when it was
/// asked. Then the state may be read. Reads that wait together share one round of messages. Leases are not used: they
/// have no margin for clocks that drift apart.
pub(crate) async fn wait(raft: &Raft, deadline: Deadline) -> Result<(), ReadError> {
    let confirmed = timeout_at(deadline, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
    match confirmed {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::Fatal(_))) => Err(ReadError::Stopped),
        Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
            let term = raft.server_metrics().borrow_watched().vote.leader_id.term;
            let hint = forward.leader_id.zip(forward.leader_node);
            let hint = hint.map(|(node_id, addresses)| LeaderHint { node_id, addresses, term });
            Err(ReadError::NotLeader { hint })
        }
        Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => Err(ReadError::NoQuorum),
    }
}

/// Waits until everything that was handed to this node's log before the call is decided, and what earlier leaders
/// were handed as well. An entry of theirs that this node lacks can never be committed once a quorum has confirmed
/// that this node leads: its own term's first entry is applied before it calls itself the leader. One that this node
/// has in its log is either applied, or another one takes its place.
pub(crate) async fn wait_for_log(raft: &Raft, view: &StateView, deadline: Deadline) -> Result<(), ReadError> {
    // The question waits in the same queue as the proposals, so it counts those that were handed over before.
    let last = raft.with_raft_state(|state| state.log_ids.last().map_or(0, |last| last.index));
    let last = timeout_at(deadline, last).await.map_err(|_| ReadError::NoQuorum)?;
    let last = last.map_err(|_| ReadError::Stopped)?;
    wait(raft, deadline).await?;
    let mut positions = view.watch_position();
    let applied = timeout_at(deadline, positions.wait_for(|position| position.index.0 >= last)).await;
    applied.map_err(|_| ReadError::NoQuorum)?.map_err(|_| ReadError::Stopped).map(drop)
}
