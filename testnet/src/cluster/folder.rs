//! Where a cluster's files lie, and whether they stay.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Marks a folder as ours: nothing else is ever emptied.
const MARKER: &str = ".onespend-testnet";

/// A folder. A temporary one is removed only after [`Folder::succeeded`]; after a failure it stays, and its name is said.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    temporary: bool,
    succeeded: bool,
}

impl Folder {
    /// A new temporary folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn temporary(name: &str) -> Result<Self> {
        let path = tempfile::Builder::new().prefix(&format!("onespend-{name}-")).tempdir()?.keep();
        Ok(Self { path, temporary: true, succeeded: false })
    }

    /// A folder that the user named: made when missing, emptied when an earlier cluster left it.
    ///
    /// # Errors
    /// It holds something that is not ours, or cannot be made.
    pub fn named(path: &Path) -> Result<Self> {
        if path.exists() {
            let ours = path.join(MARKER).is_file();
            let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            if !ours && !empty {
                bail!("{} holds something else; name another folder", path.display());
            }
            if ours {
                fs::remove_dir_all(path).with_context(|| format!("cannot empty {}", path.display()))?;
            }
        }
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        fs::write(path.join(MARKER), "")?;
        let path = path.canonicalize()?; // processes get absolute paths
        Ok(Self { path, temporary: false, succeeded: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Nobody needs to look into it: a temporary folder goes when this value goes.
    pub fn succeeded(&mut self) {
        self.succeeded = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.temporary {
            return;
        }
        if self.succeeded {
            let _leaves_it = fs::remove_dir_all(&self.path);
        } else {
            let _nobody_listens = writeln!(
                std::io::stderr(),
                "the cluster's files stay in {} (logs: node-*/node.log)",
                self.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_temporary_folder_stays_after_a_failure_and_goes_after_success() {
        let failed = Folder::temporary("test").unwrap();
        let path = failed.path().to_path_buf();
        drop(failed);
        assert!(path.is_dir());
        fs::remove_dir_all(&path).unwrap();

        let mut fine = Folder::temporary("test").unwrap();
        let path = fine.path().to_path_buf();
        fine.succeeded();
        drop(fine);
        assert!(!path.exists());
    }

    #[test]
    fn only_our_own_folder_is_emptied() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("up");
        drop(Folder::named(&path).unwrap());
        fs::write(path.join("old"), "").unwrap();
        drop(Folder::named(&path).unwrap());
        assert!(path.is_dir() && !path.join("old").exists());

        let precious = parent.path().join("precious");
        fs::create_dir(&precious).unwrap();
        drop(Folder::named(&precious).unwrap()); // an empty one is fine
        let precious = parent.path().join("more");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("thesis"), "").unwrap();
        assert!(Folder::named(&precious).is_err());
        assert!(precious.join("thesis").is_file());
    }
}
