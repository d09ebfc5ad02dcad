//! Timing and housekeeping of the replicated log.

use std::time::Duration;

use super::Section;
use crate::raft::RaftConfig;

/// Reads the section. What is not in it is as [`RaftConfig`] has it by default.
pub(super) fn read(section: &mut Section<'_>) -> RaftConfig {
    let default = RaftConfig::default();
    let (min, max) = (default.election_timeout_min, default.election_timeout_max);
    let (every, keep) = (default.snapshot_every_entries, default.keep_log_entries);
    RaftConfig {
        heartbeat: section.millis("heartbeat_ms", 5..=10_000, millis(default.heartbeat)),
        election_timeout_min: section.millis("election_timeout_min_ms", 20..=60_000, millis(min)),
        election_timeout_max: section.millis("election_timeout_max_ms", 20..=60_000, millis(max)),
        snapshot_every_entries: section.integer("snapshot_every_entries", 100..=10_000_000, Some(every)),
        keep_log_entries: section.integer("keep_log_entries", 0..=10_000_000, Some(keep)),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
