//! Backups.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bitcoin::hex::DisplayHex;
use onespend_adapters::backup::{Header, Kept};
use serde::Serialize;

use crate::backup::Contents;
use crate::cli::format::{ago, counted, grouped};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};

/// What a header says.
#[derive(Debug, Serialize)]
pub struct Of {
    cluster_id: String,
    node_id: u64,
    index: u64,
    term: u64,
    state_hash: String,
    made_unix_ms: u64,
    version: String,
}

impl From<&Header> for Of {
    fn from(header: &Header) -> Self {
        Self {
            cluster_id: header.cluster_id.clone(),
            node_id: header.node_id,
            index: header.index,
            term: header.term,
            state_hash: header.state_hash.to_lower_hex_string(),
            made_unix_ms: header.made_unix_ms,
            version: header.version.clone(),
        }
    }
}

impl Of {
    fn made(&self) -> String {
        ago(UNIX_EPOCH + Duration::from_millis(self.made_unix_ms))
    }
}

/// A backup of which everything is right.
#[derive(Debug, Serialize)]
pub struct Summary {
    file: PathBuf,
    #[serde(flatten)]
    of: Of,
    content_bytes: u64,
    network: Option<String>,
    /// The block up to which it has followed the chain.
    tip_height: Option<u32>,
    wallets: usize,
    coins: usize,
    payments: usize,
    /// Those that are not settled.
    open_payments: usize,
    reservations: usize,
    /// Whether the cluster was in recovery mode.
    recovery: bool,
}

impl Summary {
    /// Of a backup that was read.
    pub fn of(file: &Path, contents: &Contents) -> Self {
        let state = &contents.state;
        Self {
            file: file.to_owned(),
            of: Of::from(&contents.header),
            content_bytes: contents.header.size_bytes,
            network: state.network().ok().map(|network| network.to_string()),
            tip_height: state.tip().ok().map(|tip| tip.height.0),
            wallets: state.wallets().count(),
            coins: state.utxos().count(),
            payments: state.payment_count(),
            open_payments: state.open_payments().len(),
            reservations: state.total_reservations(),
            recovery: state.recovery().is_some(),
        }
    }
}

impl Show for Summary {
    fn text(&self) -> String {
        let chain = match (&self.network, self.tip_height) {
            (Some(network), Some(height)) => format!("{network}, up to block {height}"),
            _ => "not followed yet".to_owned(),
        };
        let recovery = if self.recovery { "was on: that cluster was restored itself, and not confirmed" } else { "" };
        table::card([
            ("backup", self.file.display().to_string()),
            ("verdict", "whole: every checksum, row and rule holds".to_owned()),
            ("state of", format!("node {} of cluster {}", self.of.node_id, self.of.cluster_id)),
            ("made", format!("{}, by version {}", self.of.made(), self.of.version)),
            ("log", format!("index {}, term {}", self.of.index, self.of.term)),
            ("state hash", self.of.state_hash.clone()),
            ("content", bytes(self.content_bytes)),
            ("chain", chain),
            ("holds", self.counts()),
            ("recovery mode", recovery.to_owned()),
        ])
    }
}

impl Summary {
    fn counts(&self) -> String {
        let some = |number: usize, one: &str| counted(number, one, &format!("{one}s"));
        format!(
            "{}, {}, {} ({} not settled), {}",
            some(self.wallets, "wallet"),
            some(self.coins, "coin"),
            some(self.payments, "payment"),
            self.open_payments,
            some(self.reservations, "reservation"),
        )
    }
}

/// One file of a folder.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    size_bytes: u64,
    #[serde(flatten)]
    of: Option<Of>,
    /// Why it is no backup that could be used.
    fault: Option<String>,
}

/// The files of a folder.
#[derive(Debug, Serialize)]
pub struct Listed {
    backups: Vec<Line>,
}

impl Listed {
    /// By name.
    pub fn of(kept: Vec<Kept>) -> Self {
        let line = |kept: Kept| {
            let (of, fault) = match &kept.header {
                Ok(header) => (Some(Of::from(header)), None),
                Err(error) => (None, Some(error.to_string())),
            };
            Line { name: kept.name, size_bytes: kept.size_bytes, of, fault }
        };
        Self { backups: kept.into_iter().map(line).collect() }
    }
}

impl Show for Listed {
    fn text(&self) -> String {
        let columns = [
            Column::Whole("NAME"),
            Column::Whole("CLUSTER"),
            Column::Number("NODE"),
            Column::Number("INDEX"),
            Column::Number("SIZE"),
            Column::Text("MADE"),
        ];
        let row = |line: &Line| match (&line.of, &line.fault) {
            (Some(of), _) => [
                line.name.clone(),
                of.cluster_id.clone(),
                of.node_id.to_string(),
                of.index.to_string(),
                bytes(line.size_bytes),
                of.made(),
            ],
            (None, fault) => {
                let none = String::new;
                [line.name.clone(), none(), none(), none(), bytes(line.size_bytes), fault.clone().unwrap_or_default()]
            }
        };
        table::list(columns, self.backups.iter().map(row), "nothing that ends in .backup")
    }
}

fn bytes(count: u64) -> String {
    format!("{} B", grouped(i64::try_from(count).unwrap_or(i64::MAX)))
}
