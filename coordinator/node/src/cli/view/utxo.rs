//! Coins.

use bitcoin::hex::DisplayHex as _;
use onespend_proto::v1;
use serde::Serialize;

use super::{outpoint, set};
use crate::cli::answer::MORE;
use crate::cli::format::{counted, grouped, sat};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};
use crate::cli::words::Word as _;

/// `v1::Utxo`.
#[derive(Debug, Serialize)]
pub struct Utxo {
    outpoint: String,
    /// Satoshi.
    pub value_sat: i64,
    script: String,
    height: u32,
    depth: u32,
    coinbase: bool,
    keychain: &'static str,
    index: u32,
    address: String,
    state: &'static str,
    reservation_id: Option<String>,
    payment_id: Option<String>,
    spending_txid: Option<String>,
}

impl From<v1::Utxo> for Utxo {
    fn from(utxo: v1::Utxo) -> Self {
        Self {
            state: utxo.state().word(),
            keychain: utxo.keychain().word(),
            outpoint: outpoint(utxo.outpoint),
            value_sat: utxo.value_sat,
            script: utxo.script.to_lower_hex_string(),
            height: utxo.height,
            depth: utxo.depth,
            coinbase: utxo.coinbase,
            index: utxo.index,
            address: utxo.address,
            reservation_id: set(utxo.reservation_id),
            payment_id: set(utxo.payment_id),
            spending_txid: set(utxo.spending_txid),
        }
    }
}

/// The table of coins: an outpoint must fit whole, so values have their unit in the heading.
pub(super) fn coins(utxos: &[Utxo]) -> String {
    let columns =
        [Column::Whole("OUTPOINT"), Column::Number("VALUE/sat"), Column::Whole("STATE"), Column::Number("DEPTH")];
    let row =
        |utxo: &Utxo| [utxo.outpoint.clone(), grouped(utxo.value_sat), utxo.state.to_owned(), utxo.depth.to_string()];
    table::list(columns, utxos.iter().map(row), "no coins")
}

/// `2 coins, 150,000 sat`.
pub(super) fn sum(utxos: &[Utxo]) -> String {
    let total = utxos.iter().fold(0_i64, |sum, utxo| sum.saturating_add(utxo.value_sat));
    format!("{}, {}", counted(utxos.len(), "coin", "coins"), sat(total))
}

/// A page of coins.
#[derive(Debug, Serialize)]
pub struct Utxos {
    utxos: Vec<Utxo>,
    /// Whether there are more than were asked for.
    more: bool,
}

impl Utxos {
    /// Of pages that were read.
    pub fn new((utxos, more): (Vec<v1::Utxo>, bool)) -> Self {
        Self { utxos: utxos.into_iter().map(Utxo::from).collect(), more }
    }
}

impl Show for Utxos {
    fn text(&self) -> String {
        let list = coins(&self.utxos);
        match (self.utxos.is_empty(), self.more) {
            (true, _) => list,
            (false, false) => format!("{list}\n{}", sum(&self.utxos)),
            (false, true) => format!("{list}\n{} shown; {MORE}", sum(&self.utxos)),
        }
    }
}
