//! The snapshots of a data folder.
//!
//! `snapshot-<n>.db` holds one, `snapshot-<n>.json` says what it must be. The second is written last: a snapshot without it
//! does not exist. The highest number is the current one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::hex::{DisplayHex, FromHex};
use serde::{Deserialize, Serialize};

use super::identity::check_format;
use super::snapshot::{RemovedOnDrop, check_size};
use super::{FORMAT_VERSION, IncomingSnapshot, SnapshotDigest, SnapshotFile, StoreError, durable};

/// The current one, and the one before it, which may still be on its way to a node.
const KEPT_SNAPSHOTS: usize = 2;

/// A snapshot with what the shelf knows about it.
pub(crate) struct Shelved {
    pub(crate) number: u64,
    /// Came from another node; the state must be at least as new.
    pub(crate) received: bool,
    pub(crate) file: SnapshotFile,
}

pub(crate) struct Shelf {
    folder: PathBuf,
    cluster_id: String,
    next_incoming: AtomicU64,
    next_copy: AtomicU64,
}

/// The content of `snapshot-<n>.json`.
#[derive(Serialize, Deserialize)]
struct Label {
    format_version: u32,
    cluster_id: String,
    number: u64,
    received: bool,
    marker: String,
    sha256: String,
    size_bytes: u64,
}

impl Shelf {
    /// Removes what an interrupted process left. The folder must be held by this process alone.
    pub(crate) fn open(folder: &Path, cluster_id: &str) -> Result<Self, StoreError> {
        let shelf = Self::of(folder, cluster_id);
        let complete = shelf.numbers()?;
        for name in shelf.names()? {
            let orphan = number_of(&name, ".db").is_some_and(|number| !complete.contains(&number));
            let unfinished = ["snapshot-", "incoming-", "copy-"].iter().any(|start| name.starts_with(start))
                && Path::new(&name).extension().is_some_and(|end| end == "tmp");
            if orphan || unfinished {
                durable::remove(&folder.join(name))?;
            }
        }
        Ok(shelf)
    }

    /// Whether the latest snapshot is there in full size, if there is one, which a start demands. Removes nothing, so
    /// another process may hold the folder.
    pub(crate) fn look(folder: &Path, cluster_id: &str) -> Result<(), StoreError> {
        Self::of(folder, cluster_id).current().map(drop)
    }

    fn of(folder: &Path, cluster_id: &str) -> Self {
        Self {
            folder: folder.to_path_buf(),
            cluster_id: cluster_id.to_owned(),
            next_incoming: AtomicU64::new(0),
            next_copy: AtomicU64::new(0),
        }
    }

    /// The latest snapshot, if there is one; it is there in full size.
    pub(crate) fn current(&self) -> Result<Option<Shelved>, StoreError> {
        let Some(number) = self.numbers()?.pop() else {
            return Ok(None);
        };
        let label = self.read_label(number)?;
        let path = self.path(number, ".db");
        let size_bytes = match fs::metadata(&path) {
            Ok(file) => file.len(),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { path, why: "the label beside it promises it" });
            }
            Err(cause) => return Err(StoreError::io(&path, "look at")(cause)),
        };
        let digest = self.digest(&label)?;
        check_size(&path, size_bytes, &digest)?;
        let file = SnapshotFile::shelved(path, digest);
        Ok(Some(Shelved { number, received: label.received, file }))
    }

    /// Where to make a snapshot before it is put on the shelf.
    pub(crate) fn workplace(&self) -> Result<PathBuf, StoreError> {
        let path = self.folder.join("snapshot-new.tmp");
        durable::remove(&path)?;
        Ok(path)
    }

    /// Where to make a copy that does not go on the shelf. It is removed with the value.
    pub(crate) fn copy_place(&self) -> Result<RemovedOnDrop, StoreError> {
        let number = self.next_copy.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("copy-{number}.tmp"));
        durable::remove(&path)?;
        Ok(RemovedOnDrop(path))
    }

    pub(crate) fn receive(&self, announced: SnapshotDigest) -> Result<IncomingSnapshot, StoreError> {
        let number = self.next_incoming.fetch_add(1, Ordering::Relaxed);
        IncomingSnapshot::begin(self.folder.join(format!("incoming-{number}.tmp")), announced)
    }

    /// Makes a file that is complete and on disk the current snapshot. It must lie in the same folder.
    pub(crate) fn put(&self, from: &Path, digest: SnapshotDigest, received: bool) -> Result<Shelved, StoreError> {
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        let path = self.path(number, ".db");
        durable::rename(from, &path)?;
        let label = Label {
            format_version: FORMAT_VERSION,
            cluster_id: self.cluster_id.clone(),
            number,
            received,
            marker: digest.marker.to_lower_hex_string(),
            sha256: digest.sha256.to_lower_hex_string(),
            size_bytes: digest.size_bytes,
        };
        let at = self.path(number, ".json");
        let text = serde_json::to_vec_pretty(&label)
            .map_err(|cause| StoreError::io(&at, "encode")(std::io::Error::other(cause)))?;
        durable::replace_file(&at, &text)?;
        Ok(Shelved { number, received, file: SnapshotFile::shelved(path, digest) })
    }

    /// Removes the oldest snapshots that nobody needs.
    pub(crate) fn retire(&self) -> Result<(), StoreError> {
        let numbers = self.numbers()?;
        for number in numbers.iter().rev().skip(KEPT_SNAPSHOTS) {
            durable::remove(&self.path(*number, ".json"))?;
            durable::remove(&self.path(*number, ".db"))?;
        }
        Ok(())
    }

    fn path(&self, number: u64, suffix: &str) -> PathBuf {
        self.folder.join(format!("snapshot-{number}{suffix}"))
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let failed = || StoreError::io(&self.folder, "list");
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            names.extend(entry.map_err(failed())?.file_name().into_string());
        }
        Ok(names)
    }

    /// Of all complete snapshots, ascending.
    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let mut numbers: Vec<u64> = self.names()?.iter().filter_map(|name| number_of(name, ".json")).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read_label(&self, number: u64) -> Result<Label, StoreError> {
        /// Read before the rest, which a newer format may write differently.
        #[derive(Deserialize)]
        struct Format {
            format_version: u32,
        }
        let path = self.path(number, ".json");
        let text = fs::read(&path).map_err(StoreError::io(&path, "read"))?;
        let damaged = |cause: serde_json::Error| StoreError::corrupt(&path, cause.to_string());
        let format: Format = serde_json::from_slice(&text).map_err(damaged)?;
        check_format(&path, format.format_version)?;
        let label: Label = serde_json::from_slice(&text).map_err(damaged)?;
        if label.number != number || label.cluster_id != self.cluster_id {
            return Err(StoreError::corrupt(
                &path,
                format!("it is the label of snapshot {} of cluster {:?}", label.number, label.cluster_id),
            ));
        }
        Ok(label)
    }

    fn digest(&self, label: &Label) -> Result<SnapshotDigest, StoreError> {
        let damaged = || StoreError::corrupt(&self.path(label.number, ".json"), "marker or sha256 is not hexadecimal");
        Ok(SnapshotDigest {
            marker: Vec::from_hex(&label.marker).map_err(|_| damaged())?,
            sha256: <[u8; 32]>::from_hex(&label.sha256).map_err(|_| damaged())?,
            size_bytes: label.size_bytes,
        })
    }
}

fn number_of(name: &str, suffix: &str) -> Option<u64> {
    name.strip_prefix("snapshot-")?.strip_suffix(suffix)?.parse().ok()
}
