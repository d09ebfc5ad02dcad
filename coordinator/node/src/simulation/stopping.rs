//! A node that is about to stop, on nodes of which nothing runs but Raft. Every message takes as long as any other.

use super::executor::{Executor, Host};
use super::membership::{Nodes, lag, until};
use crate::raft::{Addresses, LeaderHint, RaftConfig};
use crate::replica::Replica;

/// Orders of events: in some of them it would be the first to stand, and win.
const SEEDS: u64 = 8;

/// safety 29: its vote and its disk count to the end, so the third node leads without waiting for it to be gone.
#[test]
fn a_node_that_stops_votes_for_another_one_and_does_not_lead() {
    for seed in 1..=SEEDS {
        Executor::new(seed).run(async move {
            let mut nodes = Nodes::found(RaftConfig::default(), 3).await;
            let (old, leader) = nodes.leader().await;
            let others: Vec<Host> = (1..=3).filter(|id| *id != old).collect();
            let equal = || others.iter().all(|id| lag(&leader.status(), *id) == 0);
            until("the others have the whole log", || equal().then_some(())).await;
            let own = LeaderHint { node_id: others[0], addresses: Addresses::default(), term: 0 };
            Replica::new(nodes.running[&others[0]].clone(), own).drain();
            nodes.kill(old);
            let (next, _) = nodes.leader().await;
            assert_eq!(next, others[1], "seed {seed}");
        });
    }
}
