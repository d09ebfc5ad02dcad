//! Why a node stands for no election. It votes all the same, and stores the log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// One reason. It takes all of them away to stand again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Abstention {
    /// Its state differs from what most others have (safety 31).
    Differs,
    /// An operator has drained it.
    Drained,
    /// It is about to stop.
    Stopping,
}

/// The reasons that hold. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Abstentions(Arc<Mutex<BTreeSet<Abstention>>>);

impl Abstentions {
    /// Sets a reason or takes it away, and tells `elect` whether the node stands now. Nobody else changes it meanwhile.
    pub(crate) fn set(&self, why: Abstention, holds: bool, elect: impl FnOnce(bool)) {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if holds {
            reasons.insert(why);
        } else {
            reasons.remove(&why);
        }
        elect(reasons.is_empty());
    }

    /// Whether any holds.
    pub(crate) fn any(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// safety 31: undraining a node that differs from the others, or that stops, does not let it lead.
    #[test]
    fn a_node_stands_again_once_no_reason_is_left() {
        let abstentions = Abstentions::default();
        let set = |why, holds| {
            let mut stands = None;
            abstentions.set(why, holds, |elect| stands = Some(elect));
            assert_eq!(stands, Some(!abstentions.any()));
            abstentions.any()
        };
        assert!(set(Abstention::Drained, true) && set(Abstention::Differs, true));
        assert!(set(Abstention::Drained, false), "the other reason is left");
        assert!(set(Abstention::Drained, false), "it was not there");
        assert!(!set(Abstention::Differs, false));
        assert!(set(Abstention::Stopping, true) && set(Abstention::Drained, true));
        assert!(set(Abstention::Drained, false), "it stops");
    }
}
