//! A depot that is a folder, on this machine or mounted from another.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::depot::{SUFFIX, file_name, prefix};
use super::{Backup, BackupDepot, BackupError, BackupWriter, Header, Kept};

const READ_BYTES: usize = 256 * 1024;

/// The folder.
#[derive(Debug, Clone)]
pub struct FolderDepot(PathBuf);

impl FolderDepot {
    /// Of a folder, which must be there: one that is made where a disk should be mounted would fill the wrong disk.
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_path_buf())
    }

    /// What an interrupted backup left, which nobody will finish. A node makes one at a time.
    fn sweep(&self, header: &Header) -> Result<(), BackupError> {
        let own = prefix(&header.cluster_id, header.node_id);
        for name in self.names()? {
            if name.starts_with(&own) && name.ends_with(".partial") {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, BackupError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(BackupError::io(&self.0, "list"))? {
            let entry = entry.map_err(BackupError::io(&self.0, "list"))?;
            // A name that is no text is none of ours.
            names.extend(entry.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }
}

impl BackupDepot for FolderDepot {
    fn store(&self, header: &Header, content: &Path, content_sum: &[u8; 32]) -> Result<String, BackupError> {
        self.sweep(header)?;
        let name = file_name(header);
        let target = self.0.join(&name);
        let mut writer = BackupWriter::begin(&target, header)?;
        let mut source = File::open(content).map_err(BackupError::io(content, "open"))?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = source.read(&mut buffer).map_err(BackupError::io(content, "read"))?;
            if read == 0 {
                break;
            }
            writer.write(&buffer[..read])?;
        }
        let made = writer.finish(content_sum)?;
        Backup::open(made.path())?.check(&mut |_| {})?;
        made.publish(&target, false)?;
        Ok(name)
    }

    fn list(&self) -> Result<Vec<Kept>, BackupError> {
        let mut kept = Vec::new();
        for name in self.names()?.into_iter().filter(|name| name.ends_with(SUFFIX)) {
            let path = self.0.join(&name);
            let size_bytes = fs::metadata(&path).map_or(0, |file| file.len());
            kept.push(Kept { name, size_bytes, header: Backup::open(&path).map(|backup| backup.header().clone()) });
        }
        Ok(kept)
    }

    fn remove(&self, name: &str) -> Result<(), BackupError> {
        let path = self.0.join(name);
        fs::remove_file(&path).map_err(BackupError::io(&path, "remove"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::hashes::{Hash, sha256};

    use super::*;

    fn header(made_unix_ms: u64) -> Header {
        Header {
            cluster_id: "demo".to_owned(),
            node_id: 1,
            index: 9,
            term: 2,
            state_hash: [7; 32],
            size_bytes: 7,
            made_unix_ms,
            version: "1".to_owned(),
        }
    }

    fn store(depot: &FolderDepot, content: &Path, made_unix_ms: u64) -> Result<String, BackupError> {
        depot.store(&header(made_unix_ms), content, &sha256::Hash::hash(b"content").to_byte_array())
    }

    #[test]
    fn what_is_stored_is_listed_and_can_be_removed() {
        let (at, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (depot, content) = (FolderDepot::new(at.path()), from.path().join("content"));
        fs::write(&content, "content").unwrap();
        fs::write(at.path().join("onespend-demo-n1-0000000000001-1.backup.partial"), "left by a crash").unwrap();
        fs::write(at.path().join("somebody-elses.backup.partial"), "stays").unwrap();
        fs::write(at.path().join("broken.backup"), "stays, and is named").unwrap();
        let first = store(&depot, &content, 1).unwrap();
        let second = store(&depot, &content, 2).unwrap();
        assert!(matches!(store(&depot, &content, 2), Err(BackupError::Exists { .. })));
        let listed = depot.list().unwrap();
        let names: Vec<&str> = listed.iter().map(|kept| kept.name.as_str()).collect();
        assert_eq!(names, ["broken.backup", &first, &second]);
        assert!(listed[0].header.is_err() && listed[2].header.as_ref().unwrap() == &header(2));
        depot.remove(&first).unwrap();
        assert_eq!(depot.names().unwrap(), ["broken.backup", &second, "somebody-elses.backup.partial"]);
    }

    #[test]
    fn a_copy_that_is_not_what_was_made_leaves_nothing() {
        let (at, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (depot, content) = (FolderDepot::new(at.path()), from.path().join("content"));
        for wrong in ["contend", "conten", "content, and more"] {
            fs::write(&content, wrong).unwrap();
            assert!(matches!(store(&depot, &content, 1), Err(BackupError::Damaged { .. })), "{wrong}");
            assert!(depot.names().unwrap().is_empty(), "{wrong}");
        }
        assert!(store(&FolderDepot::new(&at.path().join("not-mounted")), &content, 1).is_err());
    }
}
