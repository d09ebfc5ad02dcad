//! Proposing commands: one entry in the log for each, and an answer that never claims more than is known.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use onespend_core::command::{Command, Entry, Request};
use onespend_core::ids::Millis;
use onespend_core::outcome::Outcome;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::ProgressResponder;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant as Deadline;

use super::leadership::{LeaderHint, Leadership};
use super::observer::{ProposalEnd, RaftObserver};
use super::types::{Applied, CommittedLeader, Proposal, Raft, TypeConfig};
use super::view::StateView;
use crate::runtime;

/// Proposals that may wait for their answers at the same time.
const MAX_IN_FLIGHT: usize = 4_096;
/// The largest command in its stored form. A wallet of 100 000 coins fits.
pub const MAX_PROPOSAL_BYTES: usize = 16 << 20;
/// A leader that was just elected refuses until its first heartbeat is answered, which takes a few milliseconds; one that
/// lost its quorum refuses as well, so this does not last.
const LEASE_PATIENCE: Duration = Duration::from_millis(50);
const LEASE_PAUSE: Duration = Duration::from_millis(1);

/// A command that is not yet in the log: its time is added when it is proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Who asked; `None` for the leader's own duties.
    pub request: Option<Request>,
    /// The change.
    pub command: Command,
}

impl Draft {
    /// A duty of the leader.
    pub fn duty(command: Command) -> Self {
        Self { request: None, command }
    }
}

/// Why there is no answer to a proposal. All but [`ProposeError::Unknown`] mean: it was not and will not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead. Safe to try elsewhere.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if known.
        hint: Option<LeaderHint>,
    },
    /// It may have been applied, or may be later. Ask again with the same request id.
    #[error("whether it was done is not known")]
    Unknown,
    /// Too much is in flight. Safe to try again.
    #[error("too many requests are in flight")]
    Overloaded,
    /// It is larger than any command may be. Trying again does not help.
    #[error("the command has {size_bytes} bytes; at most {MAX_PROPOSAL_BYTES} are possible")]
    TooLarge {
        /// Its size in the stored form.
        size_bytes: usize,
    },
    /// This node stops. Safe to try elsewhere.
    #[error("this node stops")]
    Stopped,
}

impl ProposeError {
    fn end(&self) -> ProposalEnd {
        match self {
            Self::NotLeader { .. } => ProposalEnd::NotLeader,
            Self::Unknown => ProposalEnd::Unknown,
            Self::Overloaded => ProposalEnd::Overloaded,
            Self::TooLarge { .. } => ProposalEnd::TooLarge,
            Self::Stopped => ProposalEnd::Stopped,
        }
    }
}

/// Proposes to this node's Raft. Clones share the bound on what is in flight.
#[derive(Clone)]
pub struct Proposer {
    raft: Raft,
    view: StateView,
    leadership: watch::Receiver<Leadership>,
    in_flight: Arc<Semaphore>,
    observer: Arc<dyn RaftObserver>,
}

/// What one attempt came to.
enum Attempt {
    Ended(Result<Applied, ProposeError>),
    /// The leader waits for its lease; nothing was appended.
    NoLease,
}

impl Proposer {
    pub(crate) fn new(
        raft: Raft,
        view: StateView,
        leadership: watch::Receiver<Leadership>,
        observer: Arc<dyn RaftObserver>,
    ) -> Self {
        Self { raft, view, leadership, in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)), observer }
    }

    /// Proposes a caller's command, and waits until it is applied on this node. Callers that come together share one
    /// commit. A refusal by the rules is an answer, not an error.
    ///
    /// # Errors
    /// See [`ProposeError`]. At the deadline the outcome is unknown.
    pub async fn propose(&self, draft: Draft, deadline: Deadline) -> Result<Applied, ProposeError> {
        self.observed(None, draft, deadline).await
    }

    /// The same, but only if this node leads in this very term.
    pub(crate) async fn propose_in(
        &self,
        term: u64,
        draft: Draft,
        deadline: Deadline,
    ) -> Result<Applied, ProposeError> {
        self.observed(Some(term), draft, deadline).await
    }

    async fn observed(&self, term: Option<u64>, draft: Draft, deadline: Deadline) -> Result<Applied, ProposeError> {
        let (kind, started) = (draft.command.kind(), Instant::now());
        let result = self.patiently(term, draft, deadline).await;
        let end = match &result {
            Ok(Applied { outcome: Outcome::Rejected(_), .. }) => ProposalEnd::Rejected,
            Ok(_) => ProposalEnd::Accepted,
            Err(error) => error.end(),
        };
        self.observer.proposed(kind, end, started.elapsed());
        result
    }

    /// Tries again while this node only waits for its lease.
    async fn patiently(&self, term: Option<u64>, draft: Draft, deadline: Deadline) -> Result<Applied, ProposeError> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(ProposeError::Overloaded);
        };
        let (at, wall_ms) = (self.now(), wall_ms());
        let proposal = Proposal::new(Entry { at, wall_ms, request: draft.request, command: draft.command });
        let size_bytes = proposal.bytes().len();
        if size_bytes > MAX_PROPOSAL_BYTES {
            return Err(ProposeError::TooLarge { size_bytes });
        }
        let patience = deadline.min(runtime::now() + LEASE_PATIENCE);
        loop {
            match self.once(term, proposal.clone(), deadline).await {
                Attempt::Ended(result) => return result,
                Attempt::NoLease if runtime::now() < patience => runtime::sleep(LEASE_PAUSE).await,
                Attempt::NoLease => return Err(ProposeError::NotLeader { hint: None }),
            }
        }
    }

    async fn once(&self, term: Option<u64>, proposal: Proposal, deadline: Deadline) -> Attempt {
        let (responder, answer) = ProgressResponder::complete_only();
        let mut write = self.raft.write(proposal).responder(responder);
        if let Some(term) = term {
            write = write.with_leader(CommittedLeader::new(term));
        }
        let answer = async {
            // An error here means that Raft had stopped before it took the proposal.
            write.await.map_err(|_| ProposeError::Stopped)?;
            // Raft stopped with the proposal in its hands: it may be in the log.
            answer.await.map_err(|_| ProposeError::Unknown)
        };
        let answer: openraft::raft::ClientWriteResult<TypeConfig> = match runtime::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Attempt::Ended(Err(error)),
            Err(_) => return Attempt::Ended(Err(ProposeError::Unknown)),
        };
        match answer {
            Ok(written) => Attempt::Ended(Ok(written.data)),
            Err(ClientWriteError::ForwardToLeader(forward)) if forward.reason == ForwardReason::LeaseExpired => {
                Attempt::NoLease
            }
            Err(ClientWriteError::ForwardToLeader(forward)) => {
                Attempt::Ended(Err(ProposeError::NotLeader { hint: self.hint(forward) }))
            }
            // A later leader may have kept the entry: only the same request id finds out.
            Err(ClientWriteError::LogEntryDiscarded(_)) => Attempt::Ended(Err(ProposeError::Unknown)),
            // A change of the members and a precondition are no part of this proposal, so this cannot come; if it ever
            // did, nothing would be known.
            Err(ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
                Attempt::Ended(Err(ProposeError::Unknown))
            }
        }
    }

    fn hint(&self, forward: ForwardToLeader<TypeConfig>) -> Option<LeaderHint> {
        let (node_id, addresses) = (forward.leader_id?, forward.leader_node?);
        // During a transfer the hint names the node that is about to lead, in a term that does not exist yet.
        let term = self.leadership.borrow().hint().map_or(0, |hint| hint.term);
        (node_id != *self.raft.node_id()).then_some(LeaderHint { node_id, addresses, term })
    }

    fn now(&self) -> Millis {
        let leadership = self.leadership.borrow();
        leadership.leader_term().map_or_else(|| self.view.now(), super::leadership::LeaderTerm::now)
    }
}

/// For people to read; no decision rests on it (safety 16).
fn wall_ms() -> u64 {
    let since = crate::clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
