//! One node's answer to GetStatus.

use std::collections::BTreeMap;

use bitcoin::hex::DisplayHex as _;
use onespend_proto::v1;
use serde::Serialize;

use super::chain::{Bitcoind, Block};
use super::health::Health;
use super::millis;
use super::recovery::Recovery;
use crate::cli::words::Word as _;

/// `v1::GetStatusResponse`.
#[derive(Debug, Serialize)]
pub struct Status {
    pub(super) node_id: u64,
    pub(super) role: &'static str,
    pub(super) term: u64,
    pub(super) leader_id: u64,
    pub(super) members: Vec<Member>,
    pub(super) last_log_index: u64,
    pub(super) committed_index: u64,
    pub(super) applied_index: u64,
    pub(super) snapshot_index: u64,
    pub(super) state_hash: Option<StateHash>,
    pub(super) bitcoind: Option<Bitcoind>,
    pub(super) tip: Option<Block>,
    pub(super) reservations: BTreeMap<&'static str, u64>,
    pub(super) payments: BTreeMap<&'static str, u64>,
    pub(super) wallets: u64,
    pub(super) frozen_wallets: u64,
    pub(super) version: String,
    pub(super) uptime_ms: Option<u64>,
    pub(super) quorum_age_ms: Option<u64>,
    pub(super) draining: bool,
    pub(super) alarms: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) recovery: Option<Recovery>,
    pub(super) leader_age_ms: Option<u64>,
    pub(super) feature_level: u32,
    pub(super) known_feature_level: u32,
    /// Null from an earlier version.
    pub(super) health: Option<Health>,
}

/// `v1::Member`.
#[derive(Debug, Serialize)]
pub struct Member {
    pub(super) node_id: u64,
    pub(super) control_address: String,
    pub(super) data_address: String,
    pub(super) voter: bool,
    pub(super) matched_index: Option<u64>,
    pub(super) lag_entries: Option<u64>,
    pub(super) last_contact_ms: Option<u64>,
}

/// `v1::StateHash`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct StateHash {
    pub(super) index: u64,
    pub(super) hash: String,
}

impl From<v1::GetStatusResponse> for Status {
    fn from(answer: v1::GetStatusResponse) -> Self {
        Self {
            role: answer.role().word(),
            reservations: answer.reservations.iter().map(|count| (count.state().word(), count.count)).collect(),
            payments: answer.payments.iter().map(|count| (count.state().word(), count.count)).collect(),
            node_id: answer.node_id,
            term: answer.term,
            leader_id: answer.leader_id,
            members: answer.members.into_iter().map(Member::from).collect(),
            last_log_index: answer.last_log_index,
            committed_index: answer.committed_index,
            applied_index: answer.applied_index,
            snapshot_index: answer.snapshot_index,
            state_hash: answer
                .state_hash
                .map(|hash| StateHash { index: hash.index, hash: hash.hash.to_lower_hex_string() }),
            bitcoind: answer.bitcoind.map(Bitcoind::from),
            tip: answer.tip.map(Block::from),
            wallets: answer.wallets,
            frozen_wallets: answer.frozen_wallets,
            version: answer.version,
            uptime_ms: millis(answer.uptime.as_ref()),
            quorum_age_ms: millis(answer.quorum_age.as_ref()),
            draining: answer.draining,
            alarms: answer.alarms,
            warnings: answer.warnings,
            recovery: answer.recovery.map(Recovery::from),
            leader_age_ms: millis(answer.leader_age.as_ref()),
            feature_level: answer.feature_level,
            known_feature_level: answer.known_feature_level,
            health: answer.health.map(Health::from),
        }
    }
}

impl From<v1::Member> for Member {
    fn from(member: v1::Member) -> Self {
        Self {
            node_id: member.node_id,
            control_address: member.control_address,
            data_address: member.data_address,
            voter: member.voter,
            matched_index: member.matched_index,
            lag_entries: member.lag_entries,
            last_contact_ms: millis(member.last_contact.as_ref()),
        }
    }
}
