//! What a call can end with, decoded from `google.rpc.Status`.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt;

use crate::reason;

/// Most addresses that one sentence names.
const MAX_NAMED: usize = 5;

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The configuration cannot work; nothing was sent.
    #[error("client configuration: {0}")]
    Config(String),
    /// The service refused the request.
    #[error("{0}")]
    Rejected(Box<Rejection>),
    /// No node could be connected to within the deadline; nothing was sent, so nothing was applied.
    #[error("{}: {last} ({})", unreached(.addresses), tried(*.tries))]
    Unreachable {
        /// Where the nodes are, as far as they are known: the endpoints, and those that nodes named.
        addresses: Vec<String>,
        /// How often it was tried.
        tries: u32,
        /// What went wrong last.
        last: String,
    },
    /// The deadline passed and at least one try ended without an answer. A mutation may have been applied or may be
    /// later: ask again with the same request id.
    #[error("{}", unanswered(.request_id, *.tries, .last))]
    Unknown {
        /// The request id to ask again with; empty for a read.
        request_id: String,
        /// How often it was tried.
        tries: u32,
        /// What went wrong last.
        last: String,
    },
}

/// Who could not be reached: `10.0.0.1:7800 could not be reached`. Of many addresses the first are named.
pub fn unreached(addresses: &[String]) -> String {
    match addresses {
        [] => "no node could be reached".to_owned(),
        [one] => format!("{one} could not be reached"),
        all => {
            let (named, others) = all.split_at(all.len().min(MAX_NAMED));
            let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            format!("none of {}{more} could be reached", named.join(", "))
        }
    }
}

/// Of a read nobody asks whether it was applied.
fn unanswered(request_id: &str, tries: u32, last: &str) -> String {
    match request_id {
        "" => format!("no answer in {}: {last}", tried(tries)),
        id => format!("outcome unknown after {} (request id {id:?}): {last}", tried(tries)),
    }
}

/// `1 try`, `2 tries`.
pub fn tried(tries: u32) -> String {
    format!("{tries} {}", if tries == 1 { "try" } else { "tries" })
}

impl ClientError {
    /// The refusal, if it is one.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Config(_) | Self::Unreachable { .. } | Self::Unknown { .. } => None,
        }
    }

    /// Whether it is a refusal for this reason, one of [`crate::reason`].
    pub fn is(&self, reason: &str) -> bool {
        self.rejection().is_some_and(|rejection| rejection.reason == reason)
    }

    /// Whether a mutation may have been applied all the same.
    pub fn may_be_applied(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            Self::Rejected(rejection) => rejection.after_unknown,
            Self::Config(_) | Self::Unreachable { .. } => false,
        }
    }
}

/// A refusal: the try that it answers was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The gRPC code.
    pub code: Code,
    /// One of [`crate::reason`]; empty when the answer carries no `ErrorInfo` of this service.
    pub reason: String,
    /// For people to read.
    pub message: String,
    /// Facts, by the keys that errors.proto names.
    pub metadata: BTreeMap<String, String>,
    /// Every faulty field of an INVALID_ARGUMENT.
    pub field_violations: Vec<FieldViolation>,
    /// When the service suggests to ask again.
    pub retry_after: Option<Duration>,
    /// An earlier try of the same call ended without an answer and may yet be applied, unless the service decided
    /// this refusal in its log. To be sure, ask again with the same request id.
    pub after_unknown: bool,
}

/// A faulty field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, such as `recipients[2].address`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Rejection {
    /// Reads the details of a status. Details of other services, or broken ones, count as missing.
    pub fn from_status(status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == reason::DOMAIN);
        let (reason, metadata) = info.map_or_else(Default::default, |info| (info.reason, info.metadata));
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        Self {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            metadata: metadata.into_iter().collect(),
            field_violations: violations
                .into_iter()
                .map(|fault| FieldViolation { field: fault.field, description: fault.description })
                .collect(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            after_unknown: false,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_str() {
            "" => write!(f, "{:?}: {}", self.code, self.message)?,
            reason => write!(f, "{reason}: {}", self.message)?,
        }
        // The message often says it already.
        let faults = self.field_violations.iter().map(|fault| format!("{}: {}", fault.field, fault.description));
        faults.filter(|fault| !self.message.contains(fault.as_str())).try_for_each(|fault| write!(f, "; {fault}"))
    }
}

/// What a failed try means for the call.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Not applied; this node does not lead. The address of the one that does, if it said so.
    NotLeader(Rejection),
    /// Not applied, and worth another try after a while.
    Busy(Rejection),
    /// Not applied, and final.
    Refused(Rejection),
    /// Never sent.
    NotSent(String),
    /// Sent, and then no answer.
    NoAnswer(String),
}

impl Verdict {
    pub(super) fn of(status: &Status) -> Self {
        if is_connect_error(status) {
            return Self::NotSent(innermost(status).map_or_else(|| describe(status), ToString::to_string));
        }
        match status.code() {
            // `Ok` cannot be an error; whoever sends it did not say what became of the request.
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unavailable
            // tonic's own word for an answer that is larger than this client reads: the request has been decided.
            | Code::OutOfRange
            | Code::DataLoss => Self::NoAnswer(describe(status)),
            Code::FailedPrecondition
            | Code::Aborted
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::NotFound
            | Code::Unimplemented
            | Code::Unauthenticated => Self::of_refusal(Rejection::from_status(status)),
            Code::ResourceExhausted => {
                let rejection = Rejection::from_status(status);
                // Without our word it is also what libraries and proxies make of a connection that ended on a full
                // queue, or of an answer that was too large: the request may have been decided by then.
                let spoken = !rejection.reason.is_empty();
                if spoken { Self::of_refusal(rejection) } else { Self::NoAnswer(describe(status)) }
            }
        }
    }

    fn of_refusal(rejection: Rejection) -> Self {
        if rejection.reason == reason::NOT_LEADER {
            Self::NotLeader(rejection)
        } else if rejection.reason == reason::OVERLOADED || rejection.retry_after.is_some() {
            Self::Busy(rejection)
        } else {
            Self::Refused(rejection)
        }
    }
}

/// Whether the connection was never made, so that no byte of the request left.
fn is_connect_error(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Code, reason, message and the innermost cause: "transport error" alone helps nobody.
fn describe(status: &Status) -> String {
    let info = status.get_details_error_info().map(|info| format!(" {}", info.reason)).unwrap_or_default();
    let text = format!("{:?}{info}: {}", status.code(), status.message());
    match innermost(status) {
        Some(error) => format!("{text} ({error})"),
        None => text,
    }
}

/// The cause of all causes: `Connection refused (os error 111)`.
fn innermost(status: &Status) -> Option<&(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |&error| error.source()).last()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str, retry: Option<Duration>) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, reason::DOMAIN, HashMap::from([("k".to_owned(), "v".to_owned())]));
        details.add_bad_request_violation("ttl", "too long");
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        Status::with_error_details(code, "no", details)
    }

    #[test]
    fn details_are_decoded() {
        let wait = Some(Duration::from_millis(250));
        let got = Rejection::from_status(&status(Code::InvalidArgument, reason::FIELD_INVALID, wait));
        assert_eq!((got.code, got.reason.as_str()), (Code::InvalidArgument, reason::FIELD_INVALID));
        assert_eq!(got.metadata.get("k").map(String::as_str), Some("v"));
        assert_eq!(got.field_violations[0].field, "ttl");
        assert_eq!(got.retry_after, wait);
        assert_eq!(got.to_string(), "FIELD_INVALID: no; ttl: too long");
        let said = Rejection { message: "ttl: too long".to_owned(), ..got };
        assert_eq!(said.to_string(), "FIELD_INVALID: ttl: too long");
    }

    #[test]
    fn one_try_is_no_tries() {
        let last = || "silence".to_owned();
        let unreached = |tries| ClientError::Unreachable { addresses: Vec::new(), tries, last: last() }.to_string();
        let unknown = |request_id: &str, tries| {
            ClientError::Unknown { request_id: request_id.to_owned(), tries, last: last() }.to_string()
        };
        assert_eq!(unreached(1), "no node could be reached: silence (1 try)");
        assert_eq!(unreached(2), "no node could be reached: silence (2 tries)");
        assert_eq!(unknown("", 1), "no answer in 1 try: silence");
        assert_eq!(unknown("a", 1), "outcome unknown after 1 try (request id \"a\"): silence");
        assert_eq!(unknown("a", 3), "outcome unknown after 3 tries (request id \"a\"): silence");
    }

    #[test]
    fn who_could_not_be_reached_is_named_up_to_a_bound() {
        let error = |count: u16| {
            let addresses = (1..=count).map(|node| format!("10.0.0.{node}:7800")).collect();
            ClientError::Unreachable { addresses, tries: 29, last: "Connection refused".to_owned() }.to_string()
        };
        assert_eq!(error(0), "no node could be reached: Connection refused (29 tries)");
        assert_eq!(error(1), "10.0.0.1:7800 could not be reached: Connection refused (29 tries)");
        assert!(error(2).starts_with("none of 10.0.0.1:7800, 10.0.0.2:7800 could be reached: "), "{}", error(2));
        assert!(error(32).contains("10.0.0.5:7800 and 27 more could be reached"), "{}", error(32));
        assert!(!error(5).contains("more"), "{}", error(5));
    }

    #[test]
    fn reasons_of_other_services_are_not_ours() {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason::NOT_LEADER, "elsewhere.example", HashMap::new());
        let other = Status::with_error_details(Code::FailedPrecondition, "no", details);
        assert!(matches!(Verdict::of(&other), Verdict::Refused(rejection) if rejection.reason.is_empty()));
    }

    /// safety 27, in the client.
    #[test]
    fn codes_without_an_answer_are_never_refusals() {
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal] {
            assert!(matches!(Verdict::of(&Status::new(code, "gone")), Verdict::NoAnswer(_)), "{code:?}");
        }
        assert!(matches!(Verdict::of(&Status::resource_exhausted("calm down")), Verdict::NoAnswer(_)));
        let mut details = ErrorDetails::new();
        details.set_error_info(reason::OVERLOADED, "elsewhere.example", HashMap::new());
        details.set_retry_info(Some(Duration::ZERO));
        let elsewhere = Status::with_error_details(Code::ResourceExhausted, "later", details);
        assert!(matches!(Verdict::of(&elsewhere), Verdict::NoAnswer(_)), "another service's word");
        let unknown = status(Code::Unavailable, reason::RESULT_UNKNOWN, None);
        assert!(matches!(Verdict::of(&unknown), Verdict::NoAnswer(text) if text.contains("RESULT_UNKNOWN")));
    }

    #[test]
    fn a_refusal_is_retried_only_when_the_service_says_so() {
        let verdict = |reason, wait| Verdict::of(&status(Code::ResourceExhausted, reason, wait));
        assert!(matches!(verdict(reason::OVERLOADED, None), Verdict::Busy(_)));
        assert!(matches!(verdict(reason::RESERVATION_QUOTA, None), Verdict::Refused(_)));
        let alarm = status(Code::FailedPrecondition, reason::ALARM, None);
        assert!(matches!(Verdict::of(&alarm), Verdict::Refused(rejection) if rejection.reason == reason::ALARM));
        assert!(matches!(verdict(reason::CHAIN_NOT_SYNCED, Some(Duration::ZERO)), Verdict::Busy(_)));
        assert!(matches!(verdict(reason::NOT_LEADER, None), Verdict::NotLeader(_)));
    }
}
