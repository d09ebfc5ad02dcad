//! One ordered table of the state: rows, which of them changed, and a running hash of all of them.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::RangeBounds;

use bitcoin::OutPoint;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use minicbor::{Decode, Encode};

use crate::ids::{Height, LogIndex, PaymentKey, RequestKey, ReservationId, WalletId};

/// What a row is found by.
pub trait Key: Ord + Clone {
    /// The stored form.
    fn to_bytes(&self) -> Vec<u8>;
    /// Reads the stored form; `None` when it is damaged.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

macro_rules! cbor_key {
    ($($type:ty),*) => { $(
        impl Key for $type {
            fn to_bytes(&self) -> Vec<u8> {
                encode(self)
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                decode(bytes)
            }
        }
    )* };
}
cbor_key!(WalletId, ReservationId, PaymentKey, RequestKey, Height, LogIndex, ());

impl Key for OutPoint {
    fn to_bytes(&self) -> Vec<u8> {
        serialize(self)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        deserialize(bytes).ok()
    }
}

/// Encodes into memory.
#[allow(clippy::panic)]
pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    // Writing to a `Vec` cannot fail, and no row's `Encode` makes an error of its own; if one ever did, the node has
    // to stop, because a row that is not stored must not go unseen.
    match minicbor::encode(value, &mut bytes) {
        Ok(()) => bytes,
        Err(error) => panic!("a row of the state has no stored form: {error}"),
    }
}

/// Decodes a whole buffer; `None` when it is damaged, or holds more than this version knows and would write again.
pub(crate) fn decode<T: Encode<()> + for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Option<T> {
    let value = minicbor::decode(bytes).ok()?;
    (encode(&value) == bytes).then_some(value)
}

/// Hash of a set of rows that does not depend on their order, so it can follow each change: the sum of the rows'
/// SHA-256 hashes in four lanes of 64 bits (AdHash, Bellare and Micciancio 1997). It finds divergence between
/// nodes; it is not meant to withstand somebody who may choose rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowsHash([u64; 4]);

impl RowsHash {
    pub(crate) fn of(table: u8, key: &[u8], value: &[u8]) -> Self {
        let mut engine = sha256::Hash::engine();
        engine.input(&[table]);
        engine.input(&(key.len() as u64).to_be_bytes());
        engine.input(key);
        engine.input(value);
        let digest = sha256::Hash::from_engine(engine).to_byte_array();
        let mut lanes = [0; 4];
        for (lane, bytes) in lanes.iter_mut().zip(digest.chunks_exact(8)) {
            *lane = bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        }
        Self(lanes)
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (lane, more) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(more);
        }
    }

    pub(crate) fn subtract(&mut self, other: Self) {
        for (lane, less) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_sub(less);
        }
    }

    /// The 32 bytes that nodes compare.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&lane.to_be_bytes());
        }
        bytes
    }
}

/// An ordered map that knows which rows changed since they were last drained, and keeps their hash.
#[derive(Debug, Clone)]
pub struct Table<K, V> {
    id: u8,
    rows: BTreeMap<K, (V, RowsHash)>,
    touched: BTreeSet<K>,
    hash: RowsHash,
}

/// Iterator over rows.
pub type Rows<'a, K, V> =
    std::iter::Map<btree_map::Iter<'a, K, (V, RowsHash)>, fn((&'a K, &'a (V, RowsHash))) -> (&'a K, &'a V)>;

impl<K: Key, V: Encode<()> + for<'b> Decode<'b, ()>> Table<K, V> {
    pub(crate) fn new(id: u8) -> Self {
        Self { id, rows: BTreeMap::new(), touched: BTreeSet::new(), hash: RowsHash::default() }
    }

    /// The row, if there.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key).map(|(value, _)| value)
    }

    /// Whether the row is there.
    pub fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows in the order of their keys.
    pub fn iter(&self) -> Rows<'_, K, V> {
        self.rows.iter().map(|(key, (value, _))| (key, value))
    }

    /// The rows of a range of keys, in order.
    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(range).map(|(key, (value, _))| (key, value))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = RowsHash::of(self.id, &key.to_bytes(), &encode(&value));
        self.hash.add(hash);
        self.touched.insert(key.clone());
        let (old, old_hash) = self.rows.insert(key, (value, hash))?;
        self.hash.subtract(old_hash);
        Some(old)
    }

    /// Changes a row in place; `None` when there is none.
    pub(crate) fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let (value, hash) = self.rows.get_mut(key)?;
        let result = change(value);
        self.hash.subtract(*hash);
        *hash = RowsHash::of(self.id, &key.to_bytes(), &encode(value));
        self.hash.add(*hash);
        self.touched.insert(key.clone());
        Some(result)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (old, old_hash) = self.rows.remove(key)?;
        self.hash.subtract(old_hash);
        self.touched.insert(key.clone());
        Some(old)
    }

    /// Rows changed since the last call: the stored key, and the stored value or `None` where the row is gone.
    pub(crate) fn drain_touched(&mut self, out: &mut Vec<StoredRow>) {
        for key in std::mem::take(&mut self.touched) {
            let value = self.rows.get(&key).map(|(value, _)| encode(value));
            out.push(StoredRow { table: self.id, key: key.to_bytes(), value });
        }
    }

    pub(crate) fn load(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (key, value) = (K::from_bytes(key)?, decode(value)?);
        self.insert(key.clone(), value);
        self.touched.remove(&key);
        Some(())
    }

    pub(crate) fn hash(&self) -> RowsHash {
        self.hash
    }

    /// The hash computed anew from the rows, for [`crate::invariant::check`].
    pub(crate) fn recomputed_hash(&self) -> RowsHash {
        let mut sum = RowsHash::default();
        for (key, value) in self {
            sum.add(RowsHash::of(self.id, &key.to_bytes(), &encode(value)));
        }
        sum
    }
}

impl<'a, K: Key, V: Encode<()> + for<'b> Decode<'b, ()>> IntoIterator for &'a Table<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Rows<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One changed row as bytes: what the write-behind store remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Which table.
    pub table: u8,
    /// The stored key.
    pub key: Vec<u8>,
    /// The stored value; `None` where the row was removed.
    pub value: Option<Vec<u8>>,
}
