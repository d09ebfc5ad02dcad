//! Signatures that are to come late: which intents wait for a signer that is held up, and who has signed them.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::runtime::Handle;

use super::nodes::Nodes;
use super::schedule::Planned;
use crate::cluster::{Cluster, Node};
use crate::oracle::signer_log;

/// From one look to the next: far longer than a signer takes that nobody holds up.
const LOOK_PACE: Duration = Duration::from_millis(150);
const LIST_PATIENCE: Duration = Duration::from_millis(500);

/// Attempts: payment and number.
pub type Attempts = BTreeSet<(String, u32)>;

/// So often more than planned a late signature is tried that has not come once.
const MAX_TRIES_MORE: usize = 4;

/// How far a late signature is.
#[derive(Debug, PartialEq, Eq)]
pub enum Late {
    /// None is under way, or nothing came of it.
    Nothing,
    /// These wait for a signer, and another node is to sign them first.
    Held(Attempts),
    /// Another node has signed these, and the signer goes on, since then.
    Woken(Attempts, Instant),
    /// The signer has signed one of them, too, after the other node.
    Came,
}

impl Late {
    /// How far it is when the other nodes have signed these, and the one that is held up has signed those. `is_over`: it is
    /// waited for no longer.
    pub fn advance(self, others: &Attempts, own: &Attempts, is_over: bool) -> Self {
        match self {
            Self::Held(held) => {
                let late = &held & others;
                match (late.is_empty(), is_over) {
                    (false, _) => Self::Woken(late, Instant::now()),
                    (true, false) => Self::Held(held),
                    (true, true) => Self::Nothing,
                }
            }
            Self::Woken(late, _) if !late.is_disjoint(own) => Self::Came,
            Self::Woken(..) if is_over => Self::Nothing,
            Self::Nothing | Self::Woken(..) | Self::Came => self,
        }
    }

    /// Whether something is still to come of it.
    pub fn is_under_way(&self) -> bool {
        matches!(self, Self::Held(_) | Self::Woken(..))
    }
}

/// Late signatures that are tried again: as long as none has come, a run has not shown what becomes of one.
#[derive(Debug, Default)]
pub struct Tries {
    more: usize,
    has_come: bool,
    owed: Option<Planned>,
}

impl Tries {
    /// One is over.
    pub fn end(&mut self, planned: &Planned, has_come: bool) {
        self.has_come |= has_come;
        self.owed = (!self.has_come && self.more < MAX_TRIES_MORE).then(|| planned.clone());
    }

    /// Whether one came.
    pub fn has_come(&self) -> bool {
        self.has_come
    }

    /// Whether one is to be tried again.
    pub fn is_owed(&self) -> bool {
        self.owed.is_some()
    }

    /// The one that is to be tried again, now.
    pub fn take(&mut self) -> Option<Planned> {
        let owed = self.owed.take();
        self.more += usize::from(owed.is_some());
        owed
    }
}

/// Who can be asked which intents wait for their signatures.
#[derive(Clone, Debug)]
pub struct Pending {
    nodes: Nodes,
    runtime: Handle,
}

impl Pending {
    /// Asks these nodes, on this runtime.
    pub fn of(nodes: Nodes, runtime: Handle) -> Self {
        Self { nodes, runtime }
    }

    /// Waits until the same intents are unsigned in two looks, one after the other; none if they are not `until` then.
    ///
    /// # Errors
    /// A signer's log cannot be read.
    pub fn held(&self, cluster: &Cluster, until: Instant) -> Result<Attempts> {
        let mut before = Attempts::new();
        while Instant::now() < until {
            let now = self.unsigned(cluster)?;
            let held: Attempts = &now & &before;
            if !held.is_empty() {
                return Ok(held);
            }
            before = now;
            thread::sleep(LOOK_PACE);
        }
        Ok(Attempts::new())
    }

    /// Attempts that wait for their signature, and that no node has signed. None where nobody can be asked.
    fn unsigned(&self, cluster: &Cluster) -> Result<Attempts> {
        let signing = self.runtime.block_on(self.nodes.signing(LIST_PATIENCE)).unwrap_or_default();
        let mut unsigned: Attempts = signing
            .iter()
            .flat_map(|payment| payment.attempts.iter().map(move |attempt| (payment, attempt)))
            .filter(|(_, attempt)| attempt.state == "SIGNING")
            .map(|(payment, attempt)| (payment.payment_id.clone(), attempt.number))
            .collect();
        for node in cluster.nodes() {
            unsigned = &unsigned - &signed_by(node)?;
        }
        Ok(unsigned)
    }
}

/// What a node's signer has signed.
///
/// # Errors
/// Its log cannot be read.
pub fn signed_by(node: &Node) -> Result<Attempts> {
    let lines = signer_log::read(&node.signer_log())?;
    Ok(lines.into_iter().map(|line| (line.payment_id, line.attempt)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::schedule::{Kind, Target};

    fn attempts(names: &[&str]) -> Attempts {
        names.iter().map(|name| ((*name).to_owned(), 1)).collect()
    }

    #[test]
    fn a_signature_is_late_when_another_node_was_first_and_the_held_one_signs_after_it() {
        let (none, both) = (attempts(&[]), attempts(&["a", "b"]));
        let held = || Late::Held(both.clone());
        assert_eq!(held().advance(&none, &none, false), held());
        assert_eq!(held().advance(&attempts(&["c"]), &none, false), held(), "another one's");
        assert_eq!(held().advance(&none, &none, true), Late::Nothing, "no other node signed in time");
        let woken = || held().advance(&attempts(&["a", "c"]), &none, true);
        assert!(matches!(woken(), Late::Woken(late, _) if late == attempts(&["a"])));
        assert!(woken().advance(&both, &none, false).is_under_way());
        assert!(woken().advance(&both, &attempts(&["b"]), false).is_under_way(), "of b it is the first");
        assert_eq!(woken().advance(&both, &both, false), Late::Came);
        assert_eq!(woken().advance(&both, &both, true), Late::Came);
        assert_eq!(woken().advance(&both, &none, true), Late::Nothing, "the held one did not sign");
        for ended in [Late::Nothing, Late::Came] {
            assert!(!ended.is_under_way());
        }
        assert_eq!(Late::Nothing.advance(&both, &both, false), Late::Nothing, "nothing was held");
    }

    #[test]
    fn what_did_not_come_is_tried_again_a_few_times_and_until_it_came() {
        let zero = Duration::ZERO;
        let planned = Planned { kind: Kind::LateSignature, target: Target::Leader, at: zero, lasts: zero, detail: 0 };
        let mut tries = Tries::default();
        assert!(!tries.is_owed() && tries.take().is_none());
        for _ in 0..MAX_TRIES_MORE {
            tries.end(&planned, false);
            assert!(tries.is_owed() && !tries.has_come());
            assert_eq!(tries.take().as_ref(), Some(&planned));
            assert!(!tries.is_owed());
        }
        tries.end(&planned, false);
        assert!(!tries.is_owed(), "not for ever");
        let mut tries = Tries::default();
        tries.end(&planned, true);
        tries.end(&planned, false);
        assert!(tries.has_come() && !tries.is_owed(), "it has been shown");
    }
}
