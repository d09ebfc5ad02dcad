//! Wallets, balances and addresses.

use std::time::Duration;

use bitcoin::hex::DisplayHex as _;
use onespend_proto::v1;
use serde::Serialize;

use super::chain::Block;
use super::{millis, set};
use crate::cli::answer::MORE;
use crate::cli::format::{feerate, sat, span};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};
use crate::cli::words::Word as _;

/// `v1::Wallet`.
#[derive(Debug, Serialize)]
pub struct Wallet {
    wallet_id: String,
    descriptor: String,
    /// Null for a wallet that is only watched.
    signer: Option<String>,
    limits: Limits,
    birth_height: u32,
    frozen: bool,
    frozen_note: Option<String>,
    next_external_index: u32,
    next_internal_index: u32,
    /// Of an external signer, in hex.
    fence_key: Option<String>,
}

/// `v1::WalletLimits`.
#[derive(Debug, Serialize)]
pub struct Limits {
    max_fee_sat: i64,
    max_feerate_sat_vb: f64,
    max_fee_percent: u32,
    finality_depth: u32,
    max_reservations: u32,
    max_reserved_percent: u32,
    velocity: Option<Velocity>,
    spend_unconfirmed_change: bool,
}

/// `v1::Velocity`.
#[derive(Debug, Serialize)]
struct Velocity {
    window_ms: Option<u64>,
    max_sat: i64,
}

impl From<v1::Wallet> for Wallet {
    fn from(wallet: v1::Wallet) -> Self {
        let limits = wallet.limits.unwrap_or_default();
        Self {
            wallet_id: wallet.wallet_id,
            descriptor: wallet.descriptor,
            signer: set(wallet.signer),
            limits: Limits {
                max_fee_sat: limits.max_fee_sat,
                max_feerate_sat_vb: limits.max_feerate_sat_vb,
                max_fee_percent: limits.max_fee_percent,
                finality_depth: limits.finality_depth,
                max_reservations: limits.max_reservations,
                max_reserved_percent: limits.max_reserved_percent,
                velocity: limits.velocity.map(|velocity| Velocity {
                    window_ms: millis(velocity.window.as_ref()),
                    max_sat: velocity.max_sat,
                }),
                spend_unconfirmed_change: limits.spend_unconfirmed_change,
            },
            birth_height: wallet.birth_height,
            frozen: wallet.frozen,
            frozen_note: set(wallet.frozen_note),
            next_external_index: wallet.next_external_index,
            next_internal_index: wallet.next_internal_index,
            fence_key: set(wallet.fence_key.to_lower_hex_string()),
        }
    }
}

impl Wallet {
    fn signer_text(&self) -> String {
        self.signer.clone().unwrap_or_else(|| "none, watch only".to_owned())
    }

    fn frozen_text(&self) -> String {
        match (self.frozen, &self.frozen_note) {
            (false, _) => "no".to_owned(),
            (true, Some(note)) => format!("yes: {note}"),
            (true, None) => "yes".to_owned(),
        }
    }
}

impl Limits {
    fn reservations_text(&self) -> String {
        match self.max_reserved_percent {
            0 => format!("at most {}", self.max_reservations),
            percent => format!("at most {}, of {percent} % of the balance", self.max_reservations),
        }
    }
}

impl Velocity {
    fn text(&self) -> String {
        let window = Duration::from_millis(self.window_ms.unwrap_or_default());
        format!("at most {} in {}", sat(self.max_sat), span(window))
    }
}

impl Show for Wallet {
    fn text(&self) -> String {
        let limits = &self.limits;
        table::card([
            ("wallet", self.wallet_id.clone()),
            ("descriptor", self.descriptor.clone()),
            ("signer", self.signer_text()),
            ("frozen", self.frozen_text()),
            ("registered at", format!("height {}", self.birth_height)),
            (
                "addresses",
                format!("{} receiving, {} change handed out", self.next_external_index, self.next_internal_index),
            ),
            (
                "fee limits",
                format!(
                    "{}, {}, {} % of the amount",
                    sat(limits.max_fee_sat),
                    feerate(limits.max_feerate_sat_vb),
                    limits.max_fee_percent
                ),
            ),
            ("settled after", format!("{} blocks", limits.finality_depth)),
            ("reservations", limits.reservations_text()),
            ("velocity", limits.velocity.as_ref().map(Velocity::text).unwrap_or_default()),
            (
                "unconfirmed change",
                if limits.spend_unconfirmed_change { "may be spent".to_owned() } else { String::new() },
            ),
            ("fence key", self.fence_key.clone().unwrap_or_default()),
        ])
    }
}

/// A page of wallets.
#[derive(Debug, Serialize)]
pub struct Wallets {
    wallets: Vec<Wallet>,
    /// Whether there are more than were asked for.
    more: bool,
}

impl Wallets {
    /// Of pages that were read.
    pub fn new((wallets, more): (Vec<v1::Wallet>, bool)) -> Self {
        Self { wallets: wallets.into_iter().map(Wallet::from).collect(), more }
    }
}

impl Show for Wallets {
    fn text(&self) -> String {
        let columns =
            [Column::Whole("WALLET"), Column::Whole("SIGNER"), Column::Whole("SETTLED AFTER"), Column::Text("FROZEN")];
        let row = |wallet: &Wallet| {
            let settled = format!("{} blocks", wallet.limits.finality_depth);
            [wallet.wallet_id.clone(), wallet.signer_text(), settled, wallet.frozen_text()]
        };
        let list = table::list(columns, self.wallets.iter().map(row), "no wallets");
        if self.more { format!("{list}\n{MORE}") } else { list }
    }
}

/// `v1::Balance`.
#[derive(Debug, Serialize)]
pub struct Balance {
    wallet_id: String,
    total_sat: i64,
    available_sat: i64,
    reserved_sat: i64,
    exposed_sat: i64,
    immature_sat: i64,
    quarantined_sat: i64,
    unconfirmed_sat: i64,
    available_count: u64,
    tip: Option<Block>,
}

impl Balance {
    /// Of an answer.
    pub fn new(wallet_id: String, answer: v1::GetBalanceResponse) -> Self {
        let balance = answer.balance.unwrap_or_default();
        Self {
            wallet_id,
            total_sat: balance.total_sat,
            available_sat: balance.available_sat,
            reserved_sat: balance.reserved_sat,
            exposed_sat: balance.exposed_sat,
            immature_sat: balance.immature_sat,
            quarantined_sat: balance.quarantined_sat,
            unconfirmed_sat: balance.unconfirmed_sat,
            available_count: balance.available_count,
            tip: answer.tip.map(Block::from),
        }
    }
}

impl Show for Balance {
    fn text(&self) -> String {
        let row = |name: &str, amount: i64, note: String| [name.to_owned(), sat(amount), note];
        let coins = if self.available_count == 1 { "coin" } else { "coins" };
        let rows = [
            row("available", self.available_sat, format!("{} {coins}", self.available_count)),
            row("reserved", self.reserved_sat, "until release or expiry".to_owned()),
            row("exposed", self.exposed_sat, "a signature may exist".to_owned()),
            row("immature", self.immature_sat, "coinbase below depth 100".to_owned()),
            row("unconfirmed", self.unconfirmed_sat, "in no block".to_owned()),
            row("quarantined", self.quarantined_sat, "an operator must look".to_owned()),
        ];
        let tip = self.tip.as_ref().map(|tip| format!("at height {}", tip.height)).unwrap_or_default();
        let rows = rows.into_iter().enumerate().filter(|(at, row)| *at == 0 || row[1] != sat(0)).map(|(_, row)| row);
        let total = row("total", self.total_sat, tip);
        let columns = [Column::Whole("STATE"), Column::Number("AMOUNT"), Column::Text("")];
        table::list(columns, rows.chain([total]), "")
    }
}

/// `v1::NewAddressResponse`.
#[derive(Debug, Serialize)]
pub struct Address {
    address: String,
    index: u32,
    keychain: &'static str,
    script: String,
}

impl Address {
    /// Of an answer.
    pub fn new(answer: &v1::NewAddressResponse, keychain: v1::Keychain) -> Self {
        Self {
            address: answer.address.clone(),
            index: answer.index,
            keychain: keychain.word(),
            script: answer.script.to_lower_hex_string(),
        }
    }
}

impl Show for Address {
    /// Alone on its line, for `$(…)`.
    fn text(&self) -> String {
        self.address.clone()
    }
}
