//! Renews the snapshot that the health endpoints answer from, and what `grpc.health.v1` says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::alarms::Alarms;
use crate::bitcoind::BitcoindWatch;
use crate::health::{Alarm, Beat, Check, Counts, Health, LeaderInfo, LeadershipChange, Member, Role, Snapshot};
use crate::metrics;
use crate::raft::{self, MemberStatus, RaftStatus};
use crate::replica::Replica;
use crate::{reorganised, restored};

/// Changes of leadership that are remembered.
const MAX_HISTORY: usize = 100;
/// How often the counts by state are made, which looks at every open payment.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often Raft's core is asked for a turn.
const CORE_PULSE: Duration = Duration::from_secs(1);
/// Longest turn of Raft's core: it waits for the disk only to store a vote, and a disk may be slow for long.
pub const LONGEST_CORE_TURN: Duration = Duration::from_mins(1);
/// Longest turn before `/livez` calls the loop dead.
const LONGEST_TURN: Duration = Duration::from_secs(10);

/// What the snapshot is made of.
pub struct Feed {
    /// Raft and the state.
    pub replica: Arc<Replica>,
    /// This node's bitcoind.
    pub bitcoind: Arc<BitcoindWatch>,
    /// What a human must look at.
    pub alarms: Arc<Alarms>,
    /// Where the snapshot goes.
    pub health: Arc<Health>,
    /// What never changes.
    pub first: Snapshot,
}

/// Publishes until the token is cancelled.
pub async fn run(feed: Feed, mut reporter: HealthReporter, stop: CancellationToken) {
    let beat = feed.health.progress().register("health-feed", LONGEST_TURN);
    let mut history = VecDeque::new();
    let mut leaderships = feed.replica.leaderships();
    let mut counted: Option<(Instant, Counts)> = None;
    let mut reorganised = None;
    let mut said = BTreeMap::new();
    loop {
        let counts = match counted.take() {
            Some((at, counts)) if at.elapsed() < COUNT_EVERY => (at, counts),
            _ => {
                feed.replica.read(|state| reorganised::report(state, &mut reorganised));
                (Instant::now(), count(&feed.replica))
            }
        };
        let mut next = snapshot(&feed, &mut history, counts.1.clone());
        next.alarms.extend(reorganised.clone());
        feed.health.publish(next);
        counted = Some(counts);
        report(&feed.health, &mut reporter, &mut said).await;
        beat.beat();
        tokio::select! {
            () = stop.cancelled() => break,
            changed = leaderships.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(Health::PUBLISH_EVERY) => {}
        }
    }
    beat.finish();
}

/// Beats for as long as Raft's core turns, until the token is cancelled.
pub async fn watch_core(replica: Arc<Replica>, beat: Beat, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            // A core that has ended for good ends the process; see `RaftNode::wait_fatal`.
            turns = replica.raft().turns() => if !turns { break },
        }
        beat.beat();
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(CORE_PULSE) => {}
        }
    }
    beat.finish();
}

fn snapshot(feed: &Feed, history: &mut VecDeque<LeadershipChange>, counts: Counts) -> Snapshot {
    let taken_at = Instant::now();
    let status = feed.replica.status();
    let leader = feed.replica.leader_hint();
    if let Some(leader) = &leader {
        note(history, leader.term, leader.node_id);
    }
    let (last, committed, applied) =
        (status.last_log.unwrap_or(0), status.committed.unwrap_or(0), status.applied.unwrap_or(0));
    metrics::log_position(last, committed, applied);
    metrics::leadership(status.term, status.role == raft::Role::Leader);
    Snapshot {
        taken_at,
        role: role(status.role),
        term: status.term,
        leader: leader.map(|leader| LeaderInfo {
            id: leader.node_id,
            control: leader.addresses.control,
            data: leader.addresses.data,
        }),
        last_quorum_ack: quorum_ack(&status, taken_at),
        leader_contact: feed.replica.raft().leader_heard_at(),
        own_term_applied: feed.replica.leader_term().is_some(),
        committed_index: committed,
        applied_index: applied,
        recovered: true,
        draining: feed.replica.is_draining(),
        bitcoind: feed.bitcoind.health(),
        alarms: standing(feed),
        members: status.members.iter().map(|one| member(one, last)).collect(),
        history: history.iter().cloned().collect(),
        counts,
        ..feed.first.clone()
    }
}

/// This node's alarms, and recovery mode, which is the cluster's: reservations go on in it, so it is none of
/// [`Alarms`], which stop them.
fn standing(feed: &Feed) -> Vec<Alarm> {
    let mut alarms = feed.alarms.current();
    let recovery = feed.replica.read(restored::alarm);
    metrics::recovery(recovery.is_some());
    alarms.extend(recovery);
    alarms
}

fn note(history: &mut VecDeque<LeadershipChange>, term: u64, leader_id: u64) {
    if history.back().is_some_and(|last| last.term == term && last.leader_id == leader_id) {
        return;
    }
    if history.len() == MAX_HISTORY {
        history.pop_front();
    }
    let clock = crate::clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_unix_ms = u64::try_from(clock.as_millis()).unwrap_or(u64::MAX);
    history.push_back(LeadershipChange { term, leader_id, at_unix_ms });
}

fn role(role: raft::Role) -> Role {
    match role {
        raft::Role::Leader => Role::Leader,
        raft::Role::Replica => Role::Follower,
        raft::Role::Candidate => Role::Candidate,
        raft::Role::Learner => Role::Learner,
        raft::Role::Stopped => Role::Stopped,
    }
}

fn member(member: &MemberStatus, last: u64) -> Member {
    Member {
        id: member.node_id,
        voter: member.voter,
        control: member.addresses.control.clone(),
        data: member.addresses.data.clone(),
        lag_entries: member.matched.map(|at| last.saturating_sub(at)),
    }
}

/// When a quorum last acknowledged this leader. A single voter is its own quorum, which openraft does not report.
fn quorum_ack(status: &RaftStatus, now: Instant) -> Option<Instant> {
    match status.voters().count() {
        1 => Some(now),
        _ => status.quorum_acked,
    }
}

fn count(replica: &Replica) -> Counts {
    let now = replica.now();
    let mut counts = Counts::default();
    replica.read(|state| {
        counts.wallets = state.wallets().count() as u64;
        let expired = state.due_reservations(now, usize::MAX).len() as u64;
        let active = (state.total_reservations() as u64).saturating_sub(expired);
        counts.reservations.insert("active", active);
        counts.reservations.insert("expired", expired);
        // Every state has its count, so that one that has emptied goes back to 0.
        for shown in ["signing", "signed", "broadcast", "confirming", "conflicted", "dead"] {
            counts.payments.insert(shown, 0);
        }
        let open = state.open_payments();
        for key in &open {
            let Some(payment) = state.payment(key) else { continue };
            let shown = crate::grpc::payment_view::payment_state(state, payment);
            *counts.payments.entry(crate::grpc::payment_view::word(shown)).or_default() += 1;
        }
        let cancelled = state.cancelled_count();
        counts.payments.insert("cancelled", cancelled);
        let settled = (state.payment_count() as u64).saturating_sub(open.len() as u64 + cancelled);
        counts.payments.insert("settled", settled);
    });
    metrics::holdings(&counts);
    counts
}

/// Says over gRPC what the endpoints say over HTTP, when it changes: every watcher is told each time.
async fn report(health: &Health, reporter: &mut HealthReporter, said: &mut BTreeMap<&'static str, bool>) {
    let checks = [
        ("", Check::Ready { bitcoind: false }),
        ("primary", Check::primary()),
        ("replica", Check::replica()),
        ("read-only", Check::ReadOnly),
    ];
    for (service, check) in checks {
        let serving = health.verdict(&check).is_yes();
        if said.insert(service, serving) == Some(serving) {
            continue;
        }
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status(service, status).await;
    }
}
