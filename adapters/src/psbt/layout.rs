//! The maps of a PSBT as bytes (BIP-174, "Specification"): where each begins and ends, before anything is interpreted.

use std::collections::BTreeSet;

use bitcoin::consensus::encode::{Decodable, VarInt};
use bitcoin::hex::DisplayHex;

use super::fault::{Place, PsbtFault};

/// How every PSBT begins.
pub(super) const MAGIC: &[u8] = b"psbt\xff";

/// Most fields in all maps of a PSBT together. One input of a single-key wallet has fewer than ten.
pub const MAX_FIELDS: usize = 65_536;

/// Bytes of a key that a fault shows.
const SHOWN_KEY_BYTES: usize = 16;

/// One map: its fields, and all of its bytes with the separator at its end.
pub(super) struct Map<'a> {
    pub(super) place: Place,
    pub(super) bytes: &'a [u8],
    pub(super) fields: Vec<Field<'a>>,
}

#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// Reads one map after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    fields_left: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, PsbtFault> {
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| PsbtFault::NotPsbt { why: "it does not start with the bytes `psbt` 0xff".to_owned() })?;
        Ok(Self { rest, fields_left: MAX_FIELDS })
    }

    pub(super) fn next_map(&mut self, place: Place) -> Result<Map<'a>, PsbtFault> {
        let start = self.rest;
        let mut fields = Vec::new();
        let mut seen = BTreeSet::new();
        loop {
            let key = self.sized(place)?;
            if key.is_empty() {
                break;
            }
            let field = Field { key, value: self.sized(place)? };
            if !seen.insert(key) {
                let shown = key.get(..SHOWN_KEY_BYTES).unwrap_or(key);
                return Err(PsbtFault::DuplicateKey { place, key: shown.to_lower_hex_string() });
            }
            self.fields_left = self.fields_left.checked_sub(1).ok_or(PsbtFault::TooManyFields { max: MAX_FIELDS })?;
            fields.push(field);
        }
        let (bytes, _) = start.split_at(start.len() - self.rest.len());
        Ok(Map { place, bytes, fields })
    }

    /// Nothing may follow the last map.
    pub(super) fn finish(&self) -> Result<(), PsbtFault> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(PsbtFault::TrailingBytes { bytes }),
        }
    }

    /// A compact size and as many bytes.
    fn sized(&mut self, place: Place) -> Result<&'a [u8], PsbtFault> {
        if self.rest.is_empty() {
            return Err(PsbtFault::Truncated { place });
        }
        let size = VarInt::consensus_decode(&mut self.rest).map_err(|error| match error {
            bitcoin::consensus::encode::Error::Io(_) => PsbtFault::Truncated { place },
            other => PsbtFault::Malformed { place, why: other.to_string() },
        })?;
        let size = usize::try_from(size.0).map_err(|_| PsbtFault::Truncated { place })?;
        let (bytes, rest) = self.rest.split_at_checked(size).ok_or(PsbtFault::Truncated { place })?;
        self.rest = rest;
        Ok(bytes)
    }
}
