//! How this node treats requests.

use std::time::Duration;

use super::Section;

/// `[api]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// A replica passes writes on to the leader; otherwise it answers `NOT_LEADER`.
    pub forward_writes: bool,
    /// Largest gRPC message in bytes, either way.
    pub max_message_bytes: u64,
    /// How long a request may take if the caller sets no deadline, and at most.
    pub request_timeout: Duration,
}

impl ApiConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            forward_writes: section.flag("forward_writes", true),
            max_message_bytes: section.integer("max_message_bytes", 65_536..=67_108_864, Some(4_194_304)),
            request_timeout: section.millis("request_timeout_ms", 100..=120_000, 10_000),
        }
    }
}
