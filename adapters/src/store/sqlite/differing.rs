//! The mark of a data folder whose state was found to differ from that of most other nodes (safety 31). It stays: such a
//! state cannot heal by itself.

use std::fs;
use std::path::{Path, PathBuf};

use crate::store::{StoreError, durable};

const MARK_FILE: &str = "DIFFERS";

/// The mark of one folder.
#[derive(Debug, Clone)]
pub struct DifferingMark(PathBuf);

impl DifferingMark {
    /// Of a folder, whether it is marked or not.
    pub fn of(folder: &Path) -> Self {
        Self(folder.join(MARK_FILE))
    }

    /// Marks it, and says what was found.
    ///
    /// # Errors
    /// [`StoreError`] with what the system said.
    pub fn set(&self, why: &str) -> Result<(), StoreError> {
        durable::replace_file(&self.0, why.as_bytes())
    }

    /// What was found; none where it is not marked. A mark that cannot be read is one.
    pub fn why(&self) -> Option<String> {
        let marked = self.0.exists();
        marked.then(|| fs::read_to_string(&self.0).unwrap_or_else(|error| format!("{}: {error}", self.0.display())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mark_stays_and_says_why_and_one_that_cannot_be_read_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mark = DifferingMark::of(dir.path());
        assert_eq!(mark.why(), None);
        mark.set("at index 7").unwrap();
        assert_eq!(DifferingMark::of(dir.path()).why().as_deref(), Some("at index 7"));
        fs::remove_file(dir.path().join(MARK_FILE)).unwrap();
        fs::create_dir(dir.path().join(MARK_FILE)).unwrap();
        assert!(mark.why().unwrap().contains(MARK_FILE));
    }
}
