//! Refusals of a PSBT as status codes, every fault named by the place that it is at.

use bitcoin::OutPoint;
use onespend_adapters::psbt::{Place, PsbtFault, PsbtFaults};
use onespend_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::FieldViolation;

use super::status;

/// The status of a PSBT that is refused. The first fault gives code and reason; all are named.
pub(super) fn refused(faults: &PsbtFaults) -> Status {
    let first = faults.first();
    let violations = faults.iter().map(|fault| FieldViolation::new(field(fault.place()), fault.to_string()));
    let (code, reason) = self::reason(first);
    let mut metadata = vec![("rule", first.to_string())];
    // All coins that are refused for the reason that the caller is told.
    let alike = faults.iter().filter(|fault| self::reason(fault).1 == reason);
    let outpoints: Vec<OutPoint> = alike.filter_map(PsbtFault::outpoint).collect();
    if !outpoints.is_empty() {
        metadata.extend(status::list(outpoints));
    }
    if let PsbtFault::OutputInvalid { output, .. } = first {
        metadata.push(("vout", output.to_string()));
    }
    status::refused_psbt(code, reason, &first.to_string(), metadata, violations.collect())
}

/// The part of the request that is blamed, as a path.
fn field(place: Option<Place>) -> String {
    match place {
        None => "psbt".to_owned(),
        Some(Place::Global) => "psbt.global".to_owned(),
        Some(Place::Input(at)) => format!("psbt.inputs[{at}]"),
        Some(Place::Output(at)) => format!("psbt.outputs[{at}]"),
    }
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
