//! What is acknowledged is on every node, the same, and stays.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use onespend::raft::{Draft, MAX_PROPOSAL_BYTES, ProposeError, RaftConfig};
use onespend_core::command::Command;
use onespend_core::outcome::{Outcome, Rejection};

use crate::cluster::{Cluster, on_leader, until, within};
use crate::wallet::{coin, reserve, setup, wallet};

const SOON: Duration = Duration::from_secs(10);

pub async fn propose_all(cluster: &Cluster, drafts: Vec<Draft>) {
    let ids = cluster.ids();
    for draft in drafts {
        let accepted = on_leader(cluster, &ids, |node| {
            let draft = draft.clone();
            async move { node.proposer().propose(draft, within(SOON)).await.ok() }
        });
        let applied = accepted.await;
        assert!(!matches!(applied.outcome, Outcome::Rejected(_)), "{:?}", applied.outcome);
    }
}

/// Reserves the coins of a range, `callers` at a time, and gives back how long that took.
pub async fn reserve_coins(cluster: &Cluster, coins: std::ops::Range<u32>, callers: usize) -> Duration {
    let leader = cluster.node(cluster.leader().await).clone();
    let started = Instant::now();
    stream::iter(coins)
        .for_each_concurrent(callers, |n| {
            let leader = leader.clone();
            async move {
                let applied = leader.proposer().propose(reserve(n), within(SOON)).await.unwrap();
                assert!(matches!(applied.outcome, Outcome::Reserved { .. }), "{:?}", applied.outcome);
            }
        })
        .await;
    started.elapsed()
}

/// safety 15: the hashes of all nodes, at the end and on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reservations_leave_all_nodes_with_the_same_state() {
    let mut cluster = Cluster::start(3, RaftConfig::default()).await;
    propose_all(&cluster, setup(1_000)).await;
    let took = reserve_coins(&cluster, 0..1_000, 256).await;
    println!("1000 reservations by 256 callers: {took:?}");
    let hash = cluster.agree().await;
    for id in cluster.ids() {
        let reserved = cluster.node(id).view().read(onespend_core::state::State::total_reservations);
        assert_eq!(reserved, 1_000);
    }

    // The hashes that were noted on the way agree as well.
    let noted: Vec<_> = cluster.ids().into_iter().map(|id| cluster.node(id).view().hashes()).collect();
    assert!(noted[0].len() >= 7 && noted.iter().all(|hashes| *hashes == noted[0]), "{noted:?}");

    // A read that is confirmed by a quorum sees all of it.
    let leader = cluster.node(cluster.leader().await).clone();
    let asked = Instant::now();
    let reads = (0..200).map(|_| leader.linearizable(within(SOON)));
    assert!(futures::future::join_all(reads).await.into_iter().all(|read| read.is_ok()));
    println!("200 linearizable reads at once: {:?}", asked.elapsed());

    // The same request gets the same answer; a coin that is taken is refused, as a value.
    let again = leader.proposer().propose(reserve(5), within(SOON)).await.unwrap();
    assert!(matches!(again.outcome, Outcome::Reserved { ref outpoints, .. } if *outpoints == [coin(5)]));
    let mut other = reserve(5);
    other.request.as_mut().unwrap().key.request = onespend_core::ids::RequestId::parse("other").unwrap();
    let refused = leader.proposer().propose(other, within(SOON)).await.unwrap();
    assert!(matches!(refused.outcome, Outcome::Rejected(Rejection::OutpointReserved { .. })));

    drop(leader);

    // After a restart of all nodes, from their disks, the state is what it was.
    let before = cluster.agree().await;
    assert_ne!(before, hash);
    let read = |cluster: &Cluster, id| cluster.node(id).view().read(|state| (state.total_reservations(), state.now()));
    let known = read(&cluster, 1);
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.run(id).await;
    }
    cluster.leader().await;
    cluster.agree().await;
    assert_eq!(read(&cluster, 1).0, known.0);
    let again =
        on_leader(
            &cluster,
            &[1, 2, 3],
            |node| async move { node.proposer().propose(reserve(7), within(SOON)).await.ok() },
        )
        .await;
    assert!(matches!(again.outcome, Outcome::Reserved { ref outpoints, .. } if *outpoints == [coin(7)]));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_loaded_from_disk_is_the_one_that_was_stored() {
    let mut cluster = Cluster::start(1, RaftConfig::default()).await;
    propose_all(&cluster, setup(300)).await;
    reserve_coins(&cluster, 0..300, 16).await;
    let look = |cluster: &Cluster| cluster.node(1).view().read(|state| (state.applied(), state.hash()));
    let before = look(&cluster);
    cluster.stop(1).await;
    cluster.run(1).await;
    // At the first look nothing new was committed: the single voter still has to elect itself.
    assert_eq!(look(&cluster), before);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_too_large_is_refused_before_it_reaches_the_log() {
    let cluster = Cluster::start(1, RaftConfig::default()).await;
    let node = cluster.node(1);
    let last = node.status().last_log;
    let why = "x".repeat(MAX_PROPOSAL_BYTES);
    let draft = Draft::duty(Command::FreezeWallet { wallet: wallet(), why });
    let refused = node.proposer().propose(draft, within(SOON)).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { size_bytes }) if size_bytes > MAX_PROPOSAL_BYTES));
    assert_eq!(node.status().last_log, last);
    cluster.end().await;
}

/// Small enough that a short test purges its log.
fn impatient() -> RaftConfig {
    RaftConfig { snapshot_every_entries: 200, keep_log_entries: 0, ..RaftConfig::default() }
}

/// safety 25: from a snapshot alone a node comes to the state of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_the_log_no_longer_reaches_catch_up_by_a_snapshot() {
    let mut cluster = Cluster::start(3, impatient()).await;
    propose_all(&cluster, setup(3_000)).await;
    let leader = cluster.leader().await;
    let absent = if leader == 1 { 2 } else { 1 };
    let had = cluster.node(absent).status().last_log.unwrap();
    cluster.stop(absent).await;
    reserve_coins(&cluster, 0..3_000, 256).await;
    until("the log is purged beyond what the absent node has", async || {
        let leader = cluster.leader().await;
        cluster.node(leader).status().purged.filter(|purged| *purged > had)
    })
    .await;

    cluster.run(absent).await;
    let mut news = cluster.node(absent).view().news();
    cluster.agree().await;
    let newer = async || cluster.node(absent).status().snapshot.filter(|snapshot| *snapshot > had);
    until("the absent node has a snapshot", newer).await;
    let mut replaced = false;
    while let Ok(told) = news.try_recv() {
        replaced |= told.replaced;
    }
    assert!(replaced, "nobody was told that the state was replaced");

    // A new disk comes under a new id, and learns everything from the snapshot.
    cluster.make_room(4).await;
    cluster.run(4).await;
    let leader = cluster.leader().await;
    let at = cluster.seen_from(leader, 4);
    cluster.node(leader).add_learner(4, at, within(SOON)).await.unwrap();
    cluster.agree().await;
    let newer = async || cluster.node(4).status().snapshot.filter(|snapshot| *snapshot > had);
    until("the new node has a snapshot", newer).await;
    assert_eq!(cluster.node(4).status().role, onespend::raft::Role::Learner);

    // And it starts again from what it installed.
    let before = cluster.node(4).view().read(|state| (state.applied(), state.hash()));
    cluster.stop(4).await;
    cluster.run(4).await;
    let after = cluster.node(4).view().read(|state| (state.applied(), state.hash()));
    assert_eq!(before.0.max(after.0), after.0);
    cluster.agree().await;
    cluster.end().await;
}

/// safety 31: it would hold the leader's state, right or wrong, and decide for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_log_no_longer_reaches_gets_no_snapshot_of_a_state_in_doubt() {
    let mut cluster = Cluster::start(3, impatient()).await;
    propose_all(&cluster, setup(1_000)).await;
    let leader = cluster.leader().await;
    let absent = if leader == 1 { 2 } else { 1 };
    let had = cluster.node(absent).status().last_log.unwrap();
    cluster.stop(absent).await;
    reserve_coins(&cluster, 0..1_000, 256).await;
    let purged = until("the log is purged beyond what the absent node has", async || {
        let leader = cluster.leader().await;
        cluster.node(leader).status().purged.filter(|purged| *purged > had)
    })
    .await;

    let doubt = |cluster: &Cluster, stands| {
        for id in cluster.ids() {
            cluster.node(id).withhold_snapshots(stands);
        }
    };
    doubt(&cluster, true);
    cluster.run(absent).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let reached = cluster.node(absent).view().read(|state| state.applied().0);
    assert!(reached < purged, "{reached} of {purged}");

    doubt(&cluster, false);
    cluster.agree().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duties_hear_what_changed_and_how_far_the_state_is() {
    let cluster = Cluster::start(1, RaftConfig::default()).await;
    let node = cluster.node(1);
    let mut news = node.view().news();
    let mut position = node.view().watch_position();
    propose_all(&cluster, setup(2)).await;
    let first = news.recv().await.unwrap();
    assert!(first.chain && !first.wallets);
    let second = news.recv().await.unwrap();
    assert!(second.wallets && second.upto > first.upto);
    let reached = *position.wait_for(|at| at.index >= second.upto).await.unwrap();
    assert_eq!(reached.term, node.status().term);
    cluster.end().await;
}
