//! What stands around the content of a backup, for whoever writes one as its content comes.

use bitcoin::hashes::{Hash, HashEngine, sha256};

use super::form::{END_BYTES, Header, SUM_BYTES, seal};

/// Counts and sums the content of one backup.
pub(super) struct Frame {
    header_sum: [u8; SUM_BYTES],
    sum: sha256::HashEngine,
    announced_bytes: u64,
    seen_bytes: u64,
}

impl Frame {
    /// With the bytes that come before the content.
    pub(super) fn begin(header: &Header) -> serde_json::Result<(Self, Vec<u8>)> {
        let (mut bytes, header_sum) = header.encode()?;
        bytes.extend(header_sum);
        let sum = sha256::Hash::engine();
        Ok((Self { header_sum, sum, announced_bytes: header.size_bytes, seen_bytes: 0 }, bytes))
    }

    /// Takes note of the next part of the content.
    ///
    /// # Errors
    /// In words: it is more than the header announces.
    pub(super) fn add(&mut self, chunk: &[u8]) -> Result<(), String> {
        self.seen_bytes = self.seen_bytes.saturating_add(chunk.len() as u64);
        if self.seen_bytes > self.announced_bytes {
            return Err(self.wrong_size());
        }
        self.sum.input(chunk);
        Ok(())
    }

    /// The bytes that come after the content.
    ///
    /// # Errors
    /// In words: it is less than the header announces, or has another sum than its source says.
    pub(super) fn end(self, content_sum: &[u8; SUM_BYTES]) -> Result<[u8; END_BYTES], String> {
        if self.seen_bytes != self.announced_bytes {
            return Err(self.wrong_size());
        }
        let found = sha256::Hash::from_engine(self.sum).to_byte_array();
        if found != *content_sum {
            return Err("it is not what its source sent".to_owned());
        }
        let mut bytes = [0; END_BYTES];
        bytes[..SUM_BYTES].copy_from_slice(&found);
        bytes[SUM_BYTES..].copy_from_slice(&seal(&self.header_sum, &found));
        Ok(bytes)
    }

    fn wrong_size(&self) -> String {
        format!("it has {} bytes of {}", self.seen_bytes, self.announced_bytes)
    }
}
