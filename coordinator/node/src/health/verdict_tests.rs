//! The decisions: one table of single changes to a healthy node, and what must hold for all.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::agreement::UNDECIDED;
use crate::health::bitcoind_sync::SyncReason;
use crate::health::snapshot::{Alarm, LeaderInfo};
use crate::reorganised::REORGANISED;

const MS: Duration = Duration::from_millis(1);

const LIMITS: Limits = Limits {
    max_lag_entries: 1_000,
    quorum_ack: Duration::from_millis(200),
    leader_contact: Duration::from_secs(1),
    snapshot: Duration::from_secs(1),
    bitcoind_view: Duration::from_secs(14),
};

fn some_leader() -> LeaderInfo {
    LeaderInfo { id: 1, control: "10.0.0.1:7801".to_owned(), data: "10.0.0.1:7800".to_owned() }
}

/// A node of a cluster in good health, at its best.
fn healthy(role: Role, now: Instant) -> Snapshot {
    let tags = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    Snapshot {
        taken_at: now,
        role,
        term: 7,
        leader: Some(some_leader()),
        last_quorum_ack: (role == Role::Leader).then_some(now),
        leader_contact: (role != Role::Leader).then_some(now),
        caught_up: (role != Role::Leader).then_some(now),
        own_term_applied: true,
        committed_index: 5_000,
        applied_index: 5_000,
        recovered: true,
        bitcoind: BitcoindView {
            judged_at: Some(now),
            in_sync: true,
            reason: None,
            height: Some(100),
            headers: Some(100),
            lag_blocks: Some(0),
            peers: Some(8),
        },
        ..Snapshot::starting("demo", 1, tags)
    }
}

fn questions() -> Vec<(&'static str, Check)> {
    vec![
        ("startupz", Check::Startup),
        ("readyz", Check::Ready { bitcoind: false }),
        ("readyz+b", Check::Ready { bitcoind: true }),
        ("leader", Check::Leader),
        ("primary", Check::primary()),
        ("replica", Check::replica()),
        ("read-only", Check::ReadOnly),
        ("bitcoind", Check::Bitcoind),
    ]
}

/// What changes, and what each question then answers; `-` is yes.
/// Columns: startupz, readyz, readyz?bitcoind=1, leader, primary, replica, read-only, bitcoind.
type Row = (&'static str, Role, fn(&mut Snapshot), [&'static str; 8]);

const YES: &str = "-";
const NO_LEADER: &str = "NO_LEADER";
const QUORUM: &str = "QUORUM_LOST";
const NOT_LEADER: &str = "NOT_LEADER";
const IS_LEADER: &str = "IS_LEADER";
const STALE: &str = "SNAPSHOT_STALE";
const RECOVERING: &str = "NOT_RECOVERED";
const DRAINING: &str = "DRAINING";
const STOPPED: &str = "STOPPED";
const LAG: &str = "APPLIED_LAG";
const UNSYNCED: &str = "BITCOIND_NOT_IN_SYNC";
const UNSEEN: &str = "BITCOIND_VIEW_STALE";
const OWN: &str = "OWN_TERM_NOT_APPLIED";
const CHECK: &str = "CHECK_FAILED";

fn earlier(snapshot: &Snapshot, by: Duration) -> Option<Instant> {
    snapshot.taken_at.checked_sub(by)
}

#[rustfmt::skip] // A table reads by rows.
fn rows() -> Vec<Row> {
    use Role::{Candidate, Follower, Leader, Learner, Stopped};
    let alarm: fn(&mut Snapshot) = |s| s.alarms.push(Alarm { code: "X", message: String::new() });
    let recovery: fn(&mut Snapshot) = |s| s.alarms.push(Alarm { code: RECOVERY, message: String::new() });
    let reorganised: fn(&mut Snapshot) = |s| s.alarms.push(Alarm { code: REORGANISED, message: String::new() });
    let undecided: fn(&mut Snapshot) = |s| s.alarms.push(Alarm { code: UNDECIDED, message: String::new() });
    vec![
        ("healthy", Leader, |_| {}, [YES, YES, YES, YES, YES, IS_LEADER, YES, YES]),
        ("healthy", Follower, |_| {}, [YES, YES, YES, NOT_LEADER, NOT_LEADER, YES, YES, YES]),
        ("healthy", Learner, |_| {}, [YES, YES, YES, NOT_LEADER, NOT_LEADER, YES, YES, YES]),
        ("campaigning for a moment", Candidate, |_| {}, [YES, YES, YES, NOT_LEADER, NOT_LEADER, YES, YES, YES]),
        ("raft ended", Stopped, |_| {}, [YES, STOPPED, STOPPED, STOPPED, STOPPED, STOPPED, STOPPED, YES]),
        ("stale", Leader, |s| s.taken_at = earlier(s, 1_001 * MS).unwrap(), [STALE; 8]),
        ("just not stale", Leader, |s| s.taken_at = earlier(s, 1_000 * MS).unwrap(), [YES, YES, YES, YES, YES, IS_LEADER, YES, YES]),
        ("recovering", Follower, |s| s.recovered = false, [RECOVERING; 8]),
        ("draining", Leader, |s| s.draining = true, [YES, DRAINING, DRAINING, DRAINING, DRAINING, DRAINING, DRAINING, YES]),
        ("draining", Follower, |s| s.draining = true, [YES, DRAINING, DRAINING, DRAINING, DRAINING, DRAINING, DRAINING, YES]),
        ("stopping", Leader, |s| (s.draining, s.stopping) = (true, true), [YES, DRAINING, DRAINING, DRAINING, DRAINING, DRAINING, DRAINING, YES]),
        ("stopping, and nobody renews it", Leader, |s| (s.draining, s.stopping, s.taken_at) = (true, true, earlier(s, 1_001 * MS).unwrap()), [DRAINING; 8]),
        ("drained, and stale", Follower, |s| (s.draining, s.taken_at) = (true, earlier(s, 1_001 * MS).unwrap()), [STALE; 8]),
        ("cut off for an election timeout", Leader, |s| s.last_quorum_ack = earlier(s, 201 * MS), [YES, YES, YES, QUORUM, QUORUM, IS_LEADER, QUORUM, YES]),
        ("just not cut off", Leader, |s| s.last_quorum_ack = earlier(s, 200 * MS), [YES, YES, YES, YES, YES, IS_LEADER, YES, YES]),
        ("cut off for long", Leader, |s| s.last_quorum_ack = earlier(s, 1_001 * MS), [YES, QUORUM, QUORUM, QUORUM, QUORUM, IS_LEADER, QUORUM, YES]),
        ("never acknowledged", Leader, |s| s.last_quorum_ack = None, [YES, QUORUM, QUORUM, QUORUM, QUORUM, IS_LEADER, QUORUM, YES]),
        ("just elected", Leader, |s| s.own_term_applied = false, [YES, YES, YES, OWN, OWN, IS_LEADER, OWN, YES]),
        ("no leader known", Follower, |s| s.leader = None, [YES, NO_LEADER, NO_LEADER, NOT_LEADER, NOT_LEADER, NO_LEADER, NO_LEADER, YES]),
        ("leader not heard", Follower, |s| s.leader_contact = earlier(s, 1_001 * MS), [YES, NO_LEADER, NO_LEADER, NOT_LEADER, NOT_LEADER, NO_LEADER, NO_LEADER, YES]),
        ("leader never heard", Follower, |s| s.leader_contact = None, [YES, NO_LEADER, NO_LEADER, NOT_LEADER, NOT_LEADER, NO_LEADER, NO_LEADER, YES]),
        ("never caught up", Follower, |s| s.caught_up = None, [YES, LAG, LAG, NOT_LEADER, NOT_LEADER, LAG, LAG, YES]),
        ("never caught up, and needs not", Leader, |s| s.caught_up = None, [YES, YES, YES, YES, YES, IS_LEADER, YES, YES]),
        ("lagging", Follower, |s| s.applied_index -= 1_001, [YES, LAG, LAG, NOT_LEADER, NOT_LEADER, LAG, LAG, YES]),
        ("just not lagging", Follower, |s| s.applied_index -= 1_000, [YES, YES, YES, NOT_LEADER, NOT_LEADER, YES, YES, YES]),
        ("lagging", Leader, |s| s.applied_index -= 1_001, [YES, LAG, LAG, YES, YES, IS_LEADER, YES, YES]),
        ("bitcoind out of sync", Leader, |s| s.bitcoind.in_sync = false, [YES, YES, UNSYNCED, YES, UNSYNCED, IS_LEADER, YES, UNSYNCED]),
        ("bitcoind out of sync", Follower, |s| s.bitcoind.in_sync = false, [YES, YES, UNSYNCED, NOT_LEADER, NOT_LEADER, YES, YES, UNSYNCED]),
        ("the prober hangs", Leader, |s| s.bitcoind.judged_at = earlier(s, 14_001 * MS), [YES, YES, UNSEEN, YES, UNSEEN, IS_LEADER, YES, UNSEEN]),
        ("never probed", Leader, |s| s.bitcoind = BitcoindView::default(), [YES, YES, UNSEEN, YES, UNSEEN, IS_LEADER, YES, UNSEEN]),
        ("an alarm", Leader, alarm, [YES, YES, YES, YES, "ALARM", IS_LEADER, YES, YES]),
        ("wallets frozen by a reorganisation", Leader, reorganised, [YES, YES, YES, YES, YES, IS_LEADER, YES, YES]),
        ("states differ, and nobody knows which is right", Leader, undecided, [YES, YES, YES, YES, "ALARM", IS_LEADER, YES, YES]),
        ("states differ, and nobody knows which is right", Follower, undecided, [YES, YES, YES, NOT_LEADER, NOT_LEADER, YES, YES, YES]),
        ("recovery mode", Leader, recovery, [YES, YES, YES, YES, "RECOVERY_MODE", IS_LEADER, YES, YES]),
        ("a check for primary", Leader, |s| s.fit_for_primary = false, [YES, YES, YES, YES, CHECK, IS_LEADER, YES, YES]),
        ("a check for primary", Follower, |s| s.fit_for_primary = false, [YES, YES, YES, NOT_LEADER, NOT_LEADER, YES, YES, YES]),
        ("a check for readiness", Leader, |s| s.fit_for_traffic = false, [YES, CHECK, CHECK, YES, CHECK, IS_LEADER, CHECK, YES]),
        ("a check for readiness", Follower, |s| s.fit_for_traffic = false, [YES, CHECK, CHECK, NOT_LEADER, NOT_LEADER, CHECK, CHECK, YES]),
        ("an alarm", Follower, alarm, [YES, YES, YES, NOT_LEADER, NOT_LEADER, YES, YES, YES]),
    ]
}

#[test]
fn one_change_at_a_time() {
    let now = Instant::now() + Duration::from_mins(10);
    for (name, role, change, answers) in rows() {
        let mut snapshot = healthy(role, now);
        change(&mut snapshot);
        for ((question, check), wanted) in questions().into_iter().zip(answers) {
            let verdict = verdict(&check, &snapshot, &LIMITS, now);
            let said = verdict.reason.map_or(YES, Reason::word);
            assert_eq!(said, wanted, "{name} {role:?}: /{question}");
            assert_eq!(verdict.status(), if wanted == YES { 200 } else { 503 });
        }
    }
}

/// However long it takes: a node that loads its state is not one that is stuck, and its one snapshot ages meanwhile.
#[test]
fn a_node_that_loads_its_state_for_long_says_that_and_not_that_it_is_stuck() {
    let starting = Snapshot::starting("demo", 1, BTreeMap::new());
    for age in [Duration::ZERO, LIMITS.snapshot, LIMITS.snapshot + MS, Duration::from_hours(1)] {
        for (question, check) in questions() {
            let reason = verdict(&check, &starting, &LIMITS, starting.taken_at + age).reason;
            assert_eq!(reason, Some(Reason::NotRecovered), "/{question} after {age:?}");
        }
    }
}

fn reason_of(check: &Check, snapshot: &Snapshot) -> Option<Reason> {
    verdict(check, snapshot, &LIMITS, snapshot.taken_at).reason
}

#[test]
fn parameters_of_primary_tighten_or_lift_what_is_asked_of_bitcoind() {
    let mut snapshot = healthy(Role::Leader, Instant::now());
    let primary = |max_lag_blocks, ignore_bitcoind| Check::Primary { max_lag_blocks, ignore_bitcoind };
    snapshot.bitcoind.lag_blocks = Some(2);
    assert_eq!(reason_of(&primary(None, false), &snapshot), None);
    assert_eq!(reason_of(&primary(Some(2), false), &snapshot), None);
    assert_eq!(reason_of(&primary(Some(1), false), &snapshot), Some(Reason::BitcoindLag));
    snapshot.bitcoind.lag_blocks = None;
    assert_eq!(reason_of(&primary(Some(9), false), &snapshot), Some(Reason::BitcoindLag));
    snapshot.bitcoind = BitcoindView::default();
    assert_eq!(reason_of(&primary(None, true), &snapshot), None);
    // A generous bound does not vouch for a bitcoind that is out of sync.
    snapshot.bitcoind.judged_at = Some(snapshot.taken_at);
    snapshot.bitcoind.lag_blocks = Some(5);
    let generous = reason_of(&primary(Some(100), false), &snapshot);
    assert_eq!(generous, Some(Reason::BitcoindNotInSync));
}

#[test]
fn parameters_of_replica_are_all_obeyed() {
    let mut snapshot = healthy(Role::Follower, Instant::now());
    snapshot.applied_index -= 10;
    let replica = |entries, blocks, tags: &[(&str, &str)]| Check::Replica {
        max_lag_entries: entries,
        max_lag_blocks: blocks,
        tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    assert_eq!(reason_of(&replica(Some(10), None, &[]), &snapshot), None);
    assert_eq!(reason_of(&replica(Some(9), None, &[]), &snapshot), Some(Reason::AppliedLag));
    assert_eq!(reason_of(&replica(None, Some(0), &[("zone", "a")]), &snapshot), None);
    for tags in [&[("zone", "b")][..], &[("zone", "")], &[("rack", "a")], &[("zone", "a"), ("x", "")]] {
        let reason = reason_of(&replica(None, None, tags), &snapshot);
        assert_eq!(reason, Some(Reason::TagMismatch), "{tags:?}");
    }
    // A lag beyond the usual bound passes if the request allows it, any other fault never.
    snapshot.bitcoind.in_sync = false;
    snapshot.bitcoind.lag_blocks = Some(5);
    for (reason, wanted) in [
        (SyncReason::BehindHeaders, None),
        (SyncReason::BehindCluster, None),
        (SyncReason::Fork, Some(Reason::BitcoindNotInSync)),
        (SyncReason::WrongChain, Some(Reason::BitcoindNotInSync)),
    ] {
        snapshot.bitcoind.reason = Some(reason);
        assert_eq!(reason_of(&replica(None, Some(5), &[]), &snapshot), wanted, "{reason:?}");
    }
    snapshot.bitcoind.reason = Some(SyncReason::BehindHeaders);
    let tight = reason_of(&replica(None, Some(4), &[]), &snapshot);
    assert_eq!(tight, Some(Reason::BitcoindLag));
    assert_eq!(reason_of(&replica(None, None, &[]), &snapshot), None);
}

/// Any node at all; moments lie up to 3 s before a common one.
fn any_snapshot(now: Instant) -> impl Strategy<Value = Snapshot> {
    // Mostly in good health, or hardly any would be primary.
    let age = prop_oneof![4 => 0_u32..100, 1 => 0_u32..3_000];
    let before = age.prop_map(move |ms| now.checked_sub(ms * MS).unwrap());
    let role = prop::sample::select(vec![Role::Leader, Role::Follower, Role::Candidate, Role::Learner, Role::Stopped]);
    let flags = prop::array::uniform9(prop::bool::weighted(0.9));
    let moments =
        (before.clone(), prop::option::of(before.clone()), prop::option::of(before.clone()), prop::option::of(before));
    (role, flags, moments, 0_u64..2_000, prop::option::of(0_u32..6)).prop_map(
        move |(role, flags, (taken, ack, contact, judged), lag, blocks)| {
            let [known, own, recovered, not_draining, sync, no_alarm, zone, fit_for_primary, fit_for_traffic] = flags;
            let mut snapshot = healthy(role, taken);
            snapshot.leader = known.then(some_leader);
            snapshot.last_quorum_ack = ack;
            snapshot.leader_contact = contact;
            snapshot.own_term_applied = own;
            snapshot.recovered = recovered;
            snapshot.fit_for_primary = fit_for_primary;
            snapshot.fit_for_traffic = fit_for_traffic;
            snapshot.draining = !not_draining;
            snapshot.applied_index -= lag;
            snapshot.bitcoind.judged_at = judged;
            snapshot.bitcoind.in_sync = sync;
            snapshot.bitcoind.lag_blocks = blocks;
            if !no_alarm {
                let message = String::new();
                snapshot.alarms.push(Alarm { code: "X", message });
            }
            if !zone {
                snapshot.tags.clear();
            }
            snapshot
        },
    )
}

/// `now` for generated snapshots: far enough from the clock's beginning to subtract from.
fn base() -> Instant {
    Instant::now() + Duration::from_mins(10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Answers imply each other as their documentation says, whatever the node looks like.
    #[test]
    fn answers_are_consistent(
        (now, snapshot) in Just(base()).prop_flat_map(|now| (Just(now), any_snapshot(now)))
    ) {
        let yes = |check: &Check| verdict(check, &snapshot, &LIMITS, now).is_yes();
        let ready = Check::Ready { bitcoind: false };
        let ready_with_bitcoind = Check::Ready { bitcoind: true };
        let ignoring = Check::Primary { max_lag_blocks: None, ignore_bitcoind: true };
        let tight = Check::Primary { max_lag_blocks: Some(1), ignore_bitcoind: false };
        prop_assert!(!yes(&Check::primary()) || yes(&Check::Leader));
        prop_assert!(!yes(&Check::primary()) || yes(&Check::Bitcoind));
        prop_assert!(!yes(&Check::primary()) || yes(&ignoring));
        prop_assert!(!yes(&tight) || yes(&Check::primary()));
        prop_assert!(!(yes(&Check::Leader) && yes(&Check::replica())));
        let leader_for_traffic = yes(&Check::Leader) && snapshot.fit_for_traffic;
        prop_assert_eq!(yes(&Check::ReadOnly), leader_for_traffic || yes(&Check::replica()));
        prop_assert!(!yes(&Check::primary()) || (snapshot.fit_for_primary && snapshot.fit_for_traffic));
        prop_assert!(!yes(&Check::replica()) || yes(&ready));
        prop_assert!(!yes(&ready_with_bitcoind) || yes(&ready));
        // Time alone never turns a no into a yes.
        for (name, check) in questions() {
            let later = verdict(&check, &snapshot, &LIMITS, now + 500 * MS);
            prop_assert!(yes(&check) || !later.is_yes(), "/{}", name);
        }
    }

    /// An old leader that is cut off, and the one elected after it, are never primary at once:
    /// followers wait at least one election timeout after what they last acknowledged.
    #[test]
    fn two_nodes_are_not_primary_at_once(
        patience_ms in 0_u32..1_000,
        asked_ms in 0_u32..3_000,
        snapshot_age_ms in 0_u32..1_500,
    ) {
        let now = base();
        let last_sent_that_a_quorum_heard = now;
        let elected = last_sent_that_a_quorum_heard + LIMITS.quorum_ack + patience_ms * MS + MS;
        let asked = now + asked_ms * MS;
        let old = Snapshot {
            role: Role::Leader,
            taken_at: asked.checked_sub(snapshot_age_ms * MS).unwrap(),
            last_quorum_ack: Some(last_sent_that_a_quorum_heard),
            ..healthy(Role::Leader, asked)
        };
        let new = Snapshot {
            // Before its election it is no leader, whatever else its snapshot says.
            role: if asked >= elected { Role::Leader } else { Role::Candidate },
            taken_at: asked,
            last_quorum_ack: Some(asked),
            ..healthy(Role::Leader, asked)
        };
        let primary = |snapshot: &Snapshot| {
            verdict(&Check::primary(), snapshot, &LIMITS, asked).is_yes()
        };
        prop_assert!(!(primary(&old) && primary(&new)));
    }
}

#[test]
fn a_healthy_pair_does_reach_primary_one_after_the_other() {
    // Without this the property above could hold because nobody is ever primary.
    let now = base();
    let old = Snapshot { taken_at: now + 200 * MS, ..healthy(Role::Leader, now) };
    let primary = |snapshot: &Snapshot, at| verdict(&Check::primary(), snapshot, &LIMITS, at);
    assert!(primary(&old, now + 200 * MS).is_yes());
    assert_eq!(primary(&old, now + 201 * MS).reason, Some(Reason::QuorumLost));
    assert!(primary(&healthy(Role::Leader, now + 400 * MS), now + 400 * MS).is_yes());
}

#[test]
fn reasons_are_words_of_their_own() {
    let all = [
        Reason::SnapshotStale,
        Reason::NotRecovered,
        Reason::Stopped,
        Reason::Draining,
        Reason::NotLeader,
        Reason::IsLeader,
        Reason::NoLeader,
        Reason::QuorumLost,
        Reason::OwnTermNotApplied,
        Reason::AppliedLag,
        Reason::BitcoindNotInSync,
        Reason::BitcoindViewStale,
        Reason::BitcoindLag,
        Reason::RecoveryMode,
        Reason::Alarm,
        Reason::CheckFailed,
        Reason::TagMismatch,
        Reason::Stalled,
    ];
    let words: std::collections::BTreeSet<&str> = all.iter().map(|reason| reason.word()).collect();
    assert_eq!(words.len(), all.len());
    let shape = |word: &str| word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    assert!(words.iter().all(|word| shape(word)), "{words:?}");
}
