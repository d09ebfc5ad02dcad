//! Room on the file system of a data folder, and a part of it that is held back for when there is none left.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{StoreError, durable};

const FILE: &str = "RESERVE";
/// What is written at once where the file system cannot set blocks aside.
const ZEROS: usize = 1 << 20;

/// Bytes that this user may still write on the file system of a folder.
///
/// # Errors
/// [`StoreError::Io`]: the folder is not there, or its file system does not say.
pub fn free_bytes(folder: &Path) -> Result<u64, StoreError> {
    #[cfg(feature = "failpoints")]
    if let Some(free) = crate::failpoints::disk_free_bytes() {
        return Ok(free);
    }
    let found = rustix::fs::statvfs(folder).map_err(|error| StoreError::io(folder, "look at")(error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Space of a data folder that nobody uses: given up when the disk is full, so that there is room for what makes room.
#[derive(Debug)]
pub struct SpaceReserve {
    path: PathBuf,
    bytes: u64,
}

impl SpaceReserve {
    /// So many bytes in this folder; with 0 it is always held. Nothing is looked at or made yet.
    pub fn of(folder: &Path, bytes: u64) -> Self {
        Self { path: folder.join(FILE), bytes }
    }

    /// Whether it takes space, though perhaps not as much as it should.
    pub fn takes_space(&self) -> bool {
        self.path.exists()
    }

    /// Whether all of it is there.
    pub fn is_held(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(found) => self.bytes > 0 && found.len() == self.bytes,
            Err(_) => self.bytes == 0,
        }
    }

    /// Takes the space, if it is not held yet; one of another size is made anew.
    ///
    /// # Errors
    /// [`StoreError::Io`], such as a full or read-only disk. Then nothing is held.
    pub fn hold(&self) -> Result<(), StoreError> {
        if self.is_held() {
            return Ok(());
        }
        self.give_up()?;
        if self.bytes == 0 {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if free_bytes(folder)? < self.bytes {
            return Err(StoreError::io(&self.path, "set aside")(io::ErrorKind::StorageFull.into()));
        }
        let taken = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&self.path)
            .and_then(|file| fill(file, self.bytes))
            .map_err(StoreError::io(&self.path, "set aside"));
        if taken.is_err() {
            self.give_up()?;
        }
        taken
    }

    /// Frees the space, if it is held.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the file cannot be removed.
    pub fn give_up(&self) -> Result<(), StoreError> {
        durable::remove(&self.path)
    }
}

/// Sets blocks aside without writing them, where the file system can.
fn fill(mut file: File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP) => write_zeros(&mut file, bytes)?,
        done => done?,
    }
    file.sync_all()
}

fn write_zeros(file: &mut File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(ZEROS).min(ZEROS);
        file.write_all(zeros.get(..now).unwrap_or(&zeros))?;
        left -= now as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const BYTES: u64 = 3 << 20;
    /// Of `st_blocks` (stat(2)), whatever the file system's own are.
    const BLOCK: u64 = 512;

    #[test]
    fn what_is_held_takes_its_space_until_it_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = SpaceReserve::of(folder.path(), BYTES);
        assert!(!reserve.is_held());
        reserve.hold().unwrap();
        reserve.hold().unwrap();
        let found = fs::metadata(folder.path().join(FILE)).unwrap();
        assert!(reserve.is_held() && found.len() == BYTES && found.blocks() * BLOCK >= BYTES, "{found:?}");
        reserve.give_up().unwrap();
        reserve.give_up().unwrap();
        assert!(!reserve.is_held() && !folder.path().join(FILE).exists());
    }

    #[test]
    fn another_size_is_made_anew_and_none_needs_no_file() {
        let folder = tempfile::tempdir().unwrap();
        SpaceReserve::of(folder.path(), BYTES).hold().unwrap();
        let larger = SpaceReserve::of(folder.path(), BYTES + 1);
        assert!(!larger.is_held());
        larger.hold().unwrap();
        assert_eq!(fs::metadata(folder.path().join(FILE)).unwrap().len(), BYTES + 1);
        let none = SpaceReserve::of(folder.path(), 0);
        assert!(!none.is_held());
        none.hold().unwrap();
        SpaceReserve::of(folder.path(), BYTES).hold().unwrap();
        assert!(none.takes_space() && !none.is_held(), "an earlier setting held some");
        none.hold().unwrap();
        assert!(!none.takes_space() && none.is_held() && !folder.path().join(FILE).exists());
    }

    #[test]
    fn where_blocks_cannot_be_set_aside_zeros_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zeros");
        write_zeros(&mut File::create(&path).unwrap(), BYTES + 7).unwrap();
        let content = fs::read(&path).unwrap();
        assert!(content.len() as u64 == BYTES + 7 && content.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn more_than_the_disk_has_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let much = SpaceReserve::of(folder.path(), 1 << 60);
        let refused = much.hold().unwrap_err();
        assert!(refused.to_string().contains(FILE), "{refused}");
        assert!(!folder.path().join(FILE).exists());
        assert!(free_bytes(folder.path()).unwrap() > 0);
        assert!(free_bytes(&folder.path().join("none")).is_err());
    }
}
