//! What is seen of each request: a span under the caller's trace, which says who asks for what; how long it took, by
//! method and code; and a line of the log at its end. A request that its caller gives up is dropped where it stands, and
//! is seen as well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onespend_core::ids::{CallerId, PaymentId};
use onespend_policies::Action;
use onespend_proto::LEADER_METADATA_KEY;
use tonic::{Code, Request, Response, Status};
use tracing::field::Empty;
use tracing::{Span, debug, info_span};

use super::about::About;
use crate::{metrics, telemetry};

/// Requests that this process has answered.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
/// Of those, the ones that ended with a code for which neither the caller nor the cluster's condition is to blame.
static DEFECTS: AtomicU64 = AtomicU64::new(0);

/// What this process has answered since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Requests.
    pub(crate) answered: u64,
    /// Those that ended with INTERNAL, UNKNOWN or DATA_LOSS.
    pub(crate) defects: u64,
}

/// The counts now. Of a request that ends at this moment, one may have it and the other not yet.
pub(crate) fn answered() -> Answered {
    // In this order: a defect is counted as answered before.
    let defects = DEFECTS.load(Ordering::Acquire);
    Answered { answered: ANSWERED.load(Ordering::Acquire), defects }
}

fn count(code: Code) {
    ANSWERED.fetch_add(1, Ordering::Release);
    if matches!(code, Code::Internal | Code::Unknown | Code::DataLoss) {
        DEFECTS.fetch_add(1, Ordering::Release);
    }
}

/// tonic counts the caller's time from a moment before this service sees the request.
const HEAD_START: Duration = Duration::from_millis(10);

/// The longest id that a request may have is that of a payment.
const MAX_ID_BYTES: usize = PaymentId::MAX_LEN;

/// A request that is under way. Dropped without an end, it was given up.
pub(super) struct Observed {
    action: Action,
    started: Instant,
    timeout: Option<Duration>,
    span: Span,
    ended: bool,
}

/// Begins to watch a request. Who calls is not known yet: see [`called_by`].
pub(super) fn start<T: About>(action: Action, request: &Request<T>) -> Observed {
    let names = request.get_ref().names();
    // Nothing of this is made into text unless somebody listens.
    let span = info_span!(
        "grpc",
        otel.name = action.name(),
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.method = action.name(),
        rpc.grpc.status_code = Empty,
        caller = Empty,
        request_id = shown(names.request_id),
        wallet_id = shown(names.wallet_id),
        payment_id = shown(names.payment_id),
        reservation_id = shown(names.reservation_id),
    );
    telemetry::accept_parent(&span, request.metadata());
    Observed { action, started: Instant::now(), timeout: timeout(request), span, ended: false }
}

/// Says on the span of the request that is worked on whose it is.
pub(super) fn called_by(caller: &CallerId) {
    Span::current().record("caller", caller.as_str());
}

/// An id as log and traces show it. What is too long to be one may be megabytes; the refusal says what is wrong with it.
fn shown(id: &str) -> Option<&str> {
    (1..=MAX_ID_BYTES).contains(&id.len()).then_some(id)
}

impl Observed {
    /// The span that the work belongs into.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Notes how it ended, and passes the answer on.
    pub(super) fn end<T>(mut self, answer: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
        match &answer {
            Ok(_) => self.note(Code::Ok, None),
            Err(status) => self.note(status.code(), Some(status.message())),
        }
        answer
    }

    fn note(&mut self, code: Code, refusal: Option<&str>) {
        self.ended = true;
        let (method, took) = (self.action.name(), self.started.elapsed());
        self.span.record("rpc.grpc.status_code", code as i32);
        count(code);
        metrics::grpc_request(method, code, took);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        debug!(parent: &self.span, method, code = ?code, took_us, refusal, "request ended");
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let late = self.timeout.is_some_and(|timeout| self.started.elapsed() + HEAD_START >= timeout);
        self.note(if late { Code::DeadlineExceeded } else { Code::Cancelled }, None);
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
    #![allow(clippy::unwrap_used, clippy::panic)]
    use onespend_proto::v1;

    use super::*;
    use crate::telemetry::tests::logged;
    use crate::telemetry::{LogConfig, LogFormat};

    fn with(header: &'static str) -> Request<v1::GetPaymentRequest> {
        let mut request = Request::new(v1::GetPaymentRequest::default());
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

    /// What the metrics have of one request: its code and how often it was seen.
    fn seen(work: impl FnOnce()) -> Vec<String> {
        let metrics = metrics::Metrics::new().unwrap();
        metrics.record(work);
        let count = "onespend_grpc_request_duration_seconds_count{method=\"GetPayment\",code=";
        let lines = metrics.render();
        lines.lines().filter_map(|line| line.strip_prefix(count)).map(str::to_owned).collect()
    }

    #[test]
    fn a_request_that_is_given_up_is_seen_too() {
        let given_up = seen(|| drop(start(Action::GetPayment, &with("1H"))));
        assert_eq!(given_up, ["\"CANCELLED\"} 1"]);
        let too_late = seen(|| drop(start(Action::GetPayment, &with("1n"))));
        assert_eq!(too_late, ["\"DEADLINE_EXCEEDED\"} 1"]);
        let no_header = Request::new(v1::GetPaymentRequest::default());
        let without_deadline = seen(|| drop(start(Action::GetPayment, &no_header)));
        assert_eq!(without_deadline, ["\"CANCELLED\"} 1"]);
    }

    #[test]
    fn a_request_that_ends_is_seen_once() {
        let ended = seen(|| {
            let refused = start(Action::GetPayment, &with("1n")).end::<()>(Err(Status::not_found("no")));
            assert_eq!(refused.unwrap_err().code(), Code::NotFound);
        });
        assert_eq!(ended, ["\"NOT_FOUND\"} 1"]);
    }

    fn order() -> v1::CreatePaymentRequest {
        v1::CreatePaymentRequest {
            request_id: "q-1".to_owned(),
            wallet_id: "hot".to_owned(),
            payment_id: "p-1".to_owned(),
            ..Default::default()
        }
    }

    /// What the log has, by this filter, of an order of `client/payouts`.
    fn lines(filter: &str, order: v1::CreatePaymentRequest, end: impl FnOnce(Observed)) -> Vec<serde_json::Value> {
        let text = logged(&LogConfig { format: LogFormat::Json, filter: filter.to_owned() }, || {
            let observed = start(Action::CreatePayment, &Request::new(order));
            observed.span().in_scope(|| called_by(&CallerId::parse("client/payouts").unwrap()));
            end(observed);
        });
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn accept(observed: Observed) {
        observed.end(Ok(Response::new(()))).unwrap();
    }

    #[test]
    fn a_request_leaves_one_line_with_who_asked_for_what_and_how_it_ended() {
        let log = lines("debug", order(), accept);
        let [line] = log.as_slice() else { panic!("{log:?}") };
        assert_eq!(line["level"], "DEBUG");
        assert_eq!(line["message"], "request ended");
        assert_eq!(line["method"], "CreatePayment");
        assert_eq!(line["code"], "Ok");
        assert!(line["took_us"].is_u64() && line["refusal"].is_null(), "{line}");
        let span = &line["span"];
        assert_eq!(span["caller"], "client/payouts");
        assert_eq!(span["request_id"], "q-1");
        assert_eq!(span["wallet_id"], "hot");
        assert_eq!(span["payment_id"], "p-1");
        assert!(span["reservation_id"].is_null(), "{span}");
        assert!(lines("info", order(), accept).is_empty());
    }

    #[test]
    fn what_is_refused_or_given_up_leaves_one_line_too() {
        let refused = lines("debug", order(), |observed| {
            observed.end::<()>(Err(Status::not_found("there is none"))).unwrap_err();
        });
        let given_up = lines("debug", order(), drop);
        let [refused, given_up] = [refused, given_up].map(|log| {
            let [line] = log.as_slice() else { panic!("{log:?}") };
            assert_eq!(line["message"], "request ended");
            assert_eq!(line["span"]["caller"], "client/payouts");
            line.clone()
        });
        assert_eq!((refused["code"].as_str(), refused["refusal"].as_str()), (Some("NotFound"), Some("there is none")));
        assert_eq!((given_up["code"].as_str(), given_up["refusal"].as_str()), (Some("Cancelled"), None));
    }

    #[test]
    fn an_id_that_is_too_long_to_be_one_is_not_written_down() {
        let named = |bytes: usize| {
            let order = v1::CreatePaymentRequest { payment_id: "p".repeat(bytes), ..order() };
            lines("debug", order, accept)[0]["span"]["payment_id"].as_str().map(str::len)
        };
        assert_eq!(named(MAX_ID_BYTES), Some(MAX_ID_BYTES));
        assert_eq!(named(MAX_ID_BYTES + 1), None);
    }

    #[test]
    fn only_codes_that_nobody_else_is_to_blame_for_are_defects() {
        let before = answered();
        for code in [Code::Internal, Code::DataLoss, Code::Unknown, Code::Unavailable, Code::NotFound, Code::Ok] {
            count(code);
        }
        let after = answered();
        // Other tests may count meanwhile.
        assert!(after.answered >= before.answered + 6);
        assert!(after.defects >= before.defects + 3);
        assert!(after.defects <= after.answered);
    }

    #[test]
    fn a_malformed_deadline_is_no_deadline() {
        for bad in ["", "S", "5", "123456789S", "5X", "-5S", "5.0S"] {
            assert_eq!(timeout(&with(bad)), None, "{bad}");
        }
    }
}
