//! Snapshots as files, and receiving one.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::hex::DisplayHex;

use super::{StoreError, durable};

const READ_BYTES: usize = 64 * 1024;

/// What a snapshot must be. Travels ahead of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotDigest {
    /// The place in the history, as given to `write`.
    pub marker: Vec<u8>,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// Length of the file.
    pub size_bytes: u64,
}

/// A complete snapshot on disk; never changed, only removed.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it must be.
    pub digest: SnapshotDigest,
    /// A received or copied one is removed with the last clone of this value, if it was not installed.
    _temporary: Option<Arc<RemovedOnDrop>>,
}

impl SnapshotFile {
    pub(crate) fn shelved(path: PathBuf, digest: SnapshotDigest) -> Self {
        Self { path, digest, _temporary: None }
    }

    /// A copy that nobody else knows of.
    pub(crate) fn copied(file: RemovedOnDrop, digest: SnapshotDigest) -> Self {
        Self { path: file.0.clone(), digest, _temporary: Some(Arc::new(file)) }
    }

    /// Reads the file and compares it with its digest.
    pub(crate) fn check_content(&self) -> Result<(), StoreError> {
        let failed = || StoreError::io(&self.path, "read");
        let (found, size_bytes) = File::open(&self.path).and_then(sha256_of).map_err(failed())?;
        check_size(&self.path, size_bytes, &self.digest)?;
        check_sha256(&self.path, found, &self.digest)
    }
}

/// A temporary file.
#[derive(Debug)]
pub(crate) struct RemovedOnDrop(pub(crate) PathBuf);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        // What stays behind is removed at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A snapshot that is being received. Dropped before it is finished, it leaves nothing.
pub struct IncomingSnapshot {
    file: File,
    temporary: Arc<RemovedOnDrop>,
    announced: SnapshotDigest,
    hash: sha256::HashEngine,
    received_bytes: u64,
}

impl IncomingSnapshot {
    pub(crate) fn begin(path: PathBuf, announced: SnapshotDigest) -> Result<Self, StoreError> {
        let file = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io(&path, "create"))?;
        Ok(Self {
            file,
            temporary: Arc::new(RemovedOnDrop(path)),
            announced,
            hash: sha256::Hash::engine(),
            received_bytes: 0,
        })
    }

    /// Adds the next part. Refuses more than was announced.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        let path = &self.temporary.0;
        self.received_bytes += chunk.len() as u64;
        if self.received_bytes > self.announced.size_bytes {
            return check_size(path, self.received_bytes, &self.announced);
        }
        self.hash.input(chunk);
        self.file.write_all(chunk).map_err(StoreError::io(path, "write"))
    }

    /// Ends it: all is there, is what was announced, and is on disk.
    pub fn finish(self) -> Result<SnapshotFile, StoreError> {
        let path = self.temporary.0.clone();
        check_size(&path, self.received_bytes, &self.announced)?;
        check_sha256(&path, sha256::Hash::from_engine(self.hash).to_byte_array(), &self.announced)?;
        self.file.sync_all().map_err(StoreError::io(&path, "sync"))?;
        durable::sync_folder_of(&path)?;
        Ok(SnapshotFile { path, digest: self.announced, _temporary: Some(self.temporary) })
    }
}

/// SHA-256 of a stream, and its length in bytes.
pub(crate) fn sha256_of(mut content: impl std::io::Read) -> std::io::Result<([u8; 32], u64)> {
    let mut engine = sha256::Hash::engine();
    let mut buffer = vec![0; READ_BYTES];
    let mut size_bytes = 0;
    loop {
        let n = content.read(&mut buffer)?;
        if n == 0 {
            return Ok((sha256::Hash::from_engine(engine).to_byte_array(), size_bytes));
        }
        engine.input(&buffer[..n]);
        size_bytes += n as u64;
    }
}

pub(crate) fn check_size(path: &Path, found: u64, digest: &SnapshotDigest) -> Result<(), StoreError> {
    if found == digest.size_bytes {
        return Ok(());
    }
    Err(StoreError::Checksum {
        path: path.to_path_buf(),
        found: format!("of {found} bytes"),
        expected: format!("one of {} bytes", digest.size_bytes),
    })
}

fn check_sha256(path: &Path, found: [u8; 32], digest: &SnapshotDigest) -> Result<(), StoreError> {
    if found == digest.sha256 {
        return Ok(());
    }
    Err(StoreError::Checksum {
        path: path.to_path_buf(),
        found: found.to_lower_hex_string(),
        expected: digest.sha256.to_lower_hex_string(),
    })
}
