//! Renews the snapshot that the health endpoints and `grpc.health.v1` answer from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::alarms::Alarms;
use crate::bitcoind::BitcoindWatch;
use crate::checks::Checks;
use crate::checks::config::Purpose;
use crate::health::{Alarm, Beat, CheckView, Counts, Health, LeaderInfo, Member, Role, Snapshot};
use crate::metrics;
use crate::raft::{self, MemberStatus};
use crate::replica::Replica;
use crate::watchdog::Heartbeat;
use crate::{reorganised, restored, runtime};

/// How often the counts by state are made, which looks at every open payment.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// States that a payment should leave at once, so that it is of interest how long the oldest has been there.
const AGED: [&str; 2] = ["signing", "signed"];
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
    /// The configurable checks.
    pub checks: Arc<Checks>,
    /// Told whether this node leads.
    pub heartbeat: Arc<Heartbeat>,
    /// Where the snapshot goes.
    pub health: Arc<Health>,
    /// What never changes.
    pub first: Snapshot,
}

/// Publishes until the token is cancelled.
pub async fn run(feed: Feed, stop: CancellationToken) {
    let beat = feed.health.progress().register("health-feed", LONGEST_TURN);
    let mut leaderships = feed.replica.leaderships();
    let mut counted: Option<(Instant, Counts)> = None;
    let mut reorganised = None;
    loop {
        let now = runtime::now().into_std();
        let counts = match counted.take() {
            Some((at, counts)) if now.saturating_duration_since(at) < COUNT_EVERY => (at, counts),
            _ => {
                feed.replica.read(|state| reorganised::report(state, &mut reorganised));
                (now, count(&feed.replica))
            }
        };
        let mut next = snapshot(&feed, now, counts.1.clone());
        next.alarms.extend(reorganised.clone());
        metrics::alarms(&next.alarms);
        feed.health.publish(next);
        counted = Some(counts);
        beat.beat();
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = leaderships.changed() => if changed.is_err() { break },
            () = runtime::sleep(Health::PUBLISH_EVERY) => {}
        }
    }
    beat.finish();
}

/// Beats for as long as Raft's core turns, until the token is cancelled; for `/livez`, and for the watchdog.
pub async fn watch_core(replica: Arc<Replica>, beat: Beat, heartbeat: Arc<Heartbeat>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            // A core that has ended for good ends the process; see `RaftNode::wait_fatal`.
            turns = replica.raft().turns() => if !turns { break },
        }
        beat.beat();
        heartbeat.beat();
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(CORE_PULSE) => {}
        }
    }
    heartbeat.finish();
    beat.finish();
}

fn snapshot(feed: &Feed, taken_at: Instant, counts: Counts) -> Snapshot {
    let status = feed.replica.status();
    let leader = feed.replica.leader_hint();
    let leader_contact = feed.health.snapshot().leader_contact_next(feed.replica.raft().leader_heard_at());
    if let Some(leader) = &leader {
        feed.replica.history().note(leader.term, leader.node_id);
    }
    let (last, committed, applied) =
        (status.last_log.unwrap_or(0), status.committed.unwrap_or(0), status.applied.unwrap_or(0));
    metrics::log_position(last, committed, applied);
    let leads = status.role == raft::Role::Leader;
    metrics::leadership(status.term, leads);
    feed.heartbeat.leads(leads);
    feed.bitcoind.lead(leads);
    let checks = feed.checks.views(taken_at);
    for check in &checks {
        metrics::check_failing(&check.name, check.purpose.word(), !check.passes);
    }
    let [fit_for_primary, fit_for_traffic] =
        [Purpose::Primary, Purpose::Readiness].map(|purpose| judged(&feed.checks, purpose, &checks));
    Snapshot {
        taken_at,
        role: role(status.role),
        term: status.term,
        leader: leader.map(|leader| LeaderInfo {
            id: leader.node_id,
            control: leader.addresses.control,
            data: leader.addresses.data,
        }),
        last_quorum_ack: status.quorum_acked,
        leader_contact,
        caught_up: feed.replica.raft().caught_up_at(),
        own_term_applied: feed.replica.leader_term().is_some(),
        committed_index: committed,
        applied_index: applied,
        recovered: true,
        draining: feed.replica.is_draining(),
        bitcoind: feed.bitcoind.health(),
        alarms: standing(feed),
        checks,
        fit_for_primary,
        fit_for_traffic,
        members: status.members.iter().map(|one| member(one, last)).collect(),
        history: feed.replica.history().changes(),
        counts,
        ..feed.first.clone()
    }
}

/// Whether the checks for a purpose pass; the metrics are told.
fn judged(checks: &Checks, purpose: Purpose, views: &[CheckView]) -> bool {
    let pass = checks.pass(purpose, views);
    metrics::checks_passing(purpose.word(), pass);
    pass
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
        counts.oldest = AGED.map(|shown| (shown, Duration::ZERO)).into();
        let open = state.open_payments();
        for key in &open {
            let Some(payment) = state.payment(key) else { continue };
            let shown = crate::grpc::payment_view::payment_state(state, payment);
            let shown = crate::grpc::payment_view::word(shown);
            *counts.payments.entry(shown).or_default() += 1;
            if let Some(oldest) = counts.oldest.get_mut(shown) {
                *oldest = (*oldest).max(Duration::from_millis(now.0.saturating_sub(payment.created.0)));
            }
        }
        let cancelled = state.cancelled_count();
        *counts.payments.entry("cancelled").or_default() += cancelled;
        let settled = (state.payment_count() as u64).saturating_sub(open.len() as u64 + cancelled);
        *counts.payments.entry("settled").or_default() += settled;
    });
    metrics::holdings(&counts);
    metrics::oldest_payments(&counts.oldest);
    counts
}
