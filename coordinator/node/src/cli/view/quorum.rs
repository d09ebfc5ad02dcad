//! Whether those who answer can be a quorum.

use onespend_proto::v1;
use serde::Serialize;

use super::health::Health;
use super::node_status::Status;
use crate::cli::words::Word as _;

/// A leader whom a quorum acknowledged within this time still has one; that of an isolated leader was longer ago.
const RECENT_MS: u64 = 3_000;

/// The voters, and how many of them answer.
#[derive(Debug, Serialize)]
pub struct Quorum {
    voters: usize,
    answering: usize,
    /// Too few answer for a quorum, and by what these say none is there that only does not answer here.
    lost: bool,
}

impl Quorum {
    /// By the members that `best` knows; `None` if it knows of no voter.
    pub(super) fn new(best: &Status, answered: &[&Status]) -> Option<Self> {
        let voters: Vec<u64> = best.members.iter().filter(|one| one.voter).map(|one| one.node_id).collect();
        let answering = answered.iter().filter(|status| voters.contains(&status.node_id)).count();
        let lost = answering * 2 <= voters.len() && !answered.iter().any(|status| has_quorum(status, answered));
        (!voters.is_empty()).then_some(Self { voters: voters.len(), answering, lost })
    }

    /// What is lost with the quorum; `None` if it is not lost.
    pub(super) fn complaint(&self) -> Option<String> {
        let Self { voters, answering, lost } = self;
        lost.then(|| format!("{answering} of {voters} voters answer, nothing can be reserved or paid"))
    }
}

/// Whether a node leads with a quorum, or hears a leader other than those whose own word there is.
fn has_quorum(status: &Status, answered: &[&Status]) -> bool {
    let leads = |status: &Status| status.role == v1::NodeRole::Leader.word();
    if leads(status) {
        return status.quorum_age_ms.is_some_and(|ms| ms <= RECENT_MS);
    }
    let hears = status.health.as_ref().is_some_and(Health::hears_a_leader);
    hears && !answered.iter().any(|other| leads(other) && other.term >= status.term)
}
