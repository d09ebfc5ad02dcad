//! GetStatus: everything about this node and what it knows of the others, from memory.

use std::collections::BTreeMap;

use onespend_core::state::State;
use onespend_proto::v1;

use super::api::Api;
use super::get_recovery::recovery;
use super::{chain_view, payment_view};
use crate::checks::config::Purpose;
use crate::health::{Alarm, Check, CheckView, Health, Reason, Verdict};
use crate::raft::{MemberStatus, RaftStatus, Role};
use crate::{reorganised, restored};

pub(super) fn get_status(api: &Api) -> v1::GetStatusResponse {
    let raft = api.replica.status();
    let hash = api.replica.noted_hash();
    let now = api.now();
    let (tip, wallets, frozen, reservations, payments, recovery) = api.replica.read(|state| {
        let expired = state.due_reservations(now, usize::MAX).len();
        let active = state.total_reservations().saturating_sub(expired);
        let frozen = state.wallets().filter(|(_, wallet)| wallet.frozen.is_some()).count();
        (chain_view::tip(state), state.wallets().count(), frozen, (active, expired), payments(state), recovery(state))
    });
    let feature_level = api.replica.read(State::feature_level);
    let reservation =
        |state: v1::ReservationState, count: usize| v1::ReservationCount { state: state.into(), count: count as u64 };
    v1::GetStatusResponse {
        cluster_id: api.settings.cluster_id.clone(),
        node_id: api.settings.node_id,
        role: role(raft.role).into(),
        term: raft.term,
        leader_id: raft.leader.unwrap_or(0),
        members: raft.members.iter().map(|one| member(one, &raft)).collect(),
        last_log_index: raft.last_log.unwrap_or(0),
        committed_index: raft.committed.unwrap_or(0),
        applied_index: raft.applied.unwrap_or(0),
        snapshot_index: raft.snapshot.unwrap_or(0),
        state_hash: hash.map(|at| v1::StateHash { index: at.index.0, hash: at.hash.to_vec().into() }),
        bitcoind: Some(api.bitcoind.view()),
        tip,
        reservations: vec![
            reservation(v1::ReservationState::Active, reservations.0),
            reservation(v1::ReservationState::Expired, reservations.1),
        ],
        payments,
        wallets: wallets as u64,
        frozen_wallets: frozen as u64,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: prost_types::Duration::try_from(api.settings.started.elapsed()).ok(),
        network: api.settings.network.to_core_arg().to_owned(),
        finality_depth: api.settings.finality_depth,
        quorum_age: raft.quorum_acked.and_then(|at| prost_types::Duration::try_from(at.elapsed()).ok()),
        draining: api.replica.is_draining(),
        alarms: standing(api).into_iter().map(|alarm| format!("{}: {}", alarm.code, alarm.message)).collect(),
        warnings: warnings(api, &raft),
        recovery: Some(recovery),
        feature_level,
        known_feature_level: crate::feature_level::known(),
        leader_age: leader_age(api, &raft),
        health: Some(health(&api.health)),
    }
}

/// What load balancers are told, by the verdicts that they get, and the checks that may be why.
fn health(health: &Health) -> v1::NodeHealth {
    let (snapshot, verdicts) = health.verdicts([Check::primary(), Check::replica(), Check::ready()]);
    let [primary, replica, ready] = verdicts.map(|verdict| Some(health_answer(verdict)));
    let failing = snapshot.checks.iter().filter(|check| !check.passes);
    v1::NodeHealth { primary, replica, ready, failing_checks: failing.map(failing_check).collect() }
}

fn health_answer(verdict: Verdict) -> v1::HealthAnswer {
    v1::HealthAnswer { ok: verdict.is_yes(), reason: verdict.reason.map(Reason::word).unwrap_or_default().to_owned() }
}

fn failing_check(check: &CheckView) -> v1::FailingCheck {
    let purpose = match check.purpose {
        Purpose::Primary => v1::CheckPurpose::Primary,
        Purpose::Readiness => v1::CheckPurpose::Readiness,
        Purpose::Report => v1::CheckPurpose::Report,
    };
    v1::FailingCheck { name: check.name.clone(), purpose: purpose.into(), value: check.value.clone() }
}

/// How long ago this node learnt of its leader.
fn leader_age(api: &Api, raft: &RaftStatus) -> Option<prost_types::Duration> {
    let age = api.replica.history().age(raft.term, raft.leader?)?;
    prost_types::Duration::try_from(age).ok()
}

/// What is doubtful about the configuration, by itself and beside what the cluster has of this node.
fn warnings(api: &Api, raft: &RaftStatus) -> Vec<String> {
    let mut warnings = api.settings.warnings.clone();
    let (own, known) = (api.replica.advertised(), raft.members.iter().find(|member| member.node_id == raft.node_id));
    if let Some(known) = known.map(|known| &known.addresses).filter(|known| *known != own) {
        warnings.push(format!(
            "peers: this node is reached at {} and {} by its configuration, and the cluster has {} and {} (correct one of \
             the two: onespend cluster move)",
            own.control, own.data, known.control, known.data
        ));
    }
    warnings
}

/// This node's alarms, and those that are the cluster's.
fn standing(api: &Api) -> Vec<Alarm> {
    let mut alarms = api.alarms.current();
    alarms.extend(api.replica.read(restored::alarm));
    alarms.extend(api.replica.read(reorganised::alarm));
    alarms
}

fn role(role: Role) -> v1::NodeRole {
    match role {
        Role::Leader => v1::NodeRole::Leader,
        Role::Replica => v1::NodeRole::Replica,
        Role::Learner => v1::NodeRole::Learner,
        Role::Candidate => v1::NodeRole::Candidate,
        Role::Stopped => v1::NodeRole::Stopped,
    }
}

/// A member, as the answering node sees it.
pub(super) fn member(member: &MemberStatus, raft: &RaftStatus) -> v1::Member {
    v1::Member {
        node_id: member.node_id,
        control_address: member.addresses.control.clone(),
        data_address: member.addresses.data.clone(),
        voter: member.voter,
        matched_index: member.matched,
        lag_entries: member.matched.map(|at| raft.last_log.unwrap_or(0).saturating_sub(at)),
        last_contact: member.last_contact.and_then(|at| prost_types::Duration::try_from(at.elapsed()).ok()),
    }
}

/// Payments by state. Settled ones are most, so they are counted as the rest of those that have ended.
fn payments(state: &State) -> Vec<v1::PaymentCount> {
    let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
    let open = state.open_payments();
    for key in &open {
        if let Some(payment) = state.payment(key) {
            *counts.entry(payment_view::payment_state(state, payment).into()).or_default() += 1;
        }
    }
    let cancelled = state.cancelled_count();
    let settled = (state.payment_count().saturating_sub(open.len()) as u64).saturating_sub(cancelled);
    *counts.entry(v1::PaymentState::Cancelled.into()).or_default() += cancelled;
    *counts.entry(v1::PaymentState::Settled.into()).or_default() += settled;
    counts.into_iter().map(|(state, count)| v1::PaymentCount { state, count }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use onespend_adapters::chain::fake::FakeChain;
    use tempfile::TempDir;

    use super::*;
    use crate::health::{BitcoindView, Role, Snapshot};
    use crate::specimen;

    fn told(health: &v1::NodeHealth) -> [&str; 3] {
        [&health.primary, &health.replica, &health.ready].map(|answer| {
            let answer = answer.as_ref().unwrap();
            assert_eq!(answer.ok, answer.reason.is_empty(), "{answer:?}");
            answer.reason.as_str()
        })
    }

    #[tokio::test]
    async fn a_leader_that_balancers_are_told_to_leave_says_so_and_names_the_check() {
        let folder = TempDir::new().unwrap();
        let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
        let told_now = || get_status(&api).health.unwrap();
        assert_eq!(told(&told_now()), ["NOT_RECOVERED"; 3]);

        let now = Instant::now();
        let check = |name: &str, purpose, passes| CheckView {
            name: name.to_owned(),
            purpose,
            passes,
            value: "700 ms".to_owned(),
            looked_at: Some(now),
        };
        let unfit = Snapshot {
            role: Role::Leader,
            recovered: true,
            last_quorum_ack: Some(now),
            own_term_applied: true,
            bitcoind: BitcoindView { judged_at: Some(now), in_sync: true, ..BitcoindView::default() },
            checks: vec![
                check("fsync-latency", Purpose::Primary, false),
                check("error-rate", Purpose::Primary, true),
                check("memory", Purpose::Report, false),
            ],
            fit_for_primary: false,
            ..Snapshot::clone(&api.health.snapshot())
        };
        api.health.publish(unfit.clone());
        assert_eq!(told(&told_now()), ["CHECK_FAILED", "IS_LEADER", ""]);
        let failing = |name: &str, purpose: v1::CheckPurpose| v1::FailingCheck {
            name: name.to_owned(),
            purpose: purpose.into(),
            value: "700 ms".to_owned(),
        };
        let both = [failing("fsync-latency", v1::CheckPurpose::Primary), failing("memory", v1::CheckPurpose::Report)];
        assert_eq!(told_now().failing_checks, both);

        api.health.publish(Snapshot { checks: vec![], fit_for_primary: true, ..unfit });
        assert_eq!(told(&told_now()), ["", "IS_LEADER", ""]);
        assert_eq!(told_now().failing_checks, []);
    }
}
