//! Whether those who answer can be a quorum, and whether one of them, or one whom they hear, leads it.

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
    /// Enough answer for a quorum, and by what these say nobody leads it.
    leaderless: bool,
}

/// Why nothing can be reserved or paid.
#[derive(Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is missing, in a word or two.
    pub what: &'static str,
    /// By which it is known.
    pub why: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Quorum {
    /// By the members that `best` knows; `None` if it knows of no voter.
    pub(super) fn new(best: &Status, answered: &[&Status]) -> Option<Self> {
        let voters: Vec<u64> = best.members.iter().filter(|one| one.voter).map(|one| one.node_id).collect();
        let answering = answered.iter().filter(|status| voters.contains(&status.node_id)).count();
        let led = answered.iter().any(|status| has_quorum(status, answered));
        let enough = answering * 2 > voters.len();
        let (lost, leaderless) = (!led && !enough, !led && enough);
        (!voters.is_empty()).then_some(Self { voters: voters.len(), answering, lost, leaderless })
    }

    /// What is missing; `None` if somebody leads a quorum.
    pub(super) fn complaint(&self) -> Option<Complaint> {
        let Self { voters, answering, lost, leaderless } = self;
        let answer = format!("{answering} of {voters} voters answer");
        if *lost {
            return Some(Complaint {
                what: "no quorum",
                why: format!("{answer}, nothing can be reserved or paid"),
                remedy: "bring voters back; if most are lost for good, the operations book has \"Disaster: lost quorum\"",
            });
        }
        leaderless.then(|| Complaint {
            what: "no leader",
            why: format!("{answer} and none leads a quorum, nothing can be reserved or paid"),
            remedy: "look again, for an election takes less than a second; if it stays so, see what each node's health says \
                     and whether the nodes reach each other on their control ports",
        })
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
