//! Renews the snapshot that the health endpoints answer from, and what `grpc.health.v1` says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::alarms::Alarms;
use crate::bitcoind::BitcoindWatch;
use crate::health::question::Check;
use crate::health::snapshot::{Counts, LeaderInfo, LeadershipChange, Member, Role, Snapshot};
use crate::health::Health;
use crate::metrics;
use crate::raft::{self, RaftNode};

/// Changes of leadership that are remembered.
const MAX_HISTORY: usize = 100;
/// How often the counts by state are made, which looks at every open payment.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Longest turn before `/livez` calls the loop dead.
const LONGEST_TURN: Duration = Duration::from_secs(10);

/// What the snapshot is made of.
pub struct Feed {
    /// Raft and the state.
    pub raft: Arc<RaftNode>,
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
    let mut counted: Option<(Instant, Counts)> = None;
    loop {
        let counts = match counted.take() {
            Some((at, counts)) if at.elapsed() < COUNT_EVERY => (at, counts),
            _ => (Instant::now(), count(&feed.raft)),
        };
        feed.health.publish(snapshot(&feed, &mut history, counts.1.clone()));
        counted = Some(counts);
        report(&feed.health, &mut reporter).await;
        beat.beat();
        tokio::select! {
            () = stop.cancelled() => break,
            () = feed.raft.role_changed() => {}
            () = tokio::time::sleep(Health::PUBLISH_EVERY) => {}
        }
    }
    beat.finish();
}

fn snapshot(feed: &Feed, history: &mut VecDeque<LeadershipChange>, counts: Counts) -> Snapshot {
    let taken_at = Instant::now();
    let status = feed.raft.status();
    if let Some(leader) = &status.leader {
        note(history, leader.term, leader.node_id);
    }
    metrics::raft(&status);
    Snapshot {
        taken_at,
        role: role(status.role),
        term: status.term,
        leader: status.leader.map(|leader| LeaderInfo {
            id: leader.node_id,
            control: leader.control_address,
            data: leader.data_address,
        }),
        last_quorum_ack: status.quorum_age.and_then(|age| taken_at.checked_sub(age)),
        leader_contact: status.leader_contact,
        own_term_applied: status.own_term_applied,
        committed_index: status.committed_index,
        applied_index: status.applied_index,
        recovered: status.recovered,
        draining: status.draining,
        bitcoind: feed.bitcoind.health(),
        alarms: feed.alarms.current(),
        members: status.members.iter().map(member).collect(),
        history: history.iter().cloned().collect(),
        counts,
        ..feed.first.clone()
    }
}

fn note(history: &mut VecDeque<LeadershipChange>, term: u64, leader_id: u64) {
    if history.back().is_some_and(|last| last.term == term && last.leader_id == leader_id) {
        return;
    }
    if history.len() == MAX_HISTORY {
        history.pop_front();
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_unix_ms = u64::try_from(clock.as_millis()).unwrap_or(u64::MAX);
    history.push_back(LeadershipChange { term, leader_id, at_unix_ms });
    metrics::leader_changed();
}

fn role(role: raft::Role) -> Role {
    match role {
        raft::Role::Leader => Role::Leader,
        raft::Role::Follower => Role::Follower,
        raft::Role::Candidate => Role::Candidate,
        raft::Role::Learner => Role::Learner,
        raft::Role::Stopped => Role::Stopped,
    }
}

fn member(member: &raft::Member) -> Member {
    Member {
        id: member.node_id,
        voter: member.voter,
        control: member.control.clone(),
        data: member.data.clone(),
        lag_entries: member.lag_entries,
    }
}

fn count(raft: &RaftNode) -> Counts {
    let now = raft.now();
    let mut counts = Counts::default();
    raft.read(|state| {
        counts.wallets = state.wallets().count() as u64;
        let expired = state.due_reservations(now, usize::MAX).len() as u64;
        let active = (state.total_reservations() as u64).saturating_sub(expired);
        counts.reservations.insert("active", active);
        counts.reservations.insert("expired", expired);
        let open = state.open_payments();
        for key in &open {
            let Some(payment) = state.payment(key) else { continue };
            let shown = crate::grpc::payment_view::payment_state(state, payment);
            *counts.payments.entry(crate::grpc::payment_view::word(shown)).or_default() += 1;
        }
        let settled = (state.payment_count() as u64).saturating_sub(open.len() as u64);
        counts.payments.insert("settled", settled);
    });
    metrics::counts(&counts);
    counts
}

async fn report(health: &Health, reporter: &mut HealthReporter) {
    let checks = [
        ("", Check::Ready { bitcoind: false }),
        ("primary", Check::primary()),
        ("replica", Check::replica()),
        ("read-only", Check::ReadOnly),
    ];
    for (service, check) in checks {
        let serving = health.verdict(&check).is_yes();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status(service, status).await;
    }
}
