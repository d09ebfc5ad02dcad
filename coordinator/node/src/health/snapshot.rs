//! The node at one moment, as far as health is concerned.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::bitcoind_sync::SyncReason;
use crate::checks::config::Purpose;

/// What this node is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Elected in the current term.
    Leader,
    /// A voter that follows.
    Follower,
    /// A voter that stands for election.
    Candidate,
    /// A member without a vote.
    Learner,
    /// Raft has ended, by shutdown or by a fault.
    Stopped,
}

impl Role {
    /// The word in answers, which is that of `v1::NodeRole`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "replica",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        }
    }
}

/// The leader as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderInfo {
    /// Its node id.
    pub id: u64,
    /// Where nodes and operators reach it, host:port.
    pub control: String,
    /// Where wallet back ends reach it, host:port.
    pub data: String,
}

/// Something that a human must look at; no spends are taken meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// A stable word, such as `STATE_HASH_MISMATCH`.
    pub code: &'static str,
    /// What happened.
    pub message: String,
}

/// One of the configurable checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckView {
    /// Its name.
    pub name: String,
    /// What it decides.
    pub purpose: Purpose,
    /// Whether it passes, by its hysteresis.
    pub passes: bool,
    /// What its last look saw, for people.
    pub value: String,
    /// When that was; `None` before the first one.
    pub looked_at: Option<Instant>,
}

/// A member, for `/cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its node id.
    pub id: u64,
    /// Whether it votes.
    pub voter: bool,
    /// Where nodes and operators reach it, host:port.
    pub control: String,
    /// Where wallet back ends reach it, host:port.
    pub data: String,
    /// Entries that it lacks; only the leader knows.
    pub lag_entries: Option<u64>,
}

/// One change of leadership, for `/history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadershipChange {
    /// The term that began.
    pub term: u64,
    /// Who won it.
    pub leader_id: u64,
    /// When this node learnt of it, Unix milliseconds by its own clock; for people only.
    pub at_unix_ms: u64,
}

/// How much there is, for `/status`. Keys are the states' names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wallets.
    pub wallets: u64,
    /// Reservations by state.
    pub reservations: BTreeMap<&'static str, u64>,
    /// Payments by state.
    pub payments: BTreeMap<&'static str, u64>,
    /// How long ago the oldest payment was ordered that is not signed (`signing`), or not broadcast (`signed`); zero if
    /// there is none.
    pub oldest: BTreeMap<&'static str, Duration>,
}

/// This node's view of its own bitcoind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BitcoindView {
    /// When it was judged; `None` before the first probe.
    pub judged_at: Option<Instant>,
    /// Whether it may be relied on.
    pub in_sync: bool,
    /// Why not.
    pub reason: Option<SyncReason>,
    /// Blocks connected.
    pub height: Option<u32>,
    /// Headers known.
    pub headers: Option<u32>,
    /// Blocks behind its own headers or the best bitcoind of the cluster.
    pub lag_blocks: Option<u32>,
    /// Connections.
    pub peers: Option<u32>,
}

/// The node at [`Snapshot::taken_at`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When it was taken.
    pub taken_at: Instant,
    /// The cluster's name.
    pub cluster_id: String,
    /// This node's id.
    pub node_id: u64,
    /// This program's version.
    pub version: &'static str,
    /// This node's labels.
    pub tags: BTreeMap<String, String>,
    /// What it is in the cluster.
    pub role: Role,
    /// The current term.
    pub term: u64,
    /// The leader of that term, if known.
    pub leader: Option<LeaderInfo>,
    /// As leader: the latest moment such that a quorum has acknowledged what was sent then.
    pub last_quorum_ack: Option<Instant>,
    /// When a leader was last heard. One that leads hears itself, for as long as a quorum acknowledges it.
    pub leader_contact: Option<Instant>,
    /// As follower or learner: when it last had all that its leader knew to be committed; how old its reads are is
    /// counted from here.
    pub caught_up: Option<Instant>,
    /// As leader: an entry of its own term has been applied, so its state is current.
    pub own_term_applied: bool,
    /// Last log index known to be committed.
    pub committed_index: u64,
    /// Last log index applied.
    pub applied_index: u64,
    /// The state has been loaded and the log replayed.
    pub recovered: bool,
    /// Nobody should be sent here: the node is about to stop, or an operator has drained it.
    pub draining: bool,
    /// The node is about to stop, so that nobody may renew this snapshot any more.
    pub stopping: bool,
    /// This node's bitcoind.
    pub bitcoind: BitcoindView,
    /// What a human must look at.
    pub alarms: Vec<Alarm>,
    /// The configurable checks.
    pub checks: Vec<CheckView>,
    /// Whether the checks for primary, taken together, pass.
    pub fit_for_primary: bool,
    /// Whether the checks for readiness, taken together, pass.
    pub fit_for_traffic: bool,
    /// The members that this node knows.
    pub members: Vec<Member>,
    /// The latest changes of leadership, oldest first; bounded by whoever collects them.
    pub history: Vec<LeadershipChange>,
    /// How much there is.
    pub counts: Counts,
}

impl Snapshot {
    /// A node that has just started and knows nothing yet.
    pub fn starting(cluster_id: &str, node_id: u64, tags: BTreeMap<String, String>) -> Self {
        Self {
            taken_at: Instant::now(),
            cluster_id: cluster_id.to_owned(),
            node_id,
            version: env!("CARGO_PKG_VERSION"),
            tags,
            role: Role::Follower,
            term: 0,
            leader: None,
            last_quorum_ack: None,
            leader_contact: None,
            caught_up: None,
            own_term_applied: false,
            committed_index: 0,
            applied_index: 0,
            recovered: false,
            draining: false,
            stopping: false,
            bitcoind: BitcoindView::default(),
            alarms: Vec::new(),
            checks: Vec::new(),
            fit_for_primary: true,
            fit_for_traffic: true,
            members: Vec::new(),
            history: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// [`Snapshot::leader_contact`] after this snapshot, of a node that has heard another one lead at `heard`.
    pub fn leader_contact_next(&self, heard: Option<Instant>) -> Option<Instant> {
        heard.max(self.leader_contact).max(self.last_quorum_ack)
    }

    /// The names of the checks that fail and decide something.
    pub fn failed_checks(&self) -> Vec<&str> {
        let failed = self.checks.iter().filter(|check| !check.passes && check.purpose != Purpose::Report);
        failed.map(|check| check.name.as_str()).collect()
    }

    /// Entries that are committed and not applied here yet.
    pub fn applied_lag(&self) -> u64 {
        self.committed_index.saturating_sub(self.applied_index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use onespend_proto::v1::NodeRole;

    use super::{Role, Snapshot};

    #[test]
    fn a_leader_that_is_deposed_has_heard_a_leader_until_then() {
        let first = Instant::now();
        let at = |ms| Some(first + Duration::from_millis(ms));
        let starting = Snapshot::starting("demo", 1, BTreeMap::new());
        assert_eq!(starting.leader_contact_next(None), None);
        let led = Snapshot { leader_contact: at(10), last_quorum_ack: at(500), ..starting };
        assert_eq!(led.leader_contact_next(at(10)), at(500));
        let deposed = Snapshot { leader_contact: led.leader_contact_next(at(10)), last_quorum_ack: None, ..led };
        assert_eq!(deposed.leader_contact_next(at(10)), at(500), "nobody else yet");
        assert_eq!(deposed.leader_contact_next(at(600)), at(600));
    }

    /// `onespend status` and the API say what the bodies say.
    #[test]
    fn a_role_has_one_word_everywhere() {
        let roles = [
            (Role::Leader, NodeRole::Leader),
            (Role::Follower, NodeRole::Replica),
            (Role::Candidate, NodeRole::Candidate),
            (Role::Learner, NodeRole::Learner),
            (Role::Stopped, NodeRole::Stopped),
        ];
        for (role, of_the_api) in roles {
            assert_eq!(format!("NODE_ROLE_{}", role.word().to_uppercase()), of_the_api.as_str_name());
        }
    }
}
