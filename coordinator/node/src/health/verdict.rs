//! Yes or no, and why not: the decisions behind every health endpoint.
//!
//! Pure: a question, a snapshot, the limits and the moment. What was true when the snapshot was
//! taken may have ceased to be, so ages are measured at the moment of the answer. An isolated
//! leader keeps believing that it leads; only the age of its last quorum acknowledgement tells.

use std::time::{Duration, Instant};

use super::question::Check;
use super::snapshot::{BitcoindView, LeaderInfo, Role, Snapshot};
use crate::agreement::MISMATCH;
use crate::alarms::stops_spends;
use crate::config::Config;
use crate::restored::RECOVERY;

/// A snapshot older than this answers nothing (interfaces: at most 1 s).
const MAX_SNAPSHOT_AGE: Duration = Duration::from_secs(1);

/// The bounds that decisions rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Committed entries that a replica may not have applied yet.
    pub max_lag_entries: u64,
    /// Longest time since a quorum acknowledged the leader: one election timeout. Followers wait
    /// longer than that before they elect another, so two nodes are not primary at once.
    pub quorum_ack: Duration,
    /// Longest time since a replica heard its leader. Longer than an election takes; but a replica
    /// that has voted knows no leader until it hears the next, and is out of rotation so long.
    pub leader_contact: Duration,
    /// Oldest snapshot that is answered from.
    pub snapshot: Duration,
    /// Oldest judgement of bitcoind that is believed: a prober that hangs must not vouch for it.
    pub bitcoind_view: Duration,
}

impl Limits {
    /// The limits that follow from a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            max_lag_entries: config.health.max_lag_entries,
            quorum_ack: config.raft.election_timeout_max,
            leader_contact: (config.raft.election_timeout_max * 3).max(Duration::from_secs(1)),
            snapshot: MAX_SNAPSHOT_AGE,
            bitcoind_view: config.bitcoind.poll * 2 + config.bitcoind.timeout,
        }
    }
}

/// Why an answer is no. The words are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The snapshot has not been renewed since the state was loaded: the node is stuck.
    SnapshotStale,
    /// The state is still being loaded.
    NotRecovered,
    /// Raft has ended.
    Stopped,
    /// The node is about to stop, or an operator has drained it.
    Draining,
    /// It does not lead.
    NotLeader,
    /// It leads, and a replica was asked for.
    IsLeader,
    /// It knows no leader, or has not heard it for too long.
    NoLeader,
    /// It believes to lead, and no quorum has acknowledged it lately.
    QuorumLost,
    /// It leads and has not applied an entry of its own term yet.
    OwnTermNotApplied,
    /// It has not applied enough of what is committed.
    AppliedLag,
    /// bitcoind is out of sync; the body's `bitcoind.reason` says why.
    BitcoindNotInSync,
    /// bitcoind has not been judged lately.
    BitcoindViewStale,
    /// bitcoind lags more blocks than this request allows.
    BitcoindLag,
    /// The state may be older than what the cluster did: nothing is signed until an operator confirms.
    RecoveryMode,
    /// Something needs a human.
    Alarm,
    /// A configurable check fails; the body's `failed_checks` names it.
    CheckFailed,
    /// The node does not carry a label that was asked for.
    TagMismatch,
    /// A loop of the node makes no progress.
    Stalled,
}

impl Reason {
    /// The machine-readable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::SnapshotStale => "SNAPSHOT_STALE",
            Self::NotRecovered => "NOT_RECOVERED",
            Self::Stopped => "STOPPED",
            Self::Draining => "DRAINING",
            Self::NotLeader => "NOT_LEADER",
            Self::IsLeader => "IS_LEADER",
            Self::NoLeader => "NO_LEADER",
            Self::QuorumLost => "QUORUM_LOST",
            Self::OwnTermNotApplied => "OWN_TERM_NOT_APPLIED",
            Self::AppliedLag => "APPLIED_LAG",
            Self::BitcoindNotInSync => "BITCOIND_NOT_IN_SYNC",
            Self::BitcoindViewStale => "BITCOIND_VIEW_STALE",
            Self::BitcoindLag => "BITCOIND_LAG",
            Self::RecoveryMode => "RECOVERY_MODE",
            Self::Alarm => "ALARM",
            Self::CheckFailed => "CHECK_FAILED",
            Self::TagMismatch => "TAG_MISMATCH",
            Self::Stalled => "STALLED",
        }
    }
}

/// An answer: 200, or 503 and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// `None` is yes.
    pub reason: Option<Reason>,
}

impl Verdict {
    /// Whether the answer is yes.
    pub fn is_yes(self) -> bool {
        self.reason.is_none()
    }

    /// 200 or 503.
    pub fn status(self) -> u16 {
        if self.is_yes() { 200 } else { 503 }
    }
}

/// Answers `check` from `snapshot` at the moment `now`.
pub fn verdict(check: &Check, snapshot: &Snapshot, limits: &Limits, now: Instant) -> Verdict {
    let moment = Moment { snapshot, limits, now };
    Verdict { reason: moment.answer(check).err() }
}

/// The leader that may be named: this node, or one that it hears. Raft knows the last one until somebody has won a
/// later term, for ever where too few voters are left for that.
pub fn known_leader<'a>(snapshot: &'a Snapshot, limits: &Limits, now: Instant) -> Option<&'a LeaderInfo> {
    let leads = snapshot.role == Role::Leader;
    snapshot.leader.as_ref().filter(|_| leads || Moment { snapshot, limits, now }.hears())
}

/// A snapshot seen at a moment.
struct Moment<'a> {
    snapshot: &'a Snapshot,
    limits: &'a Limits,
    now: Instant,
}

impl Moment<'_> {
    fn answer(&self, check: &Check) -> Result<(), Reason> {
        // First: a node that loads its state knows nothing, and nobody renews its one snapshot until that is done.
        need(self.snapshot.recovered, Reason::NotRecovered)?;
        // What makes snapshots ends before the node does, on purpose.
        let old = if self.snapshot.stopping { Reason::Draining } else { Reason::SnapshotStale };
        need(self.within(Some(self.snapshot.taken_at), self.limits.snapshot), old)?;
        match check {
            Check::Startup => Ok(()),
            Check::Ready { bitcoind } => {
                self.ready()?;
                self.checked_for_traffic()?;
                if *bitcoind { self.bitcoind() } else { Ok(()) }
            }
            Check::Leader => self.leader(),
            Check::Primary { max_lag_blocks, ignore_bitcoind } => {
                self.leader()?;
                if !ignore_bitcoind {
                    self.bitcoind()?;
                    self.block_lag(*max_lag_blocks)?;
                }
                need(self.snapshot.alarms.iter().all(|alarm| alarm.code != RECOVERY), Reason::RecoveryMode)?;
                need(!self.snapshot.alarms.iter().any(|alarm| stops_spends(alarm.code)), Reason::Alarm)?;
                self.checked_for_traffic()?;
                need(self.snapshot.fit_for_primary, Reason::CheckFailed)
            }
            Check::Replica { max_lag_entries, max_lag_blocks, tags } => {
                self.replica(max_lag_entries.unwrap_or(self.limits.max_lag_entries))?;
                if max_lag_blocks.is_some() {
                    self.bitcoind_but_for_lag()?;
                    self.block_lag(*max_lag_blocks)?;
                }
                let carried = &self.snapshot.tags;
                let all = tags.iter().all(|(key, value)| carried.get(key) == Some(value));
                need(all, Reason::TagMismatch)
            }
            Check::ReadOnly if self.snapshot.role == Role::Leader => {
                self.leader()?;
                self.checked_for_traffic()
            }
            Check::ReadOnly => self.replica(self.limits.max_lag_entries),
            Check::Bitcoind => self.bitcoind(),
        }
    }

    /// What every kind of traffic needs.
    fn serving(&self) -> Result<(), Reason> {
        need(self.snapshot.role != Role::Stopped, Reason::Stopped)?;
        need(!self.snapshot.draining, Reason::Draining)?;
        // A node whose state most others contradict answers nothing at all (safety 31).
        need(self.snapshot.alarms.iter().all(|alarm| alarm.code != MISMATCH), Reason::Alarm)
    }

    fn ready(&self) -> Result<(), Reason> {
        self.serving()?;
        if self.snapshot.role == Role::Leader {
            // A leader "knows a leader" only as long as a quorum agrees.
            let acknowledged = self.snapshot.last_quorum_ack;
            need(self.within(acknowledged, self.limits.leader_contact), Reason::QuorumLost)?;
        } else {
            self.follows()?;
        }
        self.applied(self.limits.max_lag_entries)
    }

    fn leader(&self) -> Result<(), Reason> {
        self.serving()?;
        need(self.snapshot.role == Role::Leader, Reason::NotLeader)?;
        let acknowledged = self.snapshot.last_quorum_ack;
        need(self.within(acknowledged, self.limits.quorum_ack), Reason::QuorumLost)?;
        need(self.snapshot.own_term_applied, Reason::OwnTermNotApplied)
    }

    fn replica(&self, max_lag_entries: u64) -> Result<(), Reason> {
        self.serving()?;
        need(self.snapshot.role != Role::Leader, Reason::IsLeader)?;
        self.follows()?;
        self.applied(max_lag_entries)?;
        self.checked_for_traffic()
    }

    fn checked_for_traffic(&self) -> Result<(), Reason> {
        need(self.snapshot.fit_for_traffic, Reason::CheckFailed)
    }

    /// It hears a leader, and has once had all that this leader or an earlier one had committed: before, it can say of no
    /// read how old it is.
    fn follows(&self) -> Result<(), Reason> {
        need(self.snapshot.leader.is_some() && self.hears(), Reason::NoLeader)?;
        need(self.snapshot.caught_up.is_some(), Reason::AppliedLag)
    }

    fn hears(&self) -> bool {
        self.within(self.snapshot.leader_contact, self.limits.leader_contact)
    }

    fn applied(&self, most: u64) -> Result<(), Reason> {
        need(self.snapshot.applied_lag() <= most, Reason::AppliedLag)
    }

    fn bitcoind(&self) -> Result<(), Reason> {
        let view = self.fresh_bitcoind()?;
        need(view.in_sync, Reason::BitcoindNotInSync)
    }

    /// In sync, or out of it for no reason but a lag that the request itself bounds.
    fn bitcoind_but_for_lag(&self) -> Result<(), Reason> {
        let view = self.fresh_bitcoind()?;
        let only_lag = view.reason.is_some_and(super::bitcoind_sync::SyncReason::is_lag);
        need(view.in_sync || only_lag, Reason::BitcoindNotInSync)
    }

    fn fresh_bitcoind(&self) -> Result<&BitcoindView, Reason> {
        let view = &self.snapshot.bitcoind;
        let fresh = self.within(view.judged_at, self.limits.bitcoind_view);
        need(fresh, Reason::BitcoindViewStale).map(|()| view)
    }

    fn block_lag(&self, most: Option<u32>) -> Result<(), Reason> {
        let lag = self.snapshot.bitcoind.lag_blocks;
        let fits = most.is_none_or(|most| lag.is_some_and(|lag| lag <= most));
        need(fits, Reason::BitcoindLag)
    }

    /// Whether something happened at most `most` ago.
    fn within(&self, then: Option<Instant>, most: Duration) -> bool {
        then.is_some_and(|then| self.now.saturating_duration_since(then) <= most)
    }
}

fn need(met: bool, otherwise: Reason) -> Result<(), Reason> {
    if met { Ok(()) } else { Err(otherwise) }
}

#[cfg(test)]
#[path = "primary_tests.rs"]
mod primary_tests;
#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
