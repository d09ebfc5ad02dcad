//! A depot that is a folder, on this machine or mounted from another.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::depot::{PARTIAL_SUFFIX, SUFFIX, file_name, is_named_by};
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
        let is_own = |whole: &str| is_named_by(&header.cluster_id, header.node_id, whole);
        for name in self.names()? {
            if name.strip_suffix(PARTIAL_SUFFIX).is_some_and(is_own) {
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

    fn open(&self, name: &str) -> Result<Backup, BackupError> {
        Backup::open(&self.0.join(name))
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
