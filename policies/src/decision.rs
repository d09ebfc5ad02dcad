//! A policy's two answers: a permit, or who was refused what.

use crate::{Action, Resource, Role, Subject};

/// Decides who may do what.
pub trait Policy: Send + Sync + 'static {
    /// May `subject` perform `action` on `resource`?
    ///
    /// # Errors
    /// [`Denied`]; asking again changes nothing until the policy changes.
    fn authorize(&self, subject: &Subject<'_>, action: Action, resource: &Resource<'_>) -> Result<Authorized, Denied>;
}

/// Proof that a policy allowed one caller one action. Only this crate makes it; it cannot be
/// cloned, so each action needs a decision of its own.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that nobody demands guards nothing"]
pub struct Authorized {
    caller: String,
    action: Action,
    any_owner: bool,
}

impl Authorized {
    pub(crate) fn new(subject: &Subject<'_>, action: Action, any_owner: bool) -> Self {
        Self { caller: subject.caller.0.to_owned(), action, any_owner }
    }

    /// Who was allowed, such as `client/payouts`.
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// What was allowed.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Whether it holds for what others own too. Who owns what the replicated rules know, and
    /// check, in the same step as the change.
    pub fn any_owner(&self) -> bool {
        self.any_owner
    }
}

/// Why an action is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller's role does not include the action.
    #[error("{caller} is {role} and may not call {action}")]
    Role {
        /// The caller's id.
        caller: String,
        /// Its role.
        role: Role,
        /// What it asked for.
        action: Action,
    },
}

impl Denied {
    /// What [`Denied::reason`] may be.
    pub const REASONS: [&'static str; 1] = ["ROLE"];

    /// The machine-readable reason in `google.rpc.ErrorInfo`, with code `PERMISSION_DENIED`.
    pub fn reason(&self) -> &'static str {
        let [role] = Self::REASONS;
        match self {
            Self::Role { .. } => role,
        }
    }
}
