//! Why a node did not answer, and what the caller may do.
//!
//! A timeout or a lost connection means *unknown*. Only an answer that says "not applied" means not applied.

use std::time::Duration;

/// Bitcoin Core's `RPC_INVALID_ADDRESS_OR_KEY`, which it also uses for unknown blocks and transactions.
pub(crate) const RPC_NOT_FOUND: i32 = -5;
/// Bitcoin Core's `RPC_MISC_ERROR`: an exception inside the node, or an index that is not ready.
pub(crate) const RPC_MISC: i32 = -1;
/// Bitcoin Core's `RPC_INVALID_PARAMETER`.
pub(crate) const RPC_INVALID_PARAMETER: i32 = -8;
/// Bitcoin Core's `RPC_IN_WARMUP`.
pub(crate) const RPC_IN_WARMUP: i32 = -28;

/// Codes that tell of the node's state, not of the request: not connected, initial download, out of memory, database
/// error, internal error.
const RPC_TRANSIENT: [i32; 6] = [RPC_MISC, -9, -10, -7, -20, -32603];

/// What went wrong between this service and its Bitcoin node. The RPC that failed is always known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The node is loading its block index and answers nothing else yet (RPC error -28).
    #[error("bitcoind is starting ({method}): {message}")]
    Starting {
        /// The RPC that was refused.
        method: &'static str,
        /// What the node says it is doing, such as "Verifying blocks…".
        message: String,
    },
    /// The node refused the credentials (HTTP 401 or 403), or it was not asked because the cookie file could not be read.
    #[error("{}", no_login(.method, *.asked, .detail))]
    Unauthorized {
        /// The RPC that was refused, or for which the credentials were wanted.
        method: &'static str,
        /// Whether the node was asked. If not, there were no credentials to ask with.
        asked: bool,
        /// Where the credentials came from and what is wrong; never the credentials.
        detail: String,
    },
    /// The request was not taken: the node's work queue is full, a scan is running, or earlier calls hold the
    /// connection.
    #[error("bitcoind is busy ({method}): {detail}")]
    Busy {
        /// The RPC that was not taken.
        method: &'static str,
        /// What is busy.
        detail: String,
    },
    /// No answer in time. The request may have had its effect.
    #[error("bitcoind did not answer {method} within {} ms; the outcome is unknown", .after.as_millis())]
    Timeout {
        /// The RPC without an answer.
        method: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// The connection failed or the answer was no JSON-RPC.
    #[error("connection to bitcoind failed in {method}: {detail}{}", if *.sent { "; the outcome is unknown" } else { "" })]
    Transport {
        /// The RPC that failed.
        method: &'static str,
        /// Whether any byte of the request may have reached the node. If not, nothing happened.
        sent: bool,
        /// The cause.
        detail: String,
    },
    /// The node answered with an error.
    #[error("bitcoind answered {method} with error {code}: {message}")]
    Rpc {
        /// The RPC that was refused.
        method: &'static str,
        /// Bitcoin Core's RPC error code (`src/rpc/protocol.h`).
        code: i32,
        /// Bitcoin Core's message.
        message: String,
    },
    /// The node answered with something that this program does not understand. The request had its effect.
    #[error("cannot understand bitcoind's answer to {method}: {detail}")]
    Decode {
        /// The RPC whose answer was not understood.
        method: &'static str,
        /// What was wrong with it.
        detail: String,
    },
    /// The settings cannot work. Only when an implementation is made.
    #[error("bitcoind settings: {detail}")]
    Config {
        /// Which setting, and why.
        detail: String,
    },
}

fn no_login(method: &str, asked: bool, detail: &str) -> String {
    if asked {
        format!("bitcoind refused the credentials for {method}: {detail}")
    } else {
        format!("bitcoind was not asked: {detail}")
    }
}

/// What a caller may do after a [`ChainError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing was done. The same call may succeed after a pause.
    Later,
    /// It may have been done. Repeat only what is harmless to repeat: reads, and broadcasting the same bytes.
    IfHarmless,
    /// The same call will fail again until a program or a setting changes.
    Never,
}

impl ChainError {
    /// Whether the request may have had its effect although no answer says so.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Transport { sent: true, .. } | Self::Decode { .. })
    }

    /// What a caller may do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Starting { .. } | Self::Unauthorized { .. } | Self::Busy { .. } => Retry::Later,
            Self::Timeout { .. } => Retry::IfHarmless,
            Self::Transport { sent, .. } => {
                if *sent {
                    Retry::IfHarmless
                } else {
                    Retry::Later
                }
            }
            Self::Rpc { code, .. } => {
                if RPC_TRANSIENT.contains(code) {
                    Retry::Later
                } else {
                    Retry::Never
                }
            }
            Self::Decode { .. } | Self::Config { .. } => Retry::Never,
        }
    }

    /// Whether the node answered that it does not know the block or transaction.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Rpc { code: RPC_NOT_FOUND, .. })
    }

    /// A stable, lower-case word for metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Busy { .. } => "busy",
            Self::Timeout { .. } => "timeout",
            Self::Transport { .. } => "transport",
            Self::Rpc { .. } => "rpc",
            Self::Decode { .. } => "decode",
            Self::Config { .. } => "config",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// safety 27, towards bitcoind.
    #[test]
    fn only_answers_and_unsent_requests_are_known() {
        let timeout = ChainError::Timeout { method: "x", after: Duration::from_millis(1) };
        assert!(timeout.is_unknown());
        assert_eq!(timeout.retry(), Retry::IfHarmless);

        let transport = |sent| ChainError::Transport { method: "x", sent, detail: String::new() };
        assert!(transport(true).is_unknown());
        assert!(!transport(false).is_unknown());
        assert_eq!(transport(false).retry(), Retry::Later);

        let rpc = |code| ChainError::Rpc { method: "x", code, message: String::new() };
        assert!(!rpc(-26).is_unknown());
        assert_eq!(rpc(-26).retry(), Retry::Never);
        assert_eq!(rpc(-32603).retry(), Retry::Later);
        assert!(rpc(-5).is_not_found());
    }

    /// A node that does not run refuses nobody.
    #[test]
    fn credentials_that_are_not_there_were_not_refused() {
        let of = |asked| ChainError::Unauthorized { method: "getblock", asked, detail: "cookie".to_owned() };
        assert_eq!(of(true).to_string(), "bitcoind refused the credentials for getblock: cookie");
        assert_eq!(of(false).to_string(), "bitcoind was not asked: cookie");
        assert_eq!((of(false).retry(), of(false).is_unknown()), (Retry::Later, false));
    }

    #[test]
    fn an_unknown_outcome_says_so_in_words() {
        let lost = ChainError::Transport { method: "sendrawtransaction", sent: true, detail: "reset".to_owned() };
        assert_eq!(
            lost.to_string(),
            "connection to bitcoind failed in sendrawtransaction: reset; the outcome is unknown"
        );
    }
}
