//! Changes to files and folders that survive a crash whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::StoreError;

/// Writes a small file so that a crash leaves the old content or the new one, never a part.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let temporary = path.with_extension("tmp");
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(StoreError::io(&temporary, "create"))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(StoreError::io(&temporary, "write"))?;
    rename(&temporary, path)
}

/// Makes an empty file that its owner alone may read, for SQLite to fill: by itself it goes by the process's umask. What it
/// keeps beside a database gets the database's mode.
pub(crate) fn create_private(path: &Path) -> Result<(), StoreError> {
    let made = File::options().create_new(true).write(true).mode(0o600).open(path);
    made.map(drop).map_err(StoreError::io(path, "create"))
}

/// Makes renames and removals in the folder of `path` durable.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io(folder, "sync"))
}

/// Waits until the content of a file is on disk.
pub(crate) fn sync_file(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::io(path, "sync"))
}

/// Gives a file another name in the same folder, replacing what had it, and waits until that is on disk.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io(to, "rename to"))?;
    sync_folder_of(to)
}

/// Removes a file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(path, "remove")(cause)),
        _ => Ok(()),
    }
}
