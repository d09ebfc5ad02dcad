//! What never may happen, and did.

use std::fmt;

use serde::Serialize;

/// Longest text of one violation, in characters.
const MAX_CHARS: usize = 2_000;

/// Who found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Oracle {
    /// The blocks.
    Chain,
    /// The signers' own logs.
    Signers,
    /// The callers' history.
    Callers,
    /// The health endpoints.
    Endpoints,
    /// The state hashes.
    Hashes,
    /// The processes: one ended that nobody ended, or did not end when it had to.
    Processes,
    /// The end: the cluster did not heal, or not everything settled.
    Recovery,
    /// The run itself: it missed a fault, or did too little to mean anything.
    Run,
}

impl Oracle {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Signers => "signers",
            Self::Callers => "callers",
            Self::Endpoints => "endpoints",
            Self::Hashes => "hashes",
            Self::Processes => "processes",
            Self::Recovery => "recovery",
            Self::Run => "run",
        }
    }
}

/// Something that never may happen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// Who found it.
    pub oracle: Oracle,
    /// What it is, for people.
    pub what: String,
}

impl Violation {
    /// A violation in words.
    pub fn new(oracle: Oracle, what: &str) -> Self {
        Self { oracle, what: what.chars().take(MAX_CHARS).collect() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.oracle.name(), self.what)
    }
}
