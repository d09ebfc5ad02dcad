//! Which data folder each other node came with. A node whose disk was lost comes back with another folder, without its
//! votes and its log: under its old id it could vote twice in one term, and help to lose what it had acknowledged. So a
//! node remembers the folder that each other node came with first, and knows a stranger.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::sqlite::DataFolder;
use super::{StoreError, durable};

const FILE: &str = "peers.json";

/// What this node remembers of the others. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct PeerBook(Arc<Book>);

#[derive(Debug, Default)]
struct Book {
    /// `None` keeps it in memory alone.
    path: Option<PathBuf>,
    known: Mutex<BTreeMap<u64, String>>,
}

/// What came of meeting a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meeting {
    /// It came with the folder that it always had, or it came for the first time.
    Known,
    /// It came with another folder than before.
    Stranger {
        /// The instance of the folder that it had before.
        before: String,
    },
}

impl PeerBook {
    /// Reads the book of a data folder; none is an empty one.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be read or is damaged.
    pub fn open(folder: &DataFolder) -> Result<Self, StoreError> {
        let path = folder.path().join(FILE);
        let known = Mutex::new(read(&path)?);
        Ok(Self(Arc::new(Book { path: Some(path), known })))
    }

    /// Whether a folder has no book. One of a node that has met others has lost it: the node takes whatever folder comes
    /// next under each id for the right one.
    pub fn is_missing(folder: &Path) -> bool {
        !folder.join(FILE).exists()
    }

    /// The folder that a node came with first.
    pub fn known(&self, node_id: u64) -> Option<String> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).get(&node_id).cloned()
    }

    /// The nodes that came with a folder, ascending.
    pub fn met(&self) -> Vec<u64> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Compares the folder that a node comes with, and remembers it, on the disk, if the node comes for the first time.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be remembered; then the node was not met.
    pub fn meet(&self, node_id: u64, instance: &str) -> Result<Meeting, StoreError> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&node_id) {
            Some(before) if before == instance => Ok(Meeting::Known),
            Some(before) => Ok(Meeting::Stranger { before: before.clone() }),
            None => {
                let mut more = known.clone();
                more.insert(node_id, instance.to_owned());
                if let Some(path) = &self.0.path {
                    replace(path, &more)?;
                }
                *known = more;
                Ok(Meeting::Known)
            }
        }
    }
}

/// What the file holds; nothing if there is none.
fn read(path: &Path) -> Result<BTreeMap<u64, String>, StoreError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|cause| StoreError::corrupt(path, cause.to_string())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(cause) => Err(StoreError::io(path, "read")(cause)),
    }
}

fn replace(path: &Path, known: &BTreeMap<u64, String>) -> Result<(), StoreError> {
    let text =
        serde_json::to_vec_pretty(known).map_err(|cause| StoreError::io(path, "encode")(io::Error::other(cause)))?;
    durable::replace_file(path, &text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Owner;

    fn folder(at: &std::path::Path) -> DataFolder {
        DataFolder::open(at, &Owner { cluster_id: "c".to_owned(), node_id: 1 }).unwrap()
    }

    #[test]
    fn a_node_that_comes_with_another_folder_is_a_stranger_also_after_a_restart() {
        let at = tempfile::tempdir().unwrap();
        let book = PeerBook::open(&folder(at.path())).unwrap();
        assert!(PeerBook::is_missing(at.path()), "it met nobody yet");
        assert_eq!(book.meet(2, "a").unwrap(), Meeting::Known);
        assert!(!PeerBook::is_missing(at.path()));
        assert_eq!(book.meet(3, "b").unwrap(), Meeting::Known);
        drop(book);
        let book = PeerBook::open(&folder(at.path())).unwrap();
        assert_eq!(book.known(2).as_deref(), Some("a"));
        assert_eq!(book.meet(2, "a").unwrap(), Meeting::Known);
        assert_eq!(book.meet(2, "z").unwrap(), Meeting::Stranger { before: "a".to_owned() });
        assert_eq!(book.meet(2, "a").unwrap(), Meeting::Known, "a stranger changes nothing");
        assert_eq!(book.known(4), None);
        assert_eq!(book.met(), [2, 3]);
    }

    #[test]
    fn a_damaged_book_is_refused_and_named() {
        let at = tempfile::tempdir().unwrap();
        let folder = folder(at.path());
        fs::write(at.path().join(FILE), "{").unwrap();
        let error = PeerBook::open(&folder).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
