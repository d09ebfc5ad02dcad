//! What is seen of each request: a span under the caller's trace, and how long it took by method and code.

use std::time::{Duration, Instant};

use onespend_policies::Action;
use onespend_proto::LEADER_METADATA_KEY;
use tonic::{Code, Request, Response, Status};
use tracing::{Span, debug, info_span};

use crate::{metrics, telemetry};

/// A request that is under way.
pub(super) struct Observed {
    action: Action,
    started: Instant,
    span: Span,
}

/// Begins to watch a request.
pub(super) fn start<T>(action: Action, request: &Request<T>) -> Observed {
    let span = info_span!(
        "grpc",
        otel.name = action.name(),
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.method = action.name(),
        rpc.grpc.status_code = tracing::field::Empty,
    );
    telemetry::accept_parent(&span, request.metadata());
    Observed { action, started: Instant::now(), span }
}

impl Observed {
    /// The span that the work belongs into.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Notes how it ended, and passes the answer on.
    pub(super) fn end<T>(self, answer: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.span.record("rpc.grpc.status_code", code as i32);
        metrics::grpc_request(self.action.name(), code, self.started.elapsed());
        if let Err(status) = &answer {
            let _entered = self.span.enter();
            debug!(method = self.action.name(), code = ?code, message = status.message(), "request refused");
        }
        answer
    }
}

/// The answer of the leader that a request was passed on to, with the leader's address for next time.
pub(super) fn name_leader<T>(mut answer: Response<T>, leader: &str) -> Response<T> {
    if let Ok(address) = leader.parse() {
        answer.metadata_mut().insert(LEADER_METADATA_KEY, address);
    }
    answer
}

/// How long the caller waits, from the `grpc-timeout` header (gRPC over HTTP/2): up to 8 digits and a unit.
pub(super) fn timeout<T>(request: &Request<T>) -> Option<Duration> {
    let header = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(header: &'static str) -> Request<()> {
        let mut request = Request::new(());
        if let Ok(value) = header.parse() {
            request.metadata_mut().insert("grpc-timeout", value);
        }
        request
    }

    #[test]
    fn the_callers_deadline_is_read_in_every_unit() {
        assert_eq!(timeout(&with("5S")), Some(Duration::from_secs(5)));
        assert_eq!(timeout(&with("2M")), Some(Duration::from_mins(2)));
        assert_eq!(timeout(&with("250m")), Some(Duration::from_millis(250)));
        assert_eq!(timeout(&with("99999999n")), Some(Duration::from_nanos(99_999_999)));
    }

    #[test]
    fn a_malformed_deadline_is_no_deadline() {
        for bad in ["", "S", "5", "123456789S", "5X", "-5S", "5.0S"] {
            assert_eq!(timeout(&with(bad)), None, "{bad}");
        }
    }
}
