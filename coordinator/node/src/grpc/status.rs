//! The one place where refusals become gRPC status codes. No `_` arm: a new rejection does not compile until
//! somebody has decided what callers are told.

use std::collections::HashMap;
use std::time::Duration;

use bitcoin::OutPoint;
use onespend_core::outcome::{FeeLimit, Holder, Rejection};
use onespend_proto::reason;
use onespend_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::raft::{LeaderHint, ProposeError};

/// How long a caller should wait before it asks again an overloaded node.
const OVERLOAD_RETRY: Duration = Duration::from_millis(100);
/// How long a caller should wait before it asks again a node without a quorum.
const QUORUM_RETRY: Duration = Duration::from_millis(50);

pub(crate) type Metadata = Vec<(&'static str, String)>;

fn build(code: Code, reason: ErrorReason, message: String, metadata: Metadata, details: ErrorDetails) -> Status {
    let metadata: HashMap<String, String> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut details = details;
    details.set_error_info(reason::name(reason), reason::DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

fn refuse(code: Code, reason: ErrorReason, message: impl Into<String>, metadata: Metadata) -> Status {
    build(code, reason, message.into(), metadata, ErrorDetails::new())
}

/// Malformed input, with every fault named.
pub(crate) fn invalid_fields(faults: Vec<FieldViolation>) -> Status {
    let named: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.field, fault.description)).collect();
    let mut details = ErrorDetails::new();
    details.set_bad_request(faults);
    build(Code::InvalidArgument, ErrorReason::FieldInvalid, named.join("; "), vec![], details)
}

/// A PSBT that is refused.
pub(crate) fn refused_psbt(
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: Metadata,
    faults: Vec<FieldViolation>,
) -> Status {
    let mut details = ErrorDetails::new();
    details.set_bad_request(faults);
    build(code, reason, message, metadata, details)
}

/// One fault of a known reason in one field.
pub(crate) fn invalid(reason: ErrorReason, field: &str, rule: &str, metadata: Metadata) -> Status {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(field, rule);
    build(Code::InvalidArgument, reason, format!("{field}: {rule}"), metadata, details)
}

/// This node does not lead and may not, or cannot, pass the request on.
pub(crate) fn not_leader(hint: Option<&LeaderHint>) -> Status {
    let mut metadata = vec![];
    if let Some(hint) = hint {
        metadata.push(("leader_id", hint.node_id.to_string()));
        metadata.push(("leader_data_addr", hint.addresses.data.clone()));
        metadata.push(("leader_control_addr", hint.addresses.control.clone()));
        metadata.push(("term", hint.term.to_string()));
    }
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(QUORUM_RETRY));
    let message = match hint {
        Some(hint) => format!("this node does not lead; node {} does, at {}", hint.node_id, hint.addresses.data),
        None => "this node does not lead, and no leader is known now".to_owned(),
    };
    build(Code::FailedPrecondition, ErrorReason::NotLeader, message, metadata, details)
}

/// What came of a proposal that has no outcome.
pub(crate) fn proposing(error: &ProposeError) -> Status {
    match error {
        ProposeError::NotLeader { hint } => not_leader(hint.as_ref()),
        ProposeError::Overloaded { .. } => overloaded("more requests wait for the log than this node takes"),
        ProposeError::Unknown => unknown("the leader lost its quorum or its lead before the request was decided"),
        ProposeError::TooLarge { .. } => invalid(ErrorReason::FieldInvalid, "request", &error.to_string(), vec![]),
        ProposeError::Stopped => {
            refuse(Code::Unavailable, ErrorReason::NotServing, "this node is stopping; ask another one", vec![])
        }
    }
}

/// The write may have been applied, or may be later: the caller asks again with the same request id (safety 27).
pub(crate) fn unknown(why: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(QUORUM_RETRY));
    let message = format!("{why}; whether it was applied is unknown: ask again with the same request_id");
    build(Code::Unavailable, ErrorReason::ResultUnknown, message, vec![], details)
}

/// A read that no quorum confirmed.
pub(crate) fn no_quorum() -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(QUORUM_RETRY));
    let message = "no quorum confirmed the read in time".to_owned();
    build(Code::Unavailable, ErrorReason::NoQuorum, message, vec![], details)
}

/// This node is older than the read allows.
pub(crate) fn too_stale(staleness_ms: u64, bound_ms: u64) -> Status {
    let message = format!("this node is {staleness_ms} ms behind its leader; the read allows {bound_ms} ms");
    refuse(Code::Unavailable, ErrorReason::TooStale, message, vec![("staleness_ms", staleness_ms.to_string())])
}

/// Too much at once.
pub(crate) fn overloaded(why: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(OVERLOAD_RETRY));
    build(Code::ResourceExhausted, ErrorReason::Overloaded, why.to_owned(), vec![], details)
}

/// No node of the cluster has a bitcoind that may be trusted now.
pub(crate) fn chain_not_synced(state: &str) -> Status {
    let message = format!("the leader's bitcoind is not in sync ({state}); coins cannot be spent until it is");
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(Duration::from_secs(1)));
    build(Code::FailedPrecondition, ErrorReason::ChainNotSynced, message, vec![("state", state.to_owned())], details)
}

/// The certificate names nobody of this cluster.
pub(crate) fn unauthenticated(why: &str) -> Status {
    refuse(Code::Unauthenticated, ErrorReason::CallerUnknown, why, vec![])
}

/// An alarm stands: this node must not decide anything until a human has looked.
pub(crate) fn alarmed(code: &str) -> Status {
    let message = format!("this node takes no spends while the alarm {code} stands; ask another one");
    refuse(Code::Unavailable, ErrorReason::NotServing, message, vec![("alarm", code.to_owned())])
}

/// The caller's role does not allow it.
pub(crate) fn denied(caller: &str, action: &str) -> Status {
    let message = format!("{caller} may not call {action}");
    let metadata = vec![("caller", caller.to_owned()), ("action", action.to_owned())];
    refuse(Code::PermissionDenied, ErrorReason::Role, message, metadata)
}

/// No such payment, from a linearizable read (safety 26).
pub(crate) fn payment_unknown() -> Status {
    rejected(&Rejection::PaymentUnknown)
}

/// Leadership stays where it is.
pub(crate) fn transfer_refused(why: &str) -> Status {
    refuse(Code::FailedPrecondition, ErrorReason::TransferRefused, why, vec![("why", why.to_owned())])
}

/// An answer of the state machine that does not fit the command: a defect of this program.
pub(crate) fn unexpected() -> Status {
    Status::internal("the state machine gave an answer of another kind than the request's: please report this")
}

fn list<'a>(outpoints: impl IntoIterator<Item = &'a OutPoint>) -> Metadata {
    let joined: Vec<String> = outpoints.into_iter().map(ToString::to_string).collect();
    vec![("outpoints", joined.join(","))]
}

/// A refusal by the state machine.
pub(crate) fn rejected(rejection: &Rejection) -> Status {
    let (code, reason) = code(rejection);
    let mut details = ErrorDetails::new();
    if let Some(field) = field(rejection) {
        details.add_bad_request_violation(field, rejection.to_string());
    }
    build(code, reason, rejection.to_string(), metadata(rejection), details)
}

fn code(rejection: &Rejection) -> (Code, ErrorReason) {
    use Code::{
        Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted,
    };
    use ErrorReason as R;
    match rejection {
        Rejection::NotStarted | Rejection::StaleBasis { .. } => (FailedPrecondition, R::ChainNotSynced),
        Rejection::WalletUnknown => (NotFound, R::WalletUnknown),
        Rejection::WalletExists { .. } => (AlreadyExists, R::WalletExists),
        Rejection::WalletFrozen { .. } => (FailedPrecondition, R::WalletFrozen),
        Rejection::WalletWatchOnly => (FailedPrecondition, R::WalletWatchOnly),
        Rejection::WalletSignsOutside => (FailedPrecondition, R::SignerExternal),
        Rejection::DescriptorInvalid { .. } => (InvalidArgument, R::DescriptorInvalid),
        Rejection::LimitsInvalid { .. } | Rejection::OutOfBounds { .. } => (InvalidArgument, R::FieldInvalid),
        Rejection::OutpointUnknown { .. } => (NotFound, R::OutpointUnknown),
        Rejection::OutpointReserved { .. } => (Aborted, R::OutpointReserved),
        Rejection::OutpointSpent { .. } => (FailedPrecondition, R::OutpointSpent),
        Rejection::OutpointImmature { .. } => (FailedPrecondition, R::OutpointImmature),
        Rejection::DuplicateInput { .. } => (InvalidArgument, R::DuplicateInput),
        Rejection::ReservationQuota { .. } => (ResourceExhausted, R::ReservationQuota),
        Rejection::ReservationUnknown => (NotFound, R::ReservationUnknown),
        Rejection::ReservationExpired => (FailedPrecondition, R::ReservationExpired),
        Rejection::ReservationReleased => (FailedPrecondition, R::ReservationReleased),
        Rejection::ReservationUsed { .. } => (FailedPrecondition, R::ReservationUsed),
        Rejection::StaleFence { .. } => (FailedPrecondition, R::StaleFence),
        Rejection::NotOwner { .. } => (PermissionDenied, R::NotOwner),
        Rejection::RequestIdReused => (InvalidArgument, R::RequestIdReused),
        Rejection::PaymentIdReused => (AlreadyExists, R::PaymentIdReused),
        Rejection::ReservedForOther { .. } => (FailedPrecondition, R::ReservedForOther),
        Rejection::PaymentUnknown => (NotFound, R::PaymentUnknown),
        Rejection::PaymentUnresolved { .. } => (FailedPrecondition, R::PaymentUnresolved),
        Rejection::ForeignInput { .. } => (PermissionDenied, R::ForeignInput),
        Rejection::MissingInput { .. } => (InvalidArgument, R::InputMissing),
        Rejection::TransactionInvalid { .. } => (InvalidArgument, R::PsbtInvalid),
        Rejection::OutputInvalid { .. } => (InvalidArgument, R::OutputInvalid),
        Rejection::InsufficientFunds { .. } => (FailedPrecondition, R::InsufficientFunds),
        Rejection::FeeLimit { .. } => (PermissionDenied, R::FeeLimit),
        Rejection::SignatureMismatch => (InvalidArgument, R::SignatureMismatch),
    }
}

/// The facts of a refusal, as `errors.proto` names them.
fn metadata(rejection: &Rejection) -> Metadata {
    match rejection {
        Rejection::NotStarted => vec![("state", "not_started".to_owned())],
        Rejection::StaleBasis { what } => vec![("state", what.clone())],
        Rejection::WalletExists { wallet, .. } => vec![("wallet_id", wallet.clone())],
        Rejection::WalletFrozen { why } => vec![("note", why.clone())],
        Rejection::DescriptorInvalid(fault) => vec![("rule", fault.to_string())],
        Rejection::OutpointReserved { conflicts } => {
            let holders: Vec<String> = conflicts.iter().map(|conflict| holder(&conflict.holder)).collect();
            let mut metadata = list(conflicts.iter().map(|conflict| &conflict.outpoint));
            metadata.push(("holders", holders.join(",")));
            metadata
        }
        Rejection::OutpointUnknown { outpoints }
        | Rejection::OutpointSpent { outpoints }
        | Rejection::OutpointImmature { outpoints } => list(outpoints),
        Rejection::DuplicateInput { outpoint }
        | Rejection::ForeignInput { outpoint }
        | Rejection::MissingInput { outpoint } => list([outpoint]),
        Rejection::ReservationQuota { active } => vec![("active", active.to_string())],
        Rejection::ReservationUsed { payment } | Rejection::ReservedForOther { payment } => {
            vec![("payment_id", payment.to_string())]
        }
        Rejection::StaleFence { current, .. } => vec![("fence", current.to_string())],
        Rejection::NotOwner { owner } => vec![("owner", owner.to_string())],
        Rejection::PaymentUnresolved { attempt, txid } => {
            vec![("attempt", attempt.to_string()), ("txid", txid.clone())]
        }
        Rejection::LimitsInvalid { rule } | Rejection::TransactionInvalid { rule } => vec![("rule", rule.clone())],
        Rejection::OutputInvalid { vout, rule } => vec![("vout", vout.to_string()), ("rule", rule.clone())],
        Rejection::InsufficientFunds { needed_sat, available_sat } => {
            vec![("needed_sat", needed_sat.to_string()), ("available_sat", available_sat.to_string())]
        }
        Rejection::FeeLimit { limit, got, bound } => fee_limit(*limit, *got, *bound),
        Rejection::WalletUnknown
        | Rejection::WalletWatchOnly
        | Rejection::WalletSignsOutside
        | Rejection::OutOfBounds { .. }
        | Rejection::ReservationUnknown
        | Rejection::ReservationExpired
        | Rejection::ReservationReleased
        | Rejection::RequestIdReused
        | Rejection::PaymentIdReused
        | Rejection::PaymentUnknown
        | Rejection::SignatureMismatch => vec![],
    }
}

/// The field that an `INVALID_ARGUMENT` blames.
fn field(rejection: &Rejection) -> Option<String> {
    if code(rejection).0 != Code::InvalidArgument {
        return None;
    }
    let named = match rejection {
        Rejection::DescriptorInvalid { .. } => "descriptor",
        Rejection::LimitsInvalid { .. } => "limits",
        Rejection::OutOfBounds { what, .. } => what,
        Rejection::RequestIdReused => "request_id",
        Rejection::OutputInvalid { vout, .. } => return Some(format!("outputs[{vout}]")),
        Rejection::DuplicateInput { outpoint } | Rejection::MissingInput { outpoint } => {
            return Some(format!("inputs[{outpoint}]"));
        }
        rest => {
            // What is left is about the transaction as a whole.
            debug_assert!(matches!(rest, Rejection::TransactionInvalid { .. } | Rejection::SignatureMismatch));
            "transaction"
        }
    };
    Some(named.to_owned())
}

fn holder(holder: &Holder) -> String {
    match holder {
        Holder::Reservation(id) => id.to_string(),
        Holder::Payment(id) => format!("payment {id}"),
        Holder::Quarantine => "quarantine".to_owned(),
    }
}

fn fee_limit(limit: FeeLimit, got: u64, bound: u64) -> Metadata {
    let per_vb = |sat_kvb: u64| format!("{}.{:03}", sat_kvb / 1000, sat_kvb % 1000);
    let (name, got, bound) = match limit {
        FeeLimit::Fee => ("max_fee_sat", got.to_string(), bound.to_string()),
        FeeLimit::Feerate => ("max_feerate_sat_vb", per_vb(got), per_vb(bound)),
        FeeLimit::FeerateTooLow => ("min_feerate_sat_vb", per_vb(got), per_vb(bound)),
        FeeLimit::Percent => ("max_fee_percent", got.to_string(), bound.to_string()),
    };
    vec![("limit", name.to_owned()), ("got", got), ("bound", bound)]
}
