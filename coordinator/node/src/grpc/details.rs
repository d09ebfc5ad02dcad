//! A status with its details, kept within what gRPC clients read.

use std::collections::HashMap;

use onespend_proto::reason;
use onespend_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// Bytes of a message for people. It travels in the trailers, as the details do, and gRPC clients take 8 KiB of those
/// (`GRPC_ARG_MAX_METADATA_SIZE`); an answer that does not fit is lost, and looks as if its outcome were unknown.
const MAX_MESSAGE_BYTES: usize = 800;
/// Bytes of one metadata value or field violation that quotes what the caller sent.
pub(super) const MAX_QUOTE_BYTES: usize = 400;
/// Bytes of all field violations, before base64 makes 4 bytes of 3.
const MAX_VIOLATIONS_BYTES: usize = 3_500;

pub(crate) type Metadata = Vec<(&'static str, String)>;

/// The facts of a bound that is broken.
pub(super) fn limit(name: &str, got: u64, bound: u64) -> Metadata {
    vec![("limit", name.to_owned()), ("got", got.to_string()), ("bound", bound.to_string())]
}

/// A feerate in sat/vB, to the last digit.
pub(super) fn per_vb(sat_kvb: u64) -> String {
    format!("{}.{:03}", sat_kvb / 1000, sat_kvb % 1000)
}

/// A refusal for a reason, with its facts.
pub(super) fn build(
    code: Code,
    reason: ErrorReason,
    message: &str,
    metadata: Metadata,
    details: ErrorDetails,
) -> Status {
    let metadata: HashMap<String, String> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut details = details;
    let message = clip(message, MAX_MESSAGE_BYTES);
    details.set_error_info(reason::name(reason), reason::DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

/// The same without other details.
pub(super) fn refuse(code: Code, reason: ErrorReason, message: impl Into<String>, metadata: Metadata) -> Status {
    build(code, reason, &message.into(), metadata, ErrorDetails::new())
}

/// Whether a refusal is for this reason.
pub(crate) fn is_for(refused: &Status, reason: ErrorReason) -> bool {
    refused.get_details_error_info().is_some_and(|info| info.reason == reason::name(reason))
}

/// The beginning of a text, with a mark where it was cut.
pub(super) fn clip(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = (0..=max_bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// The violations that fit into an answer.
pub(super) fn fitting(faults: Vec<FieldViolation>) -> Vec<FieldViolation> {
    let mut left = MAX_VIOLATIONS_BYTES;
    let clipped = faults
        .into_iter()
        .map(|fault| FieldViolation { description: clip(&fault.description, MAX_QUOTE_BYTES), ..fault });
    clipped
        .take_while(|fault| {
            let bytes = fault.field.len() + fault.description.len();
            let fits = bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        })
        .collect()
}
