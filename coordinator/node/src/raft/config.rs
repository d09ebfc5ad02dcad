//! Settings of Raft, and what they mean for openraft.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

/// Entries of one message to a replica, at most.
const MAX_PAYLOAD_ENTRIES: u64 = 1_024;
/// Entries that are purged together, at least, where snapshots are not more frequent; the store deletes them in steps of its
/// own.
const PURGE_BATCH_ENTRIES: u64 = 512;
/// What sending the end of a snapshot and installing it may take.
const INSTALL_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);
/// A replica this many snapshot intervals behind gets a snapshot instead of entries. More than one, so that a snapshot
/// always brings it closer.
const LAG_INTERVALS: u64 = 2;

/// `[raft]`. The defaults suit a LAN; they were measured (raft-and-storage in the design pages).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftConfig {
    /// Pause between a leader's heartbeats: 5 ms to 10 s, 30 ms by default.
    pub heartbeat: Duration,
    /// Lower bound of the random part of a follower's patience: at least two heartbeats, 100 ms by default.
    pub election_timeout_min: Duration,
    /// A follower that heard nothing for this long, plus the random part, stands for election: above the minimum, 200 ms
    /// by default. Also how long a leader that lost its quorum may go on believing that it leads.
    pub election_timeout_max: Duration,
    /// Log entries after which a snapshot is made: 100 to 10 000 000, 20 000 by default.
    pub snapshot_every_entries: u64,
    /// Log entries kept behind a snapshot, so that a short absence needs no snapshot: 0 to 10 000 000, 2 000 by default.
    pub keep_log_entries: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(30),
            election_timeout_min: Duration::from_millis(100),
            election_timeout_max: Duration::from_millis(200),
            snapshot_every_entries: 20_000,
            keep_log_entries: 2_000,
        }
    }
}

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("raft settings: {0}")]
pub struct InvalidRaftConfig(String);

impl RaftConfig {
    /// openraft's settings.
    ///
    /// # Errors
    /// A value is out of its bounds, or two do not go together.
    pub(crate) fn for_openraft(&self, cluster_id: &str) -> Result<Config, InvalidRaftConfig> {
        self.check()?;
        let config = Config {
            cluster_name: cluster_id.to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_timeout_min),
            election_timeout_max: millis(self.election_timeout_max),
            enable_pre_vote: Some(true),
            // An isolated leader stops sending heartbeats for a while, so that replicas that it can still reach in one
            // direction elect another one. openraft demands at least twice the largest timeout.
            quorum_loss_probe_interval: Some(2 * millis(self.election_timeout_max)),
            install_snapshot_timeout: millis(INSTALL_SNAPSHOT_TIMEOUT),
            max_payload_entries: MAX_PAYLOAD_ENTRIES,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every_entries),
            max_in_snapshot_log_to_keep: self.keep_log_entries,
            replication_lag_threshold: LAG_INTERVALS * self.snapshot_every_entries + self.keep_log_entries,
            purge_batch_size: PURGE_BATCH_ENTRIES.min(self.snapshot_every_entries / 4),
            // A replica whose disk was wiped would lose what it acknowledged: it has to come back under a new id.
            allow_log_reversion: Some(false),
            // A leader that restarts stands for election like everybody: what it knows to be committed may lag behind what
            // it answered before, and its linearizable reads with it.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        config.validate().map_err(|error| InvalidRaftConfig(error.to_string()))
    }

    fn check(&self) -> Result<(), InvalidRaftConfig> {
        let refuse = |rule: &str| Err(InvalidRaftConfig(rule.to_owned()));
        let bounds = |value: Duration, max_s| (Duration::from_millis(5)..=Duration::from_secs(max_s)).contains(&value);
        if !bounds(self.heartbeat, 10)
            || !bounds(self.election_timeout_min, 60)
            || !bounds(self.election_timeout_max, 60)
        {
            return refuse("the heartbeat must be 5 ms to 10 s, the election timeouts 5 ms to 60 s");
        }
        if self.election_timeout_min < 2 * self.heartbeat {
            return refuse("election_timeout_min_ms must be at least twice heartbeat_ms");
        }
        if self.election_timeout_max <= self.election_timeout_min {
            return refuse("election_timeout_max_ms must be above election_timeout_min_ms");
        }
        if !(100..=10_000_000).contains(&self.snapshot_every_entries) || self.keep_log_entries > 10_000_000 {
            return refuse("snapshot_every_entries must be 100 to 10000000, keep_log_entries at most 10000000");
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let config = RaftConfig::default().for_openraft("demo").unwrap();
        assert_eq!(
            (config.heartbeat_interval, config.election_timeout_min, config.election_timeout_max),
            (30, 100, 200)
        );
        assert_eq!(config.snapshot_policy, SnapshotPolicy::LogsSinceLast(20_000));
        assert_eq!((config.max_in_snapshot_log_to_keep, config.max_payload_entries), (2_000, 1_024));
        assert!(config.replication_lag_threshold > 20_000);
        assert_eq!((config.enable_pre_vote, config.allow_log_reversion), (Some(true), Some(false)));
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let ms = Duration::from_millis;
        let good = RaftConfig::default();
        for bad in [
            RaftConfig { heartbeat: ms(1), ..good.clone() },
            RaftConfig { heartbeat: ms(51), ..good.clone() },
            RaftConfig { election_timeout_max: ms(100), ..good.clone() },
            RaftConfig { election_timeout_max: ms(60_001), ..good.clone() },
            RaftConfig { snapshot_every_entries: 99, ..good.clone() },
            RaftConfig { keep_log_entries: 10_000_001, ..good.clone() },
        ] {
            bad.for_openraft("demo").unwrap_err();
        }
    }
}
