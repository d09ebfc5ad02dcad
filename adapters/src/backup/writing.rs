//! Writing a backup: under another name first, so that a file with the name of a backup is whole.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::fault::{BackupError, Part};
use super::form::{Header, SUM_BYTES};
use super::frame::Frame;
use crate::store::{StoreError, durable};

/// A backup that is being written. Dropped before it is finished, it leaves nothing.
pub struct BackupWriter {
    file: File,
    partial: Partial,
    frame: Frame,
}

/// A backup that is whole and on the disk, and has not its name yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Unpublished {
    partial: Partial,
    /// Others that want to write the same file wait outside.
    _lock: File,
}

#[derive(Debug)]
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Whatever is left is overwritten by the next one.
        let _ = fs::remove_file(&self.0);
    }
}

/// Where the backup `target` is written before it has its name.
fn partial_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

impl BackupWriter {
    /// Begins the backup that will be `target`. What an earlier, interrupted one left is overwritten.
    ///
    /// # Errors
    /// [`BackupError::InUse`], or what the system said.
    pub fn begin(target: &Path, header: &Header) -> Result<Self, BackupError> {
        let path = partial_of(target);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(BackupError::io(&path, "create"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::InUse { path }),
            Err(TryLockError::Error(cause)) => return Err(BackupError::io(&path, "lock")(cause)),
        }
        file.set_len(0).map_err(BackupError::io(&path, "empty"))?;
        let partial = Partial(path);
        let encode = |error: serde_json::Error| BackupError::io(&partial.0, "encode")(io::Error::other(error));
        let (frame, bytes) = Frame::begin(header).map_err(encode)?;
        let mut writer = Self { file, partial, frame };
        writer.put(&bytes)?;
        Ok(writer)
    }

    /// Adds the next part of the content.
    ///
    /// # Errors
    /// It is more than was announced, or what the system said.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), BackupError> {
        let damaged = |what| BackupError::damaged(&self.partial.0, Part::Content, what);
        self.frame.add(chunk).map_err(damaged)?;
        self.put(chunk)
    }

    /// Ends it: all is there, has the sum that its source says, and is on the disk.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] when it is not what the source says, or what the system said.
    pub fn finish(self, content_sum: &[u8; SUM_BYTES]) -> Result<Unpublished, BackupError> {
        let Self { mut file, partial, frame } = self;
        let end = frame.end(content_sum).map_err(|what| BackupError::damaged(&partial.0, Part::Content, what))?;
        file.write_all(&end).map_err(BackupError::io(&partial.0, "write"))?;
        file.sync_all().map_err(BackupError::io(&partial.0, "sync"))?;
        Ok(Unpublished { partial, _lock: file })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(bytes).map_err(BackupError::io(&self.partial.0, "write"))
    }
}

impl Unpublished {
    /// Where it is now, to be looked at before it gets its name.
    pub fn path(&self) -> &Path {
        &self.partial.0
    }

    /// Gives it its name, and waits until that is on the disk. With `replace` it takes the place of what has the name.
    ///
    /// # Errors
    /// [`BackupError::Exists`], or what the system said.
    pub fn publish(self, target: &Path, replace: bool) -> Result<(), BackupError> {
        let partial = &self.partial.0;
        if replace {
            fs::rename(partial, target).map_err(BackupError::io(target, "rename to"))?;
        } else {
            link(partial, target)?;
        }
        durable::sync_folder_of(&absolute(target)).map_err(|error| sync_failed(target, &error))
    }
}

/// Gives a file a second name, which nothing has yet; the first one goes with its value.
fn link(partial: &Path, target: &Path) -> Result<(), BackupError> {
    match fs::hard_link(partial, target) {
        Ok(()) => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            Err(BackupError::Exists { path: target.to_path_buf() })
        }
        // Some file systems have no links.
        Err(_) if target.exists() => Err(BackupError::Exists { path: target.to_path_buf() }),
        Err(_) => fs::rename(partial, target).map_err(BackupError::io(target, "rename to")),
    }
}

/// A bare file name has an empty parent, which cannot be opened.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn sync_failed(target: &Path, error: &StoreError) -> BackupError {
    BackupError::io(target, "sync the folder of")(io::Error::other(error.to_string()))
}
