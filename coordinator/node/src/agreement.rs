//! Compares state hashes with the other nodes, all the time (safety 31): replicas that applied the same entries must
//! have the same state. The node that most others contradict stops serving.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::alarms::Alarms;
use crate::raft::{HashAt, RaftNode};

/// How often the others are asked.
const INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for their answers.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The alarm's code.
pub const MISMATCH: &str = "STATE_HASH_MISMATCH";

/// Compares until the token is cancelled. A mismatch stays an alarm until the node is restarted: its state cannot
/// heal by itself.
pub async fn run(raft: Arc<RaftNode>, alarms: Arc<Alarms>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let theirs = raft.peer_hashes(Instant::now() + TIMEOUT).await;
        let ours = raft.hashes();
        if let Some(index) = outvoted(&ours, &theirs) {
            let message = format!("this node's state at log index {index} differs from what most others have");
            alarms.raise(MISMATCH, message);
        }
    }
}

/// The first index at which more nodes contradict our hash than agree with it, this node's own word included where
/// they are level.
fn outvoted(ours: &[HashAt], theirs: &[Vec<HashAt>]) -> Option<u64> {
    ours.iter().find_map(|own| {
        let at_index = theirs.iter().filter_map(|peer| peer.iter().find(|hash| hash.index == own.index));
        let (agree, differ): (Vec<_>, Vec<_>) = at_index.partition(|hash| hash.hash == own.hash);
        (!differ.is_empty() && differ.len() >= agree.len() + 1).then_some(own.index.0)
    })
}

#[cfg(test)]
mod tests {
    use onespend_core::ids::LogIndex;

    use super::*;

    fn at(index: u64, byte: u8) -> HashAt {
        HashAt { index: LogIndex(index), hash: [byte; 32] }
    }

    #[test]
    fn the_node_that_all_others_contradict_is_outvoted() {
        assert_eq!(outvoted(&[at(128, 1)], &[vec![at(128, 2)], vec![at(128, 2)]]), Some(128));
    }

    #[test]
    fn a_node_with_one_ally_is_not_outvoted_by_one_other() {
        assert_eq!(outvoted(&[at(128, 1)], &[vec![at(128, 1)], vec![at(128, 2)]]), None);
    }

    #[test]
    fn hashes_of_other_indexes_say_nothing() {
        assert_eq!(outvoted(&[at(128, 1)], &[vec![at(256, 2)], vec![]]), None);
    }
}
