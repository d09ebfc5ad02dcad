//! The state as rows: what is written behind, what is loaded again, and the hash that nodes compare.

use bitcoin::hex::DisplayHex;

use super::{State, id};
use crate::index::Index;
use crate::recent::Recent;
use crate::table::{RowsHash, StoredRow};

/// A stored row that cannot be read: the database is damaged or of a later version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {key} of table {table} cannot be read: it is damaged, or a later version wrote it")]
pub struct UnreadableRow {
    /// The table's number.
    pub table: u8,
    /// The key in hex.
    pub key: String,
}

/// Storing.
impl State {
    /// The table whose one row has the facts about the whole, such as the tip of the chain.
    pub const FACTS: u8 = id::META;

    /// The rows that changed since the last call, for the store that remembers them behind the request path.
    pub fn drain_changes(&mut self) -> Vec<StoredRow> {
        let mut rows =
            vec![StoredRow { table: id::META, key: Vec::new(), value: Some(crate::table::encode(&self.meta)) }];
        self.wallets.drain_touched(&mut rows);
        self.utxos.drain_touched(&mut rows);
        self.reservations.drain_touched(&mut rows);
        self.ended.drain_touched(&mut rows);
        self.payments.drain_touched(&mut rows);
        self.requests.drain_touched(&mut rows);
        self.blocks.drain_touched(&mut rows);
        self.spending.drain_touched(&mut rows);
        self.audit.drain_touched(&mut rows);
        rows
    }

    /// Takes one stored row back in, while loading. Call [`State::finish_loading`] after the last one.
    ///
    /// # Errors
    /// [`UnreadableRow`] names the row.
    pub fn load_row(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), UnreadableRow> {
        let read = match table {
            id::META => crate::table::decode(value).map(|meta| self.meta = meta),
            id::WALLETS => self.wallets.load(key, value),
            id::UTXOS => self.utxos.load(key, value),
            id::RESERVATIONS => self.reservations.load(key, value),
            id::ENDED => self.ended.load(key, value),
            id::PAYMENTS => self.payments.load(key, value),
            id::REQUESTS => self.requests.load(key, value),
            id::BLOCKS => self.blocks.load(key, value),
            id::SPENDING => self.spending.load(key, value),
            id::AUDIT => self.audit.load(key, value),
            _ => None,
        };
        read.ok_or_else(|| UnreadableRow { table, key: key.to_lower_hex_string() })
    }

    /// Derives the indexes from the rows.
    pub fn finish_loading(&mut self) {
        self.index = Index::of(self);
        self.recent = Recent::of(self);
    }
}

/// The hash of a stored state, row by row in any order: that of the state which is loaded from the same rows, without
/// having it in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoredHash(RowsHash);

impl StoredHash {
    /// Takes one row in. Each must come once.
    pub fn add(&mut self, table: u8, key: &[u8], value: &[u8]) {
        self.0.add(RowsHash::of(table, key, value));
    }

    /// What [`State::hash`] gives for these rows.
    pub fn finish(self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

/// Comparing.
impl State {
    /// A hash over every row: equal on every node at the same index (safety 15, 31).
    pub fn hash(&self) -> [u8; 32] {
        let mut sum = RowsHash::of(id::META, &[], &crate::table::encode(&self.meta));
        for hash in self.table_hashes() {
            sum.add(hash);
        }
        sum.to_bytes()
    }

    fn table_hashes(&self) -> [RowsHash; 9] {
        [
            self.wallets.hash(),
            self.utxos.hash(),
            self.reservations.hash(),
            self.ended.hash(),
            self.payments.hash(),
            self.requests.hash(),
            self.blocks.hash(),
            self.spending.hash(),
            self.audit.hash(),
        ]
    }

    /// Whether the running hashes are those of the rows.
    pub(crate) fn hashes_are_true(&self) -> bool {
        let again = [
            self.wallets.recomputed_hash(),
            self.utxos.recomputed_hash(),
            self.reservations.recomputed_hash(),
            self.ended.recomputed_hash(),
            self.payments.recomputed_hash(),
            self.requests.recomputed_hash(),
            self.blocks.recomputed_hash(),
            self.spending.recomputed_hash(),
            self.audit.recomputed_hash(),
        ];
        self.table_hashes() == again
    }
}
