//! The form of a backup file: its header, and its sums.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::hex::{DisplayHex, FromHex};
use serde::{Deserialize, Serialize};

use super::fault::Part;

/// The form that this version writes, and the only one that it reads.
pub const FORM_VERSION: u32 = 1;

pub(super) const BEGINNING_BYTES: usize = 32;
pub(super) const SUM_BYTES: usize = 32;
pub(super) const END_BYTES: usize = 2 * SUM_BYTES;
/// A header takes a few hundred bytes, and more for a cluster with many members.
pub(super) const MAX_HEADER_BYTES: usize = 64 * 1024;
const MAGIC: &[u8; 16] = b"onespend backup\n";
/// Bytes of the beginning that its own sum is over.
const SUMMED_BYTES: usize = 24;

/// Whose state it is, and of when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster_id: String,
    /// The node that the copy was made on.
    pub node_id: u64,
    /// Log index of the last entry in it.
    pub index: u64,
    /// Raft term of that entry.
    pub term: u64,
    /// Hash of the state at that index, as nodes compare it.
    pub state_hash: [u8; 32],
    /// Bytes of the content.
    pub size_bytes: u64,
    /// Wall clock in Unix milliseconds, for people to read and for names.
    pub made_unix_ms: u64,
    /// The program that made it, for people to read.
    pub version: String,
}

/// As it is written. Fields may be added; those that are not known are left alone.
#[derive(Serialize, Deserialize)]
struct Written {
    cluster_id: String,
    node_id: u64,
    index: u64,
    term: u64,
    state_hash: String,
    size_bytes: u64,
    made_unix_ms: u64,
    version: String,
}

impl Header {
    /// Beginning and header, and the sum that follows them.
    pub(super) fn encode(&self) -> serde_json::Result<(Vec<u8>, [u8; SUM_BYTES])> {
        let text = serde_json::to_vec(&Written {
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id,
            index: self.index,
            term: self.term,
            state_hash: self.state_hash.to_lower_hex_string(),
            size_bytes: self.size_bytes,
            made_unix_ms: self.made_unix_ms,
            version: self.version.clone(),
        })?;
        let mut bytes = beginning(FORM_VERSION, u32::try_from(text.len()).unwrap_or(u32::MAX)).to_vec();
        bytes.extend(text);
        let sum = sum_of(&[&bytes]);
        Ok((bytes, sum))
    }

    pub(super) fn decode(text: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        Ok(Self {
            cluster_id: written.cluster_id,
            node_id: written.node_id,
            index: written.index,
            term: written.term,
            state_hash: <[u8; 32]>::from_hex(&written.state_hash).map_err(|error| format!("state_hash: {error}"))?,
            size_bytes: written.size_bytes,
            made_unix_ms: written.made_unix_ms,
            version: written.version,
        })
    }
}

/// What a beginning says: the version of the form, and the header's length.
pub(super) fn read_beginning(bytes: &[u8; BEGINNING_BYTES]) -> Result<(u32, usize), (Part, &'static str)> {
    let (head, sum) = bytes.split_at(SUMMED_BYTES);
    let number = |at: usize| head[at..at + 4].iter().fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte));
    let (version, length) = (number(16), number(20));
    if !head.starts_with(MAGIC) {
        return Err((Part::Beginning, "this is no backup of onespend"));
    }
    if sum_of(&[head])[..sum.len()] != *sum {
        return Err((Part::Beginning, "its checksum is another"));
    }
    Ok((version, usize::try_from(length).unwrap_or(usize::MAX)))
}

pub(super) fn beginning(version: u32, header_bytes: u32) -> [u8; BEGINNING_BYTES] {
    let mut bytes = [0; BEGINNING_BYTES];
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16..20].copy_from_slice(&version.to_be_bytes());
    bytes[20..24].copy_from_slice(&header_bytes.to_be_bytes());
    let sum = sum_of(&[&bytes[..SUMMED_BYTES]]);
    bytes[SUMMED_BYTES..].copy_from_slice(&sum[..BEGINNING_BYTES - SUMMED_BYTES]);
    bytes
}

/// The last sum of a file, over its two others.
pub(super) fn seal(header_sum: &[u8; SUM_BYTES], content_sum: &[u8; SUM_BYTES]) -> [u8; SUM_BYTES] {
    sum_of(&[header_sum, content_sum])
}

fn sum_of(parts: &[&[u8]]) -> [u8; SUM_BYTES] {
    let mut engine = sha256::Hash::engine();
    for part in parts {
        engine.input(part);
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}
