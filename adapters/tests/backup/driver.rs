//! What a case needs beside the port.

use std::fs;
use std::path::PathBuf;

use bitcoin::hashes::{Hash, sha256};
use onespend_adapters::backup::{BackupDepot, BackupError, Header};
use tempfile::TempDir;

/// A depot of a test's own, empty at first, and a way past the port.
pub trait Driver {
    fn depot(&self) -> Box<dyn BackupDepot>;
    /// The same, of a place that is not there.
    fn nowhere(&self) -> Box<dyn BackupDepot>;
    /// Everything that is there, by name.
    fn names(&self) -> Vec<String>;
    fn get(&self, name: &str) -> Vec<u8>;
    fn put(&self, name: &str, bytes: &[u8]);
    /// How a message calls what has this name.
    fn shown(&self, name: &str) -> String;
}

/// What is kept: a content in a file, and what its header says.
pub struct Specimen {
    _folder: TempDir,
    pub file: PathBuf,
    pub header: Header,
    pub sum: [u8; 32],
}

impl Specimen {
    pub fn of(content: &[u8], made_unix_ms: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("content");
        fs::write(&file, content).unwrap();
        let header = Header {
            cluster_id: "demo".to_owned(),
            node_id: 1,
            index: 9,
            term: 2,
            state_hash: [7; 32],
            size_bytes: content.len() as u64,
            made_unix_ms,
            version: "1".to_owned(),
        };
        Self { _folder: folder, file, header, sum: sha256::Hash::hash(content).to_byte_array() }
    }

    pub fn store(&self, depot: &dyn BackupDepot) -> Result<String, BackupError> {
        depot.store(&self.header, &self.file, &self.sum)
    }
}

/// Bytes in which no two windows are the same.
pub fn varied(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
