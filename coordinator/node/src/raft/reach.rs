//! Which nodes answer a leader's heartbeats, told in the log once when it changes: openraft tells of every single one.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

use super::types::NodeId;

/// So many heartbeats in a row: one alone may be late, or be given up because this node leads no longer.
const MISSED: u32 = 3;

/// How many heartbeats in a row each node has missed. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Reach(Arc<Mutex<BTreeMap<NodeId, u32>>>);

/// A heartbeat that is under way: given up if it is dropped before it was answered.
pub(crate) struct Pending {
    reach: Reach,
    node: NodeId,
    answered: bool,
}

impl Reach {
    /// A heartbeat is sent.
    pub(crate) fn ask(&self, node: NodeId) -> Pending {
        Pending { reach: self.clone(), node, answered: false }
    }

    fn answered(&self, node: NodeId) {
        if self.lock().insert(node, 0).is_some_and(|missed| missed >= MISSED) {
            info!(node, "the node answers again");
        }
    }

    fn missed(&self, node: NodeId, why: impl Display) {
        let mut all = self.lock();
        let missed = all.entry(node).or_default();
        *missed = missed.saturating_add(1);
        if *missed == MISSED {
            warn!(node, %why, "the node does not answer; it is asked again and again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn count(&self, node: NodeId) -> u32 {
        self.lock().get(&node).copied().unwrap_or(0)
    }
}

impl Pending {
    /// What came of it.
    pub(crate) fn end<T, E: Display>(mut self, answer: &Result<T, E>) {
        self.answered = true;
        match answer {
            Ok(_) => self.reach.answered(self.node),
            Err(why) => self.reach.missed(self.node, why),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.answered {
            self.reach.missed(self.node, "no answer in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_heartbeats_that_were_given_up_count_until_there_is_an_answer() {
        let reach = Reach::default();
        reach.ask(2).end::<(), _>(&Err("refused"));
        drop(reach.ask(2));
        reach.ask(3).end::<_, String>(&Ok(()));
        assert_eq!((reach.count(2), reach.count(3)), (2, 0));
        reach.ask(2).end::<_, String>(&Ok(()));
        assert_eq!(reach.count(2), 0);
    }
}
