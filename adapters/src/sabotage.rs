//! Guards that can be taken away, so that the harness can prove that it would notice. This module is there only with
//! the cargo feature `sabotage`, which no ordinary build has.
//!
//! `ONESPEND_SABOTAGE` names the one guard that is gone.

use std::sync::OnceLock;

const VARIABLE: &str = "ONESPEND_SABOTAGE";

/// A guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The signer is called before the intent is committed (safety 3).
    IntentBeforeSignature,
    /// What is acknowledged is written to the disk only later (safety 29).
    SyncBeforeAck,
    /// A retry is a new request (safety, Idempotency).
    RequestCache,
    /// A replacement need not spend the anchor (safety 8); a rule of the core.
    AnchorRule,
    /// What expires takes exposed coins along (safety 5); a rule of the core.
    ExposedNeverExpires,
}

impl Guard {
    const ALL: [Self; 5] = [
        Self::IntentBeforeSignature,
        Self::SyncBeforeAck,
        Self::RequestCache,
        Self::AnchorRule,
        Self::ExposedNeverExpires,
    ];

    /// What the switch is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::IntentBeforeSignature => "sign-before-intent",
            Self::SyncBeforeAck => "ack-before-fsync",
            Self::RequestCache => "request-cache",
            Self::AnchorRule => "anchor-rule",
            Self::ExposedNeverExpires => "ttl-frees-exposed",
        }
    }

    /// Whether this guard is taken away.
    pub fn is_off(self) -> bool {
        static OFF: OnceLock<Option<Guard>> = OnceLock::new();
        *OFF.get_or_init(|| chosen().ok().flatten()) == Some(self)
    }
}

/// The guard that is taken away.
///
/// # Errors
/// What the variable names is none; the message has those that there are. The process must not start: it would pass
/// for one whose guard was missed.
pub fn chosen() -> Result<Option<Guard>, String> {
    let Ok(name) = std::env::var(VARIABLE) else { return Ok(None) };
    let found = Guard::ALL.into_iter().find(|guard| guard.name() == name);
    found.map(Some).ok_or_else(|| {
        let all = Guard::ALL.map(Guard::name).join(", ");
        format!("{VARIABLE}={name} is no guard that can be taken away; these are: {all}")
    })
}
