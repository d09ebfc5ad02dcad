//! The attempts of a payment.

use bitcoin::base64::prelude::{BASE64_STANDARD, Engine as _};
use bitcoin::hex::DisplayHex as _;
use onespend_proto::v1;
use serde::Serialize;

use super::{outpoint, set};
use crate::cli::format::{feerate, sat, short};
use crate::cli::table::{self, Column};
use crate::cli::words::Word as _;

/// `v1::Attempt`.
#[derive(Debug, Serialize)]
pub struct Attempt {
    pub(super) number: u32,
    fence: u64,
    txid: String,
    state: &'static str,
    inputs: Vec<String>,
    fee_sat: i64,
    vsize: u64,
    feerate_sat_vb: f64,
    raw_transaction: Option<String>,
    unsigned_transaction: Option<String>,
    change: Option<Change>,
    confirmed_height: u32,
    pub(super) depth: u32,
    last_broadcast_error: Option<String>,
    purpose: &'static str,
    /// The permit for an external signer, in base64.
    psbt: Option<String>,
    /// What a fence key signs, in hex.
    abort_message: Option<String>,
}

/// `v1::Change`.
#[derive(Debug, Serialize)]
struct Change {
    vout: u32,
    value_sat: i64,
    keychain: &'static str,
    index: u32,
}

impl From<v1::Attempt> for Attempt {
    fn from(attempt: v1::Attempt) -> Self {
        let change = attempt.change.map(|change| Change {
            keychain: change.keychain().word(),
            vout: change.vout,
            value_sat: change.value_sat,
            index: change.index,
        });
        Self {
            state: attempt.state().word(),
            purpose: attempt.purpose().word(),
            number: attempt.number,
            fence: attempt.fence,
            txid: attempt.txid,
            inputs: attempt.inputs.into_iter().map(|input| outpoint(Some(input))).collect(),
            fee_sat: attempt.fee_sat,
            vsize: attempt.vsize,
            feerate_sat_vb: attempt.feerate_sat_vb,
            raw_transaction: set(attempt.raw_transaction.to_lower_hex_string()),
            unsigned_transaction: set(attempt.unsigned_transaction.to_lower_hex_string()),
            change,
            confirmed_height: attempt.confirmed_height,
            depth: attempt.depth,
            last_broadcast_error: set(attempt.last_broadcast_error),
            psbt: set(BASE64_STANDARD.encode(&attempt.psbt)),
            abort_message: set(attempt.abort_message.to_lower_hex_string()),
        }
    }
}

/// The table of attempts.
pub(super) fn attempts_table(attempts: &[Attempt]) -> String {
    let columns = [
        Column::Number("ATTEMPT"),
        Column::Whole("STATE"),
        Column::Whole("FOR"),
        Column::Number("DEPTH"),
        Column::Number("FEE"),
        Column::Number("FEERATE"),
        Column::Whole("TXID"),
        Column::Text("BROADCAST ERROR"),
    ];
    let row = |attempt: &Attempt| {
        [
            attempt.number.to_string(),
            attempt.state.to_owned(),
            attempt.purpose.to_owned(),
            attempt.depth.to_string(),
            sat(attempt.fee_sat),
            feerate(attempt.feerate_sat_vb),
            short(&attempt.txid),
            attempt.last_broadcast_error.clone().unwrap_or_default(),
        ]
    };
    table::list(columns, attempts.iter().map(row), "no attempts")
}
