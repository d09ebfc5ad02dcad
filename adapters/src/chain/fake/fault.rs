//! Failures on demand.

use std::time::Duration;

use crate::chain::ChainError;

/// What is to go wrong in a call to the fake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The node is loading its blocks: [`ChainError::Starting`]. Not applied.
    Starting,
    /// Credentials are refused. Not applied.
    Unauthorized,
    /// Nobody listens. Not applied.
    Refused,
    /// [`ChainError::Timeout`] at once, and the call was *not* applied.
    Timeout,
    /// [`ChainError::Timeout`] at once, and the call *was* applied.
    LostAnswer,
    /// No answer until [`clear_faults`](super::FakeChain::clear_faults) or the timeout, then
    /// [`ChainError::Timeout`]. Not applied.
    Hang,
}

struct Injection {
    method: Option<&'static str>,
    fault: Fault,
    left: u32,
}

#[derive(Default)]
pub(super) struct Faults {
    waiting: Vec<Injection>,
    clearings: u64,
}

impl Faults {
    pub(super) fn inject(&mut self, method: Option<&'static str>, fault: Fault, times: u32) {
        self.waiting.push(Injection { method, fault, left: times });
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.clearings += 1;
    }

    /// How often faults have been cleared.
    pub(super) fn clearings(&self) -> u64 {
        self.clearings
    }

    /// The fault for this call, which is used up by it.
    pub(super) fn take(&mut self, method: &'static str) -> Option<Fault> {
        let matches = |i: &Injection| i.left > 0 && i.method.is_none_or(|m| m == method);
        let injection = self.waiting.iter_mut().find(|injection| matches(injection))?;
        // u32::MAX stands for ever.
        if injection.left != u32::MAX {
            injection.left -= 1;
        }
        let fault = injection.fault;
        self.waiting.retain(|injection| injection.left > 0);
        Some(fault)
    }
}

impl Fault {
    pub(super) fn error(self, method: &'static str, after: Duration) -> ChainError {
        match self {
            Self::Starting => ChainError::Starting { method, message: "Loading block index…".into() },
            Self::Unauthorized => ChainError::Unauthorized { method, asked: true, detail: "the fake".into() },
            Self::Refused => {
                ChainError::Transport { method, sent: false, detail: "cannot connect: connection refused".into() }
            }
            Self::Timeout | Self::LostAnswer | Self::Hang => ChainError::Timeout { method, after },
        }
    }
}
