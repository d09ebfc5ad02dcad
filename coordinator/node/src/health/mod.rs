//! What load balancers, Prometheus and people may know, over HTTP.

use crate::config::Section;

/// `[health]`: when a node counts as healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// A replica further behind the leader's commit than this is not for reading.
    pub max_lag_entries: u64,
    /// A bitcoind further behind its headers, or the cluster, than this is out of sync.
    pub max_lag_blocks: u32,
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            max_lag_entries: section.integer("max_lag_entries", 0..=1_000_000_000, Some(1_000)),
            max_lag_blocks: section.integer32("max_lag_blocks", 0..=1_000, 2),
        }
    }
}
