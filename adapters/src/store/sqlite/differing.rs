//! The marks of a data folder whose state was found to differ from that of most other nodes, or of as many as share it
//! (safety 31). The first stays: such a state cannot heal by itself. The other goes once most nodes agree.

use std::fs;
use std::path::{Path, PathBuf};

use crate::store::{StoreError, durable};

const MARK_FILE: &str = "DIFFERS";
const UNDECIDED_FILE: &str = "UNDECIDED";

/// The mark of one folder.
#[derive(Debug, Clone)]
pub struct DifferingMark(PathBuf);

impl DifferingMark {
    /// Of a folder, whether it is marked or not.
    pub fn of(folder: &Path) -> Self {
        Self(folder.join(MARK_FILE))
    }

    /// The one that nobody has decided yet.
    pub fn undecided(folder: &Path) -> Self {
        Self(folder.join(UNDECIDED_FILE))
    }

    /// Marks it, and says what was found.
    ///
    /// # Errors
    /// [`StoreError`] with what the system said.
    pub fn set(&self, why: &str) -> Result<(), StoreError> {
        durable::replace_file(&self.0, why.as_bytes())
    }

    /// Takes it away, if it is there.
    ///
    /// # Errors
    /// [`StoreError`] with what the system said.
    pub fn clear(&self) -> Result<(), StoreError> {
        durable::remove(&self.0)?;
        durable::sync_folder_of(&self.0)
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

    #[test]
    fn the_mark_of_what_is_undecided_is_another_one_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mark = DifferingMark::undecided(dir.path());
        mark.set("7").unwrap();
        assert_eq!(DifferingMark::undecided(dir.path()).why().as_deref(), Some("7"));
        assert_eq!(DifferingMark::of(dir.path()).why(), None);
        mark.clear().unwrap();
        assert_eq!(mark.why(), None);
        mark.clear().unwrap();
    }
}
