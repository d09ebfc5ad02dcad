//! Leaders come and go; what was acknowledged stays, and nobody hears more than is known.

use std::time::{Duration, Instant};

use onespend::raft::{Abstention, LeaderTerm, ProposeError, RaftConfig, RaftFatal, ReadError, Role, TransferError};
use onespend_core::outcome::Outcome;

use crate::cluster::{Cluster, is_leader, on_leader, until, within};
use crate::replication::{propose_all, reserve_coins};
use crate::wallet::{reserve, setup};

const SOON: Duration = Duration::from_secs(10);

fn term_of(cluster: &Cluster, id: u64) -> LeaderTerm {
    cluster.node(id).leadership().borrow().leader_term().cloned().unwrap()
}

/// safety 29: it is there without the node that acknowledged it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_stops_another_one_goes_on_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::start(3, RaftConfig::default()).await;
    propose_all(&cluster, setup(200)).await;
    reserve_coins(&cluster, 0..100, 32).await;
    let old = cluster.leader().await;
    let old_term = cluster.node(old).status().term;
    cluster.stop(old).await;
    let stopped = Instant::now();
    let applied = on_leader(&cluster, &cluster.ids(), |node| async move {
        node.proposer().propose(reserve(100), within(SOON)).await.ok()
    })
    .await;
    println!("leader stopped, first write of the next one after {:?}", stopped.elapsed());
    assert!(matches!(applied.outcome, Outcome::Reserved { .. }) && applied.term > old_term);
    cluster.run(old).await;
    cluster.agree().await;
    let reserved = cluster.node(old).view().read(onespend_core::state::State::total_reservations);
    assert_eq!(reserved, 101);
    cluster.end().await;
}

/// safety 26, 27, 29: without a quorum it acknowledges no write, says "unknown", and answers no linearizable read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_answers_unknown_in_time_and_its_duties_commit_nothing_later() {
    let cluster = Cluster::start(3, RaftConfig::default()).await;
    propose_all(&cluster, setup(20)).await;
    cluster.agree().await;
    let old = cluster.leader().await;
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != old).collect();
    let duty = term_of(&cluster, old);
    let before = duty.now();

    cluster.isolate(old, true);
    let deadline = Duration::from_millis(400);
    let asked = Instant::now();
    let lost = cluster.node(old).proposer().propose(reserve(1), within(deadline)).await;
    assert_eq!(lost.unwrap_err(), ProposeError::Unknown);
    assert!(asked.elapsed() < deadline * 3, "the answer took {:?}", asked.elapsed());

    // It still believes that it leads, but nothing that needs a quorum is answered, and the age of its quorum shows it.
    let read = cluster.node(old).linearizable(within(deadline)).await;
    assert!(matches!(read, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })), "{read:?}");
    let age = cluster.node(old).status().quorum_acked.unwrap().elapsed();
    assert!(age > RaftConfig::default().election_timeout_max, "{age:?}");
    let refused = cluster.node(old).proposer().propose(reserve(2), within(deadline)).await;
    assert_eq!(refused.unwrap_err(), ProposeError::NotLeader { hint: None });

    // The others go on.
    let new = cluster.leader_among(&others).await;
    let applied =
        on_leader(
            &cluster,
            &others,
            |node| async move { node.proposer().propose(reserve(3), within(SOON)).await.ok() },
        )
        .await;
    assert!(matches!(applied.outcome, Outcome::Reserved { .. }));
    on_leader(&cluster, &others, |node| async move { node.linearizable(within(SOON)).await.ok() }).await;
    assert!(term_of(&cluster, new).now() >= before);

    cluster.isolate(old, false);
    cluster.agree().await;
    let late = duty.propose(reserve(4), within(SOON)).await;
    assert!(matches!(late, Err(ProposeError::NotLeader { .. })), "{late:?}");
    until("the old leader knows the new one", async || {
        let node = cluster.node(old);
        let known = node.leadership().borrow().hint().map(|hint| hint.node_id);
        known.filter(|id| *id == cluster.node(*id).status().node_id && is_leader(cluster.node(*id)))
    })
    .await;

    // Asked again, the request whose outcome was unknown is decided once and for all.
    let settled = on_leader(&cluster, &cluster.ids(), |node| async move {
        node.proposer().propose(reserve(1), within(SOON)).await.ok()
    })
    .await;
    assert!(matches!(settled.outcome, Outcome::Reserved { .. }));
    cluster.agree().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_the_voter_that_is_named_or_has_caught_up_best() {
    let cluster = Cluster::start(3, RaftConfig::default()).await;
    propose_all(&cluster, setup(10)).await;
    let first = cluster.leader().await;
    let named = cluster.ids().into_iter().find(|id| *id != first).unwrap();
    let asked = Instant::now();
    let led_by = cluster.node(first).transfer_leadership(Some(named), within(SOON)).await.unwrap();
    println!("leadership handed over in {:?}", asked.elapsed());
    assert_eq!(led_by, named);
    until("the named node is ready", async || cluster.node(named).leadership().borrow().leader_term().cloned()).await;

    let refused = cluster.node(first).transfer_leadership(None, within(SOON)).await;
    assert_eq!(refused.unwrap_err(), TransferError::NotLeader);
    let unknown = cluster.node(named).transfer_leadership(Some(9), within(SOON)).await;
    assert_eq!(unknown.unwrap_err(), TransferError::NoSuchVoter);
    assert_eq!(cluster.node(named).transfer_leadership(Some(named), within(SOON)).await, Ok(named));

    let picked = cluster.node(named).transfer_leadership(None, within(SOON)).await.unwrap();
    assert_ne!(picked, named);
    let applied = on_leader(&cluster, &cluster.ids(), |node| async move {
        node.proposer().propose(reserve(1), within(SOON)).await.ok()
    })
    .await;
    assert!(matches!(applied.outcome, Outcome::Reserved { .. }));
    cluster.agree().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_is_not_handed_to_a_voter_that_is_silent() {
    let cluster = Cluster::start(3, RaftConfig::default()).await;
    propose_all(&cluster, setup(10)).await;
    cluster.agree().await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let (silent, heard) = (others[0], others[1]);
    cluster.isolate(silent, true);
    let asked = Instant::now();
    let refused = cluster.node(leader).transfer_leadership(Some(silent), within(SOON)).await;
    assert_eq!(refused.unwrap_err(), TransferError::Silent);
    assert!(asked.elapsed() < SOON / 2, "refused after {:?}", asked.elapsed());
    let applied = cluster.node(leader).proposer().propose(reserve(1), within(SOON)).await.unwrap();
    assert!(matches!(applied.outcome, Outcome::Reserved { .. }), "the refused transfer changed nothing");
    assert_eq!(cluster.node(leader).transfer_leadership(None, within(SOON)).await, Ok(heard));
    cluster.isolate(silent, false);
    cluster.agree().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_who_is_who() {
    let cluster = Cluster::start(3, RaftConfig::default()).await;
    propose_all(&cluster, setup(1)).await;
    cluster.agree().await;
    let leader = cluster.leader().await;
    let status = until("the leader has heard of all", async || {
        let status = cluster.node(leader).status();
        let level =
            status.members.iter().all(|member| member.matched == status.last_log) && status.applied == status.last_log;
        level.then_some(status)
    })
    .await;
    assert_eq!((status.role, status.leader, status.own_term_applied), (Role::Leader, Some(leader), true));
    assert_eq!(status.voters().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((status.applied, status.committed), (status.last_log, status.last_log));
    for id in cluster.ids().into_iter().filter(|id| *id != leader) {
        let follower = cluster.node(id).status();
        assert_eq!((follower.role, follower.leader, follower.term), (Role::Replica, Some(leader), status.term));
        let read = cluster.node(id).linearizable(within(SOON)).await;
        assert!(matches!(read, Err(ReadError::NotLeader { hint: Some(hint) }) if hint.node_id == leader));
    }
    cluster.end().await;
}

/// A voter without its votes and its log could help to lose what it had acknowledged: it is told so, and stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_under_its_old_id_is_refused_and_stops() {
    let mut cluster = Cluster::start(3, RaftConfig::default()).await;
    propose_all(&cluster, setup(10)).await;
    cluster.agree().await;
    let leader = cluster.leader().await;
    let wiped = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.stop(wiped).await;
    cluster.wipe(wiped);
    cluster.run(wiped).await;
    let members = cluster.ids().into_iter().map(|to| (to, cluster.seen_from(wiped, to))).collect();
    cluster.node(wiped).initialize(members).await.unwrap();
    let fatal = tokio::time::timeout(SOON, cluster.node(wiped).wait_fatal()).await.expect("it is told");
    assert!(matches!(&fatal, RaftFatal::Outcast(why) if why.contains("new id")), "{fatal}");
    // The others go on, and it counts for nothing: with one more gone there is no quorum.
    let applied = cluster.node(leader).proposer().propose(reserve(1), within(SOON)).await.unwrap();
    assert!(matches!(applied.outcome, Outcome::Reserved { .. }));
    let third = cluster.ids().into_iter().find(|id| *id != leader && *id != wiped).unwrap();
    cluster.stop(third).await;
    let lost = cluster.node(leader).proposer().propose(reserve(2), within(Duration::from_secs(2))).await;
    assert!(lost.is_err(), "{lost:?}");
    cluster.run(third).await;
    cluster.end().await;
}

/// It leads neither by an election nor because it is told to, and the others need its vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_abstains_votes_and_does_not_lead_until_it_stands_again() {
    let mut cluster = Cluster::start(3, RaftConfig::default()).await;
    propose_all(&cluster, setup(10)).await;
    cluster.agree().await;
    let first = cluster.leader().await;
    let abstaining = cluster.ids().into_iter().find(|id| *id != first).unwrap();
    cluster.node(abstaining).abstain(Abstention::Drained);
    let told = cluster.node(first).transfer_leadership(Some(abstaining), within(SOON)).await;
    assert_ne!(told, Ok(abstaining));
    let write = async |cluster: &Cluster, coin| {
        on_leader(cluster, &cluster.ids(), |node| async move {
            node.proposer().propose(reserve(coin), within(SOON)).await.ok().map(|_| node.status().node_id)
        })
        .await
    };
    let second = write(&cluster, 1).await;
    assert_ne!(second, abstaining);

    // Were the third behind, only the one that abstains could lead.
    cluster.agree().await;
    cluster.stop(second).await;
    let third = write(&cluster, 2).await;
    assert!(third != abstaining && third != second, "{third} leads, by the vote of {abstaining}");
    cluster.node(abstaining).abstain_no_more(Abstention::Drained);
    until("it takes the lead", async || {
        let leader = cluster.leader().await;
        let led_by = cluster.node(leader).transfer_leadership(Some(abstaining), within(SOON)).await;
        led_by.ok().filter(|led_by| *led_by == abstaining)
    })
    .await;
    cluster.run(second).await;
    cluster.agree().await;
    cluster.end().await;
}
