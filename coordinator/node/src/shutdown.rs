//! The end of the process.

use std::time::Duration;

use crate::config::Section;

/// `[shutdown]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long requests in flight may take to finish.
    pub drain: Duration,
    /// When the process ends whatever still hangs.
    pub deadline: Duration,
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            drain: section.millis("drain_ms", 0..=300_000, 5_000),
            deadline: section.millis("deadline_ms", 100..=600_000, 15_000),
        }
    }
}
