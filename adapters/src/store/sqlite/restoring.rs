//! Putting a backup into a new data folder: done wholly, or the folder is refused for good.
//!
//! A mark is on the disk before anything else is, and goes when everything else is there. No node starts on a folder with
//! the mark, and nothing is restored into it: whoever sees it empties the folder and begins again.

use std::fs;
use std::path::{Path, PathBuf};

use super::DataFolder;
use super::folder::{LOCK_FILE, make_folder, take_lock};
use crate::store::{Owner, StoreError, durable};

/// The file whose presence is the mark.
const MARK_FILE: &str = "RESTORING";
/// What an empty folder may hold: our own lock, and what file systems put there.
const NOTHING: [&str; 2] = [LOCK_FILE, "lost+found"];

/// A data folder that was empty and is being filled. Dropped before it is finished, it stays marked.
#[derive(Debug)]
pub struct NewFolder {
    folder: DataFolder,
    mark: PathBuf,
}

impl NewFolder {
    /// Takes an empty folder, or makes one, and the databases in it.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`], [`StoreError::HalfRestored`], [`StoreError::Locked`], or what the system said.
    pub fn begin(path: &Path, owner: &Owner) -> Result<Self, StoreError> {
        make_folder(path)?;
        let lock = take_lock(path)?;
        refuse_unfinished(path)?;
        refuse_content(path)?;
        let mark = path.join(MARK_FILE);
        durable::replace_file(&mark, b"A backup is being put into this folder.\n")?;
        Ok(Self { folder: DataFolder::held(path, owner, lock)?, mark })
    }

    /// To open the stores in.
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// All is there, and on the disk: the mark goes. The stores must be closed.
    ///
    /// # Errors
    /// [`StoreError`] with what the system said; then the folder may still be marked.
    pub fn finish(self) -> Result<(), StoreError> {
        durable::remove(&self.mark)?;
        durable::sync_folder_of(&self.mark)
    }
}

/// Refuses a folder that was not filled to its end.
pub(super) fn refuse_unfinished(path: &Path) -> Result<(), StoreError> {
    if path.join(MARK_FILE).exists() {
        return Err(StoreError::HalfRestored { path: path.to_path_buf() });
    }
    Ok(())
}

fn refuse_content(path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(StoreError::io(path, "list"))? {
        let name = entry.map_err(StoreError::io(path, "list"))?.file_name();
        let found = name.to_string_lossy();
        if !NOTHING.contains(&found.as_ref()) {
            return Err(StoreError::NotEmpty { path: path.to_path_buf(), found: found.into_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn owner() -> Owner {
        Owner { cluster_id: "new".to_owned(), node_id: 1 }
    }

    #[test]
    fn a_folder_that_was_filled_to_its_end_is_an_ordinary_one() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("data");
        let new = NewFolder::begin(&path, &owner()).unwrap();
        assert!(matches!(NewFolder::begin(&path, &owner()), Err(StoreError::Locked { .. })));
        new.finish().unwrap();
        DataFolder::open(&path, &owner()).unwrap();
        assert!(matches!(NewFolder::begin(&path, &owner()), Err(StoreError::NotEmpty { .. })));
    }

    #[test]
    fn a_folder_that_was_not_filled_to_its_end_is_refused_by_nodes_and_restores() {
        let at = tempfile::tempdir().unwrap();
        drop(NewFolder::begin(at.path(), &owner()).unwrap());
        let starts = DataFolder::open(at.path(), &owner()).unwrap_err();
        let again = NewFolder::begin(at.path(), &owner()).unwrap_err();
        for refused in [starts, again] {
            assert!(matches!(refused, StoreError::HalfRestored { .. }), "{refused}");
            assert!(refused.to_string().contains(at.path().to_str().unwrap()), "{refused}");
        }
    }

    #[test]
    fn anything_in_a_folder_makes_it_no_new_one() {
        let at = tempfile::tempdir().unwrap();
        fs::create_dir(at.path().join("lost+found")).unwrap();
        fs::write(at.path().join("signer-hot.db"), "precious").unwrap();
        let refused = NewFolder::begin(at.path(), &owner()).unwrap_err();
        assert!(matches!(&refused, StoreError::NotEmpty { found, .. } if found == "signer-hot.db"), "{refused}");
        assert!(!at.path().join(MARK_FILE).exists(), "it was left as it is");
        fs::remove_file(at.path().join("signer-hot.db")).unwrap();
        NewFolder::begin(at.path(), &owner()).unwrap().finish().unwrap();
    }
}
