//! What this build can do, and when the cluster may do it: [`onespend_core::feature`].

use onespend_core::command::Command;
use onespend_core::outcome::Outcome;
use onespend_core::state::State;
use tracing::{info, warn};

use crate::peers::Report;
use crate::raft::LeaderTerm;
use crate::replica::Replica;

/// The highest level that this build knows.
pub fn known() -> u32 {
    #[cfg(feature = "failpoints")]
    if let Some(level) = onespend_adapters::failpoints::feature_level() {
        return level;
    }
    onespend_core::feature::FEATURE_LEVEL
}

/// Refuses what a later version made: a state or an entry of a level that this build does not know (safety 32).
///
/// # Errors
/// What to do about it.
pub fn check(level: u32) -> Result<(), String> {
    let known = known();
    if level <= known {
        return Ok(());
    }
    Err(format!(
        "the cluster is at feature level {level}, and version {} knows levels up to {known}: start a later version",
        env!("CARGO_PKG_VERSION")
    ))
}

/// As leader: raises the cluster's level once every other member has said that it can do more.
pub async fn consider(replica: &Replica, reports: &[Report]) {
    let Some(term) = replica.leader_term() else { return };
    let others = replica.status().others();
    let theirs = others.iter().map(|member| {
        let report = reports.iter().find(|report| report.node_id == member.node_id);
        report.map(|report| report.feature_level)
    });
    let Some(level) = common(known(), theirs).filter(|level| *level > replica.read(State::feature_level)) else {
        return;
    };
    match raise(replica, &term, level).await {
        Ok(()) => info!(level, "every member can do more: the feature level is raised"),
        Err(why) => warn!(level, why, "the feature level is not raised"),
    }
}

/// Proposes a level. `Err` says why it is not raised by that, or is not known to be.
async fn raise(replica: &Replica, term: &LeaderTerm, level: u32) -> Result<(), String> {
    let proposed = replica.propose_as(term, Command::RaiseFeatureLevel { level }).await;
    match proposed.map_err(|error| error.to_string())?.outcome {
        Outcome::Rejected(rejection) => Err(rejection.to_string()),
        _ => Ok(()),
    }
}

/// What all can do; nothing is known as long as one has not said.
fn common(own: u32, mut theirs: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    theirs.try_fold(own, |least, one| Some(least.min(one?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::specimen;

    /// Another leader may have raised it since this one looked.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_level_that_the_log_refuses_is_not_called_raised() {
        let folder = tempfile::TempDir::new().unwrap();
        let replica = specimen::leader(&folder).await;
        let (term, level) = (replica.leader_term().unwrap(), replica.read(State::feature_level));
        let refused = raise(&replica, &term, level).await.unwrap_err();
        assert!(refused.contains("already"), "{refused}");
        assert_eq!(replica.read(State::feature_level), level);
    }

    #[test]
    fn the_level_is_what_every_member_can_do_and_silence_keeps_it() {
        assert_eq!(common(3, [Some(2), Some(4)].into_iter()), Some(2));
        assert_eq!(common(1, [Some(2)].into_iter()), Some(1));
        assert_eq!(common(2, [Some(2), None].into_iter()), None);
        assert_eq!(common(2, std::iter::empty()), Some(2));
    }

    #[test]
    fn a_later_level_is_refused_with_what_to_do() {
        assert_eq!(check(known()), Ok(()));
        let refused = check(known() + 1).unwrap_err();
        assert!(refused.contains("start a later version"), "{refused}");
    }
}
