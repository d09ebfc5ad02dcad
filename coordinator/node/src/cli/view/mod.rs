//! Answers as they are shown: one file per kind of resource, each with its JSON (the struct) and its table.
//!
//! JSON follows the API: the names of the messages' fields; enums as lower-case words; bytes as hex; outpoints as
//! `txid:vout`; timestamps as RFC 3339; durations as milliseconds in a field that ends in `_ms`; what is unset is null.

// The fields have the names of the API's messages.
#![allow(clippy::struct_field_names)]

mod attempt;
pub mod audit;
pub mod backup;
pub mod chain;
mod health;
pub mod history;
pub mod members;
mod node_status;
pub mod payment;
pub mod quorum;
pub mod recovery;
pub mod reservation;
pub mod status;
pub mod survivor;
pub mod utxo;
pub mod wallet;

use onespend_proto::v1;

use super::format;

/// `txid:vout`.
pub(super) fn outpoint(outpoint: Option<v1::Outpoint>) -> String {
    outpoint.map(|outpoint| format!("{}:{}", outpoint.txid, outpoint.vout)).unwrap_or_default()
}

/// A text that is empty when unset.
pub(super) fn set(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// RFC 3339.
pub(super) fn time(timestamp: Option<&prost_types::Timestamp>) -> Option<String> {
    timestamp.map(ToString::to_string)
}

/// Milliseconds.
pub(super) fn millis(duration: Option<&prost_types::Duration>) -> Option<u64> {
    duration.map(|duration| u64::try_from(format::std_duration(duration).as_millis()).unwrap_or(u64::MAX))
}
