//! What load balancers are told of a node, and the checks of its own that do not pass.

use onespend_proto::v1;
use serde::Serialize;

use super::set;
use crate::cli::words::Word as _;
use crate::health::Reason;

/// `v1::NodeHealth`.
#[derive(Debug, Serialize)]
pub struct Health {
    primary: Answer,
    replica: Answer,
    ready: Answer,
    pub(super) failing_checks: Vec<FailingCheck>,
}

/// `v1::HealthAnswer`.
#[derive(Debug, Serialize)]
pub struct Answer {
    ok: bool,
    reason: Option<String>,
}

/// `v1::FailingCheck`.
#[derive(Debug, Serialize)]
pub struct FailingCheck {
    pub(super) name: String,
    pub(super) purpose: &'static str,
    pub(super) value: String,
}

impl From<v1::NodeHealth> for Health {
    fn from(health: v1::NodeHealth) -> Self {
        let answer = |answer: Option<v1::HealthAnswer>| Answer::from(answer.unwrap_or_default());
        Self {
            primary: answer(health.primary),
            replica: answer(health.replica),
            ready: answer(health.ready),
            failing_checks: health.failing_checks.into_iter().map(FailingCheck::from).collect(),
        }
    }
}

impl From<v1::HealthAnswer> for Answer {
    fn from(answer: v1::HealthAnswer) -> Self {
        Self { ok: answer.ok, reason: set(answer.reason) }
    }
}

impl From<v1::FailingCheck> for FailingCheck {
    fn from(check: v1::FailingCheck) -> Self {
        Self { purpose: check.purpose().word(), name: check.name, value: check.value }
    }
}

impl Health {
    /// The best that balancers are told of it, in a word.
    pub(super) fn word(&self) -> &'static str {
        let answers = [("primary", &self.primary), ("replica", &self.replica), ("ready", &self.ready)];
        answers.into_iter().find(|(_, answer)| answer.ok).map_or("no", |(word, _)| word)
    }

    /// Whether a node that does not lead hears a leader: it says yes where that is needed, or no for what comes later.
    pub(super) fn hears_a_leader(&self) -> bool {
        let later = [Reason::AppliedLag, Reason::CheckFailed].map(Reason::word);
        let of = |answer: &Answer| answer.reason.as_deref().is_some_and(|reason| later.contains(&reason));
        [&self.replica, &self.ready].into_iter().any(|answer| answer.ok || of(answer))
    }

    /// What each path answers, where a node is neither primary nor replica, or is not ready; `None` if all is well.
    pub(super) fn complaint(&self) -> Option<String> {
        let serves = self.primary.ok || self.replica.ok;
        let paths = [("/primary", &self.primary), ("/replica", &self.replica), ("/readyz", &self.ready)];
        let told = paths.map(|(path, answer)| format!("{path} {}", answer.word()));
        (!serves || !self.ready.ok).then(|| told.join(", "))
    }
}

impl Answer {
    fn word(&self) -> &str {
        if self.ok { "200" } else { self.reason.as_deref().unwrap_or("503") }
    }
}
