//! How new an append is: what its receiver needs to know how old its own state may be at most, however long the append was
//! on its way, and whoever leads meanwhile.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use onespend_proto::peer::v1::AppendStreamRequest;
use openraft::raft::AppendEntriesRequest;

use super::acks::Acks;
use super::types::{NodeId, TypeConfig};
use super::wire;
use crate::runtime;

/// When a quorum last acknowledged this node as leader; told once Raft is there.
pub(crate) type QuorumAcked = Arc<OnceLock<Box<dyn Fn() -> Option<Instant> + Send + Sync>>>;

/// Dates what is sent to one node.
#[derive(Clone)]
pub(crate) struct Dating {
    pub(crate) to: NodeId,
    pub(crate) acks: Acks,
    pub(crate) quorum: QuorumAcked,
}

impl Dating {
    /// The append as a message, dated where that can be. To be called as soon as there is the request: what is committed
    /// by then is in it.
    pub(crate) fn message(&self, request: AppendEntriesRequest<TypeConfig>) -> AppendStreamRequest {
        // Until it has committed an entry of its own term, a leader does not know what is committed.
        let term = request.vote.leader_id.term;
        let knows = request.leader_commit.is_some_and(|commit| commit.leader_id.term == term);
        let message = wire::append_request(request);
        // First the answer, then the quorum, then the clock: whatever comes between makes the date older than it is.
        let heard_moment = self.acks.moment(self.to);
        let Some(acked) = self.quorum.get().filter(|_| knows).and_then(|quorum_acked| quorum_acked()) else {
            return message;
        };
        let age = runtime::now().into_std().saturating_duration_since(acked);
        let quorum_age_us = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        AppendStreamRequest { heard_moment, quorum_age_us, ..message }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::super::acks::Sent;
    use super::super::types::{CommittedLeader, LogId, Vote};
    use super::*;

    fn heartbeat(term: u64, committed: Option<LogId>) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(term, 1),
            prev_log_id: None,
            entries: vec![],
            leader_commit: committed,
        }
    }

    #[test]
    fn an_append_is_dated_by_the_last_answer_and_the_last_quorum_once_its_leader_knows_what_is_committed() {
        let (acks, quorum) = (Acks::default(), QuorumAcked::default());
        let dating = Dating { to: 2, acks: acks.clone(), quorum: Arc::clone(&quorum) };
        let of_term = |term| Some(LogId::new(CommittedLeader::new(term), 9));
        acks.note(2, Sent::now(&heartbeat(3, None)), &Ok(None), 77);
        let dated = |committed| {
            let message = dating.message(heartbeat(3, committed));
            (message.heard_moment, message.quorum_age_us)
        };
        assert_eq!(dated(of_term(3)), (0, 0), "nobody leads");
        let acked = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        assert!(quorum.set(Box::new(move || Some(acked))).is_ok());
        let (moment, age_us) = dated(of_term(3));
        assert_eq!(moment, 77);
        assert!((5_000_000..65_000_000).contains(&age_us), "{age_us}");
        assert_eq!([dated(of_term(2)), dated(None)], [(0, 0); 2], "of a term before, or unknown");
    }
}
