//! Recovery mode.

use onespend_proto::v1;
use serde::Serialize;

use super::chain::Block;
use super::set;
use crate::cli::output::Show;
use crate::cli::table;

/// `v1::Recovery`.
#[derive(Debug, Serialize)]
pub struct Recovery {
    active: bool,
    why: Option<String>,
    reconciled: Option<Block>,
    epoch: u32,
}

impl From<v1::Recovery> for Recovery {
    fn from(recovery: v1::Recovery) -> Self {
        Self {
            active: recovery.active,
            why: set(recovery.why),
            reconciled: recovery.reconciled.map(Block::from),
            epoch: recovery.epoch,
        }
    }
}

impl Show for Recovery {
    fn text(&self) -> String {
        let compared = self.reconciled.as_ref().map_or_else(|| "not yet".to_owned(), Block::line);
        if !self.active {
            return table::card([("recovery", "off".to_owned()), ("fence epoch", self.epoch.to_string())]);
        }
        table::card([
            ("recovery", "on: nothing is signed".to_owned()),
            ("why", self.why.clone().unwrap_or_default()),
            ("compared with bitcoind", compared),
            ("fence epoch", self.epoch.to_string()),
        ])
    }
}
