//! The mark of a data folder that came out of a backup: what its cluster did afterwards is not in it (safety 30).

use std::path::{Path, PathBuf};

use super::folder::{read_identity, take_lock};
use crate::store::{StoreError, durable};

/// The file whose presence is the mark.
const MARK_FILE: &str = "RESTORED";

/// The mark of one data folder.
#[derive(Debug, Clone)]
pub struct RestoredMark(PathBuf);

impl RestoredMark {
    /// Of a folder, whether it is marked or not.
    pub fn of(folder: &Path) -> Self {
        Self(folder.join(MARK_FILE))
    }

    /// Marks a folder that no node runs on.
    ///
    /// # Errors
    /// [`StoreError::Locked`] for the folder of a running node, [`StoreError::Missing`] for one that is no data folder.
    pub fn set(folder: &Path) -> Result<Self, StoreError> {
        if !folder.is_dir() || read_identity(folder)?.is_none() {
            return Err(StoreError::Missing { path: folder.to_path_buf(), why: "this is no data folder of onespend" });
        }
        let _lock = take_lock(folder)?;
        let mark = Self::of(folder);
        durable::replace_file(&mark.0, b"This folder came out of a backup.\n")?;
        Ok(mark)
    }

    /// Whether it is there.
    pub fn is_set(&self) -> bool {
        self.0.exists()
    }

    /// Takes it away, for good.
    ///
    /// # Errors
    /// [`StoreError`] with what the system said.
    pub fn clear(&self) -> Result<(), StoreError> {
        durable::remove(&self.0)?;
        durable::sync_folder_of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Owner;
    use crate::store::sqlite::DataFolder;

    #[test]
    fn only_a_data_folder_that_nobody_uses_is_marked() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(RestoredMark::set(dir.path()), Err(StoreError::Missing { .. })));
        assert!(matches!(RestoredMark::set(&dir.path().join("none")), Err(StoreError::Missing { .. })));

        let owner = Owner { cluster_id: "demo".to_owned(), node_id: 1 };
        let folder = DataFolder::open(dir.path(), &owner).unwrap();
        assert!(matches!(RestoredMark::set(dir.path()), Err(StoreError::Locked { .. })));
        assert!(!RestoredMark::of(dir.path()).is_set());
        drop(folder);

        let mark = RestoredMark::set(dir.path()).unwrap();
        assert!(mark.is_set());
        DataFolder::open(dir.path(), &owner).unwrap();
        mark.clear().unwrap();
        assert!(!RestoredMark::of(dir.path()).is_set());
        mark.clear().unwrap();
    }
}
