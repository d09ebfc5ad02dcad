//! The JSON of answers. `led_by` is whom they may name as the leader, see `verdict.rs`.

use std::time::Instant;

use serde_json::{Value, json};

use super::progress::Pulse;
use super::snapshot::{BitcoindView, CheckView, Counts, LeaderInfo, Snapshot};

/// The body of every yes-or-no answer. `reason` is null on 200.
pub(crate) fn answer(snapshot: &Snapshot, led_by: Option<&LeaderInfo>, reason: Option<&str>) -> Value {
    json!({
        "role": snapshot.role.word(),
        "term": snapshot.term,
        "leader": led_by.map(leader),
        "applied_lag": snapshot.applied_lag(),
        "bitcoind": bitcoind(&snapshot.bitcoind),
        "failed_checks": snapshot.failed_checks(),
        "reason": reason,
    })
}

/// The body of a yes-or-no answer with `?verbose`: the answer, and all that it may rest on.
pub(crate) fn verbose(snapshot: &Snapshot, led_by: Option<&LeaderInfo>, reason: Option<&str>, now: Instant) -> Value {
    let mut all = answer(snapshot, led_by, reason);
    if let (Value::Object(all), Value::Object(facts)) = (&mut all, status(snapshot, led_by, false, now)) {
        all.extend(facts);
    }
    all
}

/// The body of `/livez`: the common fields and every loop.
pub(crate) fn live(snapshot: &Snapshot, led_by: Option<&LeaderInfo>, reason: Option<&str>, pulses: &[Pulse]) -> Value {
    let loops: Vec<Value> = pulses
        .iter()
        .map(|pulse| {
            json!({
                "name": pulse.name,
                "alive": pulse.alive,
                "age_ms": pulse.age.as_millis(),
                "bound_ms": pulse.bound.as_millis(),
            })
        })
        .collect();
    with(answer(snapshot, led_by, reason), "loops", Value::Array(loops))
}

/// The body of a request that is not a question.
pub(crate) fn refusal(reason: &str, message: &str) -> Value {
    json!({ "reason": reason, "message": message })
}

/// `/status`: everything about this node.
pub(crate) fn status(snapshot: &Snapshot, led_by: Option<&LeaderInfo>, stale: bool, now: Instant) -> Value {
    let age = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then).as_millis());
    let alarms: Vec<Value> =
        snapshot.alarms.iter().map(|alarm| json!({ "code": alarm.code, "message": alarm.message })).collect();
    json!({
        "cluster_id": snapshot.cluster_id,
        "node_id": snapshot.node_id,
        "version": snapshot.version,
        "tags": snapshot.tags,
        "snapshot_age_ms": age(Some(snapshot.taken_at)),
        "snapshot_stale": stale,
        "role": snapshot.role.word(),
        "term": snapshot.term,
        "leader": led_by.map(leader),
        "last_quorum_ack_age_ms": age(snapshot.last_quorum_ack),
        "leader_contact_age_ms": age(snapshot.leader_contact),
        "caught_up_age_ms": age(snapshot.caught_up),
        "own_term_applied": snapshot.own_term_applied,
        "committed_index": snapshot.committed_index,
        "applied_index": snapshot.applied_index,
        "applied_lag": snapshot.applied_lag(),
        "recovered": snapshot.recovered,
        "draining": snapshot.draining,
        "stopping": snapshot.stopping,
        "bitcoind": bitcoind(&snapshot.bitcoind),
        "bitcoind_judged_age_ms": age(snapshot.bitcoind.judged_at),
        "alarms": alarms,
        "checks": checks(snapshot, now),
        "fit_for_primary": snapshot.fit_for_primary,
        "fit_for_traffic": snapshot.fit_for_traffic,
        "counts": {
            "wallets": snapshot.counts.wallets,
            "reservations": snapshot.counts.reservations,
            "payments": snapshot.counts.payments,
            "oldest_payment_age_ms": oldest_ms(&snapshot.counts),
        },
    })
}

fn checks(snapshot: &Snapshot, now: Instant) -> Vec<Value> {
    let check = |check: &CheckView| {
        json!({
            "name": check.name,
            "for": check.purpose.word(),
            "passes": check.passes,
            "value": check.value,
            "age_ms": check.looked_at.map(|at| now.saturating_duration_since(at).as_millis()),
        })
    };
    snapshot.checks.iter().map(check).collect()
}

/// `/cluster`: the members as this node knows them.
pub(crate) fn cluster(snapshot: &Snapshot, led_by: Option<&LeaderInfo>) -> Value {
    let leader_id = led_by.map(|leader| leader.id);
    let members: Vec<Value> = snapshot
        .members
        .iter()
        .map(|member| {
            json!({
                "id": member.id,
                "leader": leader_id == Some(member.id),
                "voter": member.voter,
                "control": member.control,
                "data": member.data,
                "lag_entries": member.lag_entries,
            })
        })
        .collect();
    json!({
        "cluster_id": snapshot.cluster_id,
        "seen_by": snapshot.node_id,
        "term": snapshot.term,
        "leader": led_by.map(leader),
        "members": members,
    })
}

/// `/history`: changes of leadership, oldest first.
pub(crate) fn history(snapshot: &Snapshot) -> Value {
    let changes: Vec<Value> = snapshot
        .history
        .iter()
        .map(|change| {
            json!({
                "term": change.term,
                "leader_id": change.leader_id,
                "at_unix_ms": change.at_unix_ms,
            })
        })
        .collect();
    json!({ "seen_by": snapshot.node_id, "leadership": changes })
}

fn oldest_ms(counts: &Counts) -> Value {
    counts.oldest.iter().map(|(state, age)| ((*state).to_owned(), json!(age.as_millis()))).collect()
}

fn leader(leader: &LeaderInfo) -> Value {
    json!({ "id": leader.id, "control": leader.control, "data": leader.data })
}

fn bitcoind(view: &BitcoindView) -> Value {
    json!({
        "in_sync": view.in_sync,
        "reason": view.reason.map(super::bitcoind_sync::SyncReason::word),
        "height": view.height,
        "headers": view.headers,
        "lag_blocks": view.lag_blocks,
        "peers": view.peers,
    })
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.insert(key.to_owned(), value);
    }
    object
}
