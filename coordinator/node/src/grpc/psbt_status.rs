//! Refusals of a PSBT as status codes, every fault named by the place that it is at.

use onespend_adapters::psbt::{PsbtFault, PsbtFaults};
use onespend_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::FieldViolation;

use super::status;

/// The status of a PSBT that is refused. The first fault gives code and reason; all are named.
pub(super) fn refused(faults: &PsbtFaults) -> Status {
    let first = faults.first();
    let violations = faults.iter().map(|fault| {
        let place = fault.place().map_or_else(|| "psbt".to_owned(), |place| format!("psbt.{place}"));
        FieldViolation::new(place, fault.to_string())
    });
    let (code, reason) = reason(first);
    let mut metadata = vec![("rule", first.to_string())];
    metadata.extend(outpoint(first).map(|outpoint| ("outpoints", outpoint)));
    status::refused_psbt(code, reason, first.to_string(), metadata, violations.collect())
}

fn reason(fault: &PsbtFault) -> (Code, ErrorReason) {
    match fault {
        PsbtFault::TooLarge { .. }
        | PsbtFault::NotPsbt { .. }
        | PsbtFault::UnsupportedVersion { .. }
        | PsbtFault::OtherVersionField { .. }
        | PsbtFault::Truncated { .. }
        | PsbtFault::TrailingBytes { .. }
        | PsbtFault::TooManyFields { .. }
        | PsbtFault::DuplicateKey { .. }
        | PsbtFault::Malformed { .. }
        | PsbtFault::NoUnsignedTransaction
        | PsbtFault::Count { .. }
        | PsbtFault::NotUnsigned { .. }
        | PsbtFault::AlreadySigned { .. }
        | PsbtFault::ScriptMismatch { .. }
        | PsbtFault::LegacyInput { .. }
        | PsbtFault::ScriptPath { .. } => (Code::InvalidArgument, ErrorReason::PsbtInvalid),
        PsbtFault::DuplicateInput { .. } => (Code::InvalidArgument, ErrorReason::DuplicateInput),
        PsbtFault::OutputInvalid { .. } => (Code::InvalidArgument, ErrorReason::OutputInvalid),
        PsbtFault::SighashNotAllowed { .. } => (Code::InvalidArgument, ErrorReason::SighashNotAllowed),
        PsbtFault::PrevoutMismatch { .. } => (Code::InvalidArgument, ErrorReason::PrevoutMismatch),
        PsbtFault::UnknownCoin { .. } => (Code::PermissionDenied, ErrorReason::ForeignInput),
    }
}

fn outpoint(fault: &PsbtFault) -> Option<String> {
    match fault {
        PsbtFault::DuplicateInput { outpoint, .. } | PsbtFault::UnknownCoin { outpoint, .. } => {
            Some(outpoint.to_string())
        }
        _ => None,
    }
}
