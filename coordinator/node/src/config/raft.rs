//! Timing and housekeeping of the replicated log.

use std::time::Duration;

use super::Section;

/// `[raft]`. The defaults suit a LAN; they were measured (raft-and-storage in the design pages).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftConfig {
    /// Pause between a leader's heartbeats.
    pub heartbeat: Duration,
    /// Lower bound of the random part of a follower's patience.
    pub election_timeout_min: Duration,
    /// A follower that heard nothing for this long, plus the random part, stands for election.
    pub election_timeout_max: Duration,
    /// Log entries after which a snapshot is taken.
    pub snapshot_every_entries: u64,
    /// Log entries kept behind a snapshot, so that a short absence needs no snapshot.
    pub keep_log_entries: u64,
}

impl RaftConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            heartbeat: section.millis("heartbeat_ms", 5..=10_000, 30),
            election_timeout_min: section.millis("election_timeout_min_ms", 20..=60_000, 100),
            election_timeout_max: section.millis("election_timeout_max_ms", 20..=60_000, 200),
            snapshot_every_entries: section.integer("snapshot_every_entries", 100..=10_000_000, Some(20_000)),
            keep_log_entries: section.integer("keep_log_entries", 0..=10_000_000, Some(2_000)),
        }
    }
}
