//! A node that is about to stop, on nodes of which nothing runs but Raft. Every message takes as long as any other.

use std::time::Duration;

use super::executor::{Executor, Host};
use super::membership::{Nodes, lag, soon, until, write};
use crate::handover::stand_if_nobody_can;
use crate::raft::{Addresses, LeaderHint, RaftConfig};
use crate::replica::Replica;
use crate::runtime::{now, sleep};

/// Orders of events: in some of them it would be the first to stand, and win.
const SEEDS: u64 = 8;
/// How often a node that stops looks whether anybody leads.
const LOOK: Duration = Duration::from_millis(200);

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

/// safety 29: what it alone holds with the leader that died is not lost, and does not keep the others waiting until it is
/// gone.
#[test]
fn a_node_that_stops_leads_where_nobody_else_can_win() {
    Executor::new(1).run(async {
        let mut nodes = Nodes::found(RaftConfig::default(), 3).await;
        let (old, leader) = nodes.leader().await;
        let others: Vec<Host> = (1..=3).filter(|id| *id != old).collect();
        let equal = || others.iter().all(|id| lag(&leader.status(), *id) == 0);
        until("the others have the whole log", || equal().then_some(())).await;
        nodes.cut_off(Some(others[1]));
        write(&leader, 1).await;
        until("one has all", || (lag(&leader.status(), others[0]) == 0).then_some(())).await;
        let own = LeaderHint { node_id: others[0], addresses: Addresses::default(), term: 0 };
        let stops = Replica::new(nodes.running[&others[0]].clone(), own);
        stops.drain();
        nodes.kill(old);
        nodes.cut_off(None);

        let (late, mut stood) = (soon(), None);
        while !stops.raft().leads() {
            assert!(now() < late, "nobody leads, for the other one lacks entries");
            stand_if_nobody_can(&stops, &mut stood).await;
            sleep(LOOK).await;
        }
    });
}
