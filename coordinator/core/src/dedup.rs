//! Request id → earlier outcome: a retry gets the same answer, also after a failover (safety, Idempotency).

use minicbor::{Decode, Encode};

use crate::apply::Context;
use crate::command::Request;
use crate::ids::LogIndex;
use crate::outcome::{Outcome, Rejection};
use crate::state::State;

/// What a request led to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CachedResult {
    /// SHA-256 of what was asked.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// The entry that decided it; the oldest results are forgotten first.
    #[n(1)]
    pub at: LogIndex,
    /// The answer.
    #[n(2)]
    pub outcome: Outcome,
}

/// The answer that a request got before, or a refusal when its id was used for something else.
pub fn earlier(state: &State, request: &Request) -> Option<Outcome> {
    let cached = state.cached(&request.key)?;
    if cached.digest == request.digest {
        Some(cached.outcome.clone())
    } else {
        Some(Outcome::Rejected(Rejection::RequestIdReused))
    }
}

/// Remembers an answer. A refusal that says nothing about the request itself is not its answer.
pub(crate) fn remember(state: &mut State, ctx: &Context, request: &Request, outcome: &Outcome) {
    if matches!(outcome, Outcome::Rejected(rejection) if rejection.is_transient()) {
        return;
    }
    let result = CachedResult { digest: request.digest, at: ctx.index, outcome: outcome.clone() };
    state.remember(request.key.clone(), result);
}
