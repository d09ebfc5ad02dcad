//! `[backup]`.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Section;

/// `[backup]`: what this node does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where scheduled backups go; none are made without it.
    pub folder: Option<PathBuf>,
    /// From one scheduled backup to the next.
    pub every: Duration,
    /// How many scheduled backups of this node are kept.
    pub keep: usize,
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            folder: section.optional_path("folder"),
            every: section.millis("every_ms", 1_000..=2_592_000_000, 86_400_000),
            keep: usize::try_from(section.integer("keep", 1..=10_000, Some(14))).unwrap_or(usize::MAX),
        }
    }
}
