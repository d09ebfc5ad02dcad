//! The one place where refusals become gRPC status codes. No `_` arm: a new rejection does not compile until
//! somebody has decided what callers are told.

use std::time::Duration;

use bitcoin::OutPoint;
use onespend_core::outcome::{FeeLimit, Holder, Rejection};
use onespend_core::wallet::DescriptorFault;
use onespend_policies::Denied;
use onespend_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation};

use super::details::{MAX_QUOTE_BYTES, build, clip, fitting, limit, per_vb, refuse};
pub(crate) use super::details::{Metadata, is_for};
use crate::bitcoind::NoEstimate;
use crate::raft::{LeaderHint, ProposeError};

/// How long a caller should wait before it asks again an overloaded node.
const OVERLOAD_RETRY: Duration = Duration::from_millis(100);
/// How long a caller should wait before it asks again a node without a quorum.
const QUORUM_RETRY: Duration = Duration::from_millis(50);
/// How long a caller should wait before it asks again for what bitcoind estimates; it is asked every 30 s.
const ESTIMATE_RETRY: Duration = Duration::from_secs(30);
/// How long a caller should wait before it asks again after others were quicker each time.
const RACE_RETRY: Duration = Duration::from_secs(1);

/// Bytes of a list of outpoints with their holders: 50 to 60 of them.
const MAX_LIST_BYTES: usize = 4_500;

/// Malformed input, with every fault named.
pub(crate) fn invalid_fields(faults: Vec<FieldViolation>) -> Status {
    let all = faults.len();
    let faults = fitting(faults);
    let mut named: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.field, fault.description)).collect();
    if all > faults.len() {
        named.insert(0, format!("{all} faults, of which {} are named", faults.len()));
    }
    let mut details = ErrorDetails::new();
    details.set_bad_request(faults);
    build(Code::InvalidArgument, ErrorReason::FieldInvalid, &named.join("; "), vec![], details)
}

/// A PSBT that is refused.
pub(crate) fn refused_psbt(
    code: Code,
    reason: ErrorReason,
    message: &str,
    metadata: Metadata,
    faults: Vec<FieldViolation>,
) -> Status {
    let mut details = ErrorDetails::new();
    details.set_bad_request(fitting(faults));
    build(code, reason, message, metadata, details)
}

/// One fault of a known reason in one field.
pub(crate) fn invalid(reason: ErrorReason, field: &str, rule: &str, metadata: Metadata) -> Status {
    let rule = clip(rule, MAX_QUOTE_BYTES);
    let metadata = metadata.into_iter().map(|(key, value)| (key, clip(&value, MAX_QUOTE_BYTES))).collect();
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(field, rule.as_str());
    build(Code::InvalidArgument, reason, &format!("{field}: {rule}"), metadata, details)
}

/// A recipient who cannot be paid: `field` is a part of the one at this position.
pub(crate) fn unpayable(position: u32, field: &str, rule: &str) -> Status {
    let metadata = vec![("vout", position.to_string()), ("rule", rule.to_owned())];
    invalid(ErrorReason::OutputInvalid, &format!("recipients[{position}].{field}"), rule, metadata)
}

/// A refusal of what a payment orders, before there is any transaction.
pub(crate) fn order_refused(rejection: &Rejection) -> Status {
    if let Rejection::OutputInvalid { vout, rule } = rejection {
        return unpayable(*vout, "amount_sat", rule);
    }
    rejected(rejection)
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
    build(Code::FailedPrecondition, ErrorReason::NotLeader, &message, metadata, details)
}

/// What came of a proposal that has no outcome.
pub(crate) fn proposing(error: &ProposeError) -> Status {
    match error {
        ProposeError::NotLeader { hint } => not_leader(hint.as_ref()),
        ProposeError::Overloaded => overloaded("more requests wait for the log than this node takes"),
        ProposeError::Unknown => unknown("the leader lost its quorum or its lead before the request was decided"),
        ProposeError::TooLarge { .. } => invalid(ErrorReason::FieldInvalid, "request", &error.to_string(), vec![]),
        ProposeError::Stopped => stopping(),
    }
}

/// This node stops.
pub(crate) fn stopping() -> Status {
    refuse(Code::Unavailable, ErrorReason::NotServing, "this node is stopping; ask another one", vec![])
}

/// The write may have been applied, or may be later: the caller asks again with the same request id (safety 27).
pub(crate) fn unknown(why: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(QUORUM_RETRY));
    let message = format!("{why}; whether it was applied is unknown: ask again with the same request_id");
    build(Code::Unavailable, ErrorReason::ResultUnknown, &message, vec![], details)
}

/// A read that no quorum confirmed.
pub(crate) fn no_quorum() -> Status {
    unread("no quorum confirmed the read in time")
}

/// A read without an answer: it applies nothing.
pub(crate) fn unread(why: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(QUORUM_RETRY));
    build(Code::Unavailable, ErrorReason::NoQuorum, why, vec![], details)
}

/// This node is older than the read allows.
pub(crate) fn too_stale(staleness_ms: Option<u64>, bound_ms: u64) -> Status {
    let (behind, metadata) = match staleness_ms {
        Some(ms) => (format!("is {ms} ms behind its leader"), vec![("staleness_ms", ms.to_string())]),
        None => ("does not know yet how far it is behind its leader".to_owned(), vec![]),
    };
    let message = format!("this node {behind}; the read allows {bound_ms} ms");
    refuse(Code::Unavailable, ErrorReason::TooStale, message, metadata)
}

/// Too much at once.
pub(crate) fn overloaded(why: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(OVERLOAD_RETRY));
    build(Code::ResourceExhausted, ErrorReason::Overloaded, why, vec![], details)
}

/// A message that was not read.
pub(crate) fn message_too_large(max_bytes: usize) -> Status {
    let message = format!("the message has more than {max_bytes} bytes (`api.max_message_bytes`) and was not read");
    refuse(Code::ResourceExhausted, ErrorReason::MessageTooLarge, message, vec![("max_bytes", max_bytes.to_string())])
}

/// An answer to a read that the node that passed the read on does not take.
pub(crate) fn answer_too_large(max_bytes: usize) -> Status {
    let message =
        format!("the answer has more than {max_bytes} bytes (`api.max_message_bytes`): ask for a smaller page");
    refuse(Code::ResourceExhausted, ErrorReason::MessageTooLarge, message, vec![("max_bytes", max_bytes.to_string())])
}

/// No node of the cluster has a bitcoind that may be trusted now.
pub(crate) fn chain_not_synced(state: &str) -> Status {
    let message = format!("the leader's bitcoind is not in sync ({state}); coins cannot be spent until it is");
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(Duration::from_secs(1)));
    build(Code::FailedPrecondition, ErrorReason::ChainNotSynced, &message, vec![("state", state.to_owned())], details)
}

/// What a request rests on was another each time that it was to be decided, as when other callers take the coins that
/// were chosen for it. bitcoind has no part in that, unless the cluster has not begun.
pub(crate) fn outrun(rejection: &Rejection, rounds: usize) -> Status {
    if *rejection == Rejection::NotStarted {
        return chain_not_synced("not_started");
    }
    let why = clip(&rejection.to_string(), MAX_QUOTE_BYTES);
    let message = format!(
        "{rounds} times something changed while this was decided ({why}); it was not applied: ask again with the same \
         request_id"
    );
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(RACE_RETRY));
    let (code, reason) = code(rejection);
    build(code, reason, &message, metadata(rejection), details)
}

/// bitcoind does not know what to pay for a time.
#[allow(clippy::needless_pass_by_value)] // As `map_err` has it.
pub(crate) fn no_estimate(error: NoEstimate) -> Status {
    let message = format!("{error}: ask for a feerate instead of a time");
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(ESTIMATE_RETRY));
    let metadata = vec![("state", "no_fee_estimate".to_owned())];
    build(Code::FailedPrecondition, ErrorReason::ChainNotSynced, &message, metadata, details)
}

/// The certificate names nobody of this cluster.
pub(crate) fn unauthenticated(why: &str) -> Status {
    refuse(Code::Unauthenticated, ErrorReason::CallerUnknown, why, vec![])
}

/// The policy does not allow it.
pub(crate) fn denied(denied: &Denied) -> Status {
    let Denied::Role { caller, role: _, action } = denied;
    let metadata = vec![("caller", caller.clone()), ("action", action.name().to_owned())];
    refuse(Code::PermissionDenied, ErrorReason::Role, denied.to_string(), metadata)
}

/// No such payment, from a linearizable read (safety 26).
pub(crate) fn payment_unknown() -> Status {
    rejected(&Rejection::PaymentUnknown)
}

/// No such node in the cluster.
pub(crate) fn node_unknown(node_id: u64) -> Status {
    let message = format!("there is no node {node_id} in this cluster");
    refuse(Code::NotFound, ErrorReason::NodeUnknown, message, vec![("node_id", node_id.to_string())])
}

/// Leadership stays where it is.
pub(crate) fn transfer_refused(why: &str) -> Status {
    refuse(Code::FailedPrecondition, ErrorReason::TransferRefused, why, vec![("why", why.to_owned())])
}

pub(crate) fn membership_refused(why: &str) -> Status {
    refuse(Code::FailedPrecondition, ErrorReason::MembershipRefused, why, vec![("why", why.to_owned())])
}

/// An answer of the state machine that does not fit the command: a defect of this program.
pub(crate) fn unexpected() -> Status {
    Status::internal("the state machine gave an answer of another kind than the request's: please report this")
}

/// Outpoints by name: all of them, or as many as fit and how many there are.
pub(crate) fn list(outpoints: impl IntoIterator<Item = OutPoint>) -> Metadata {
    named(outpoints.into_iter().map(|outpoint| (outpoint, String::new())).collect())
}

fn named(conflicts: Vec<(OutPoint, String)>) -> Metadata {
    let (mut outpoints, mut holders, mut left) = (vec![], vec![], MAX_LIST_BYTES);
    let all = conflicts.len();
    for (outpoint, holder) in conflicts {
        let outpoint = outpoint.to_string();
        let Some(rest) = left.checked_sub(outpoint.len() + holder.len() + 2) else { break };
        left = rest;
        outpoints.push(outpoint);
        holders.push(holder);
    }
    let mut metadata = vec![("outpoints", outpoints.join(",")), ("outpoints_total", all.to_string())];
    if holders.iter().any(|holder| !holder.is_empty()) {
        metadata.push(("holders", holders.join(",")));
    }
    metadata
}

/// A refusal by the state machine.
pub(crate) fn rejected(rejection: &Rejection) -> Status {
    let (code, reason) = code(rejection);
    let mut details = ErrorDetails::new();
    if let Some(field) = field(rejection) {
        details.add_bad_request_violation(field, clip(&rejection.to_string(), MAX_QUOTE_BYTES));
    }
    build(code, reason, &rejection.to_string(), metadata(rejection), details)
}

pub(super) fn code(rejection: &Rejection) -> (Code, ErrorReason) {
    use Code::{
        Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted,
    };
    use ErrorReason as R;
    match rejection {
        Rejection::NotStarted | Rejection::StaleBasis { .. } => (FailedPrecondition, R::ChainNotSynced),
        Rejection::WalletUnknown { .. } => (NotFound, R::WalletUnknown),
        Rejection::WalletExists { .. } => (AlreadyExists, R::WalletExists),
        Rejection::WalletFrozen { .. } => (FailedPrecondition, R::WalletFrozen),
        Rejection::WalletWatchOnly => (FailedPrecondition, R::WalletWatchOnly),
        Rejection::WalletSignsOutside => (FailedPrecondition, R::SignerExternal),
        Rejection::DescriptorInvalid(DescriptorFault::Network { .. }) => (InvalidArgument, R::WrongNetwork),
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
        Rejection::ReplacementMissingAnchor { .. } => (FailedPrecondition, R::ReplacementMissingAnchor),
        Rejection::NotReplaceable { .. } => (FailedPrecondition, R::NotReplaceable),
        Rejection::HasDescendants { .. } => (FailedPrecondition, R::HasDescendants),
        Rejection::ChainTooLong { .. } => (FailedPrecondition, R::ChainTooLong),
        Rejection::AbortUnsupported { .. } => (FailedPrecondition, R::AbortUnsupported),
        Rejection::AbortProofInvalid => (InvalidArgument, R::AbortProofInvalid),
        Rejection::AttemptAborted => (FailedPrecondition, R::AttemptAborted),
        Rejection::ReservedShare { .. } => (ResourceExhausted, R::ReservedShare),
        Rejection::VelocityLimit { .. } => (PermissionDenied, R::VelocityLimit),
        Rejection::RecoveryMode { .. } => (FailedPrecondition, R::RecoveryMode),
        Rejection::RecoveryRefused { .. } => (FailedPrecondition, R::RecoveryRefused),
        Rejection::NotQuarantined { .. } => (FailedPrecondition, R::NotQuarantined),
        Rejection::NotLost { .. } => (FailedPrecondition, R::NotLost),
        Rejection::WalletHasDescriptors => (FailedPrecondition, R::WalletHasDescriptors),
    }
}

/// The facts of a refusal, as `errors.proto` names them.
pub(super) fn metadata(rejection: &Rejection) -> Metadata {
    match rejection {
        Rejection::NotStarted => vec![("state", "not_started".to_owned())],
        Rejection::StaleBasis { what } => vec![("state", what.clone())],
        Rejection::WalletExists { wallet, .. } => vec![("wallet_id", wallet.clone())],
        Rejection::WalletFrozen { why } => vec![("note", why.clone())],
        Rejection::DescriptorInvalid(DescriptorFault::Network { expected }) => vec![("network", expected.clone())],
        Rejection::DescriptorInvalid(fault) => vec![("rule", fault.to_string())],
        Rejection::OutpointReserved { conflicts } => {
            named(conflicts.iter().map(|conflict| (conflict.outpoint, holder(&conflict.holder))).collect())
        }
        Rejection::OutpointUnknown { outpoints }
        | Rejection::OutpointSpent { outpoints }
        | Rejection::OutpointImmature { outpoints }
        | Rejection::NotQuarantined { outpoints } => list(outpoints.iter().copied()),
        Rejection::DuplicateInput { outpoint }
        | Rejection::ForeignInput { outpoint }
        | Rejection::MissingInput { outpoint } => list([*outpoint]),
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
        Rejection::SignatureMismatch => vec![("rule", rejection.to_string())],
        Rejection::ReplacementMissingAnchor { anchor } => vec![("anchor", anchor.to_string())],
        Rejection::HasDescendants { outpoint, payment } => {
            let mut metadata = list([*outpoint]);
            metadata.push(("payment_id", payment.to_string()));
            metadata
        }
        Rejection::ReservedShare { reserved_sat, bound_sat } => {
            vec![("reserved_sat", reserved_sat.to_string()), ("bound_sat", bound_sat.to_string())]
        }
        Rejection::VelocityLimit { spent_sat, bound_sat, window_ms } => {
            let mut metadata = limit("velocity.max_sat", *spent_sat, *bound_sat);
            metadata.push(("window_ms", window_ms.to_string()));
            metadata
        }
        Rejection::ChainTooLong { what, got, bound } => limit(what, *got, *bound),
        Rejection::NotReplaceable { why }
        | Rejection::AbortUnsupported { why }
        | Rejection::RecoveryMode { why }
        | Rejection::RecoveryRefused { why }
        | Rejection::NotLost { why } => vec![("why", why.clone())],
        Rejection::WalletUnknown { wallet } => wallet.iter().map(|wallet| ("wallet_id", wallet.clone())).collect(),
        Rejection::WalletWatchOnly
        | Rejection::WalletSignsOutside
        | Rejection::OutOfBounds { .. }
        | Rejection::ReservationUnknown
        | Rejection::ReservationExpired
        | Rejection::ReservationReleased
        | Rejection::RequestIdReused
        | Rejection::PaymentIdReused
        | Rejection::PaymentUnknown
        | Rejection::AbortProofInvalid
        | Rejection::AttemptAborted
        | Rejection::WalletHasDescriptors => vec![],
    }
}

/// The field that a refusal blames: there is one for every `INVALID_ARGUMENT`, and for nothing else.
fn field(rejection: &Rejection) -> Option<String> {
    let named = match rejection {
        Rejection::DescriptorInvalid { .. } => "descriptor",
        Rejection::LimitsInvalid { .. } => "limits",
        // Only the total life of a reservation is left to the state machine; the other bounds are checked before.
        Rejection::OutOfBounds { .. } => "ttl",
        Rejection::RequestIdReused => "request_id",
        Rejection::OutputInvalid { vout, .. } => return Some(format!("psbt.outputs[{vout}]")),
        // Those of a PSBT are found when it is taken in.
        Rejection::DuplicateInput { .. } => "outpoints",
        // These are about the transaction as a whole.
        Rejection::MissingInput { .. } | Rejection::TransactionInvalid { .. } => "psbt",
        Rejection::SignatureMismatch => "raw_transaction",
        Rejection::AbortProofInvalid => "proof",
        Rejection::NotStarted
        | Rejection::StaleBasis { .. }
        | Rejection::WalletUnknown { .. }
        | Rejection::WalletExists { .. }
        | Rejection::WalletFrozen { .. }
        | Rejection::WalletWatchOnly
        | Rejection::WalletSignsOutside
        | Rejection::OutpointUnknown { .. }
        | Rejection::OutpointReserved { .. }
        | Rejection::OutpointSpent { .. }
        | Rejection::OutpointImmature { .. }
        | Rejection::ReservationQuota { .. }
        | Rejection::ReservationUnknown
        | Rejection::ReservationExpired
        | Rejection::ReservationReleased
        | Rejection::ReservationUsed { .. }
        | Rejection::StaleFence { .. }
        | Rejection::NotOwner { .. }
        | Rejection::PaymentIdReused
        | Rejection::ReservedForOther { .. }
        | Rejection::PaymentUnknown
        | Rejection::PaymentUnresolved { .. }
        | Rejection::ForeignInput { .. }
        | Rejection::InsufficientFunds { .. }
        | Rejection::FeeLimit { .. }
        | Rejection::ReplacementMissingAnchor { .. }
        | Rejection::NotReplaceable { .. }
        | Rejection::HasDescendants { .. }
        | Rejection::AbortUnsupported { .. }
        | Rejection::AttemptAborted
        | Rejection::ReservedShare { .. }
        | Rejection::VelocityLimit { .. }
        | Rejection::RecoveryMode { .. }
        | Rejection::RecoveryRefused { .. }
        | Rejection::NotQuarantined { .. }
        | Rejection::NotLost { .. }
        | Rejection::WalletHasDescriptors
        | Rejection::ChainTooLong { .. } => return None,
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
    let (name, got, bound) = match limit {
        FeeLimit::Fee => ("max_fee_sat", got.to_string(), bound.to_string()),
        FeeLimit::Feerate => ("max_feerate_sat_vb", per_vb(got), per_vb(bound)),
        FeeLimit::FeerateTooLow => ("min_feerate_sat_vb", per_vb(got), per_vb(bound)),
        FeeLimit::Percent => ("max_fee_percent", got.to_string(), bound.to_string()),
        FeeLimit::ReplacementFee => ("min_replacement_fee_sat", got.to_string(), bound.to_string()),
        FeeLimit::ReplacementFeerate => ("min_replacement_feerate_sat_vb", per_vb(got), per_vb(bound)),
    };
    vec![("limit", name.to_owned()), ("got", got), ("bound", bound)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_policies::{Action, Role};
    use onespend_proto::reason;
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn a_policys_refusal_is_told_for_what_it_is() {
        let (caller, action) = ("client/a".to_owned(), Action::RenewReservation);
        let by_role = denied(&Denied::Role { caller, role: Role::Client, action });
        let info = by_role.get_details_error_info().unwrap();
        assert_eq!((by_role.code(), info.reason.as_str()), (Code::PermissionDenied, reason::ROLE));
        assert_eq!(info.metadata.get("action").map(String::as_str), Some("RenewReservation"));
    }
}
