//! Reading a backup: nothing of it is believed before its sums are right.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bitcoin::hashes::{Hash, HashEngine, sha256};

use super::fault::{BackupError, Part};
use super::form::{self, BEGINNING_BYTES, END_BYTES, FORM_VERSION, Header, MAX_HEADER_BYTES, SUM_BYTES};
use crate::store::RowVisitor;
use crate::store::sqlite::{StateCopy, read_copy};

const READ_BYTES: usize = 256 * 1024;

/// What a backup is read from.
pub(super) trait Source: Read + Seek + fmt::Debug + Send {}

impl<T: Read + Seek + fmt::Debug + Send> Source for T {}

/// A backup whose header is known to be whole. Its content is not, before it is read.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    source: Box<dyn Source>,
    header: Header,
    header_sum: [u8; SUM_BYTES],
    content_at: u64,
}

/// The content of a backup in a temporary file, which is removed with this value. It is what was written.
#[derive(Debug)]
pub struct Content {
    backup: PathBuf,
    file: PathBuf,
}

impl Drop for Content {
    fn drop(&mut self) {
        // SQLite may leave these beside a database that it was asked to read.
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let mut name = self.file.as_os_str().to_owned();
            name.push(suffix);
            // What stays behind is in a folder for temporary files.
            let _ = fs::remove_file(PathBuf::from(name));
        }
    }
}

impl Backup {
    /// Reads beginning and header of a file, and looks whether it is as long as they say.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] names the part, [`BackupError::OtherForm`], or what the system said.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::io(path, "open"))?;
        let length = file.metadata().map_err(BackupError::io(path, "look at"))?.len();
        Self::of(path, Box::new(file), length)
    }

    /// The same, of a source that has so many bytes. `path` is what it is called in messages.
    pub(super) fn of(path: &Path, mut source: Box<dyn Source>, length: u64) -> Result<Self, BackupError> {
        let mut beginning = [0; BEGINNING_BYTES];
        take(&mut source, path, Part::Beginning, &mut beginning)?;
        let (version, header_bytes) =
            form::read_beginning(&beginning).map_err(|(part, what)| BackupError::damaged(path, part, what))?;
        if version != FORM_VERSION {
            let path = path.to_path_buf();
            return Err(BackupError::OtherForm { path, found: version, supported: FORM_VERSION });
        }
        if header_bytes > MAX_HEADER_BYTES {
            let what = format!("it has {header_bytes} bytes, and at most {MAX_HEADER_BYTES} are allowed");
            return Err(BackupError::damaged(path, Part::Header, what));
        }
        let (mut text, mut sum) = (vec![0; header_bytes], [0; SUM_BYTES]);
        take(&mut source, path, Part::Header, &mut text)?;
        take(&mut source, path, Part::Header, &mut sum)?;
        if sha256::Hash::hash(&[&beginning[..], &text].concat()).to_byte_array() != sum {
            return Err(BackupError::damaged(path, Part::Header, "its checksum is another"));
        }
        let header = Header::decode(&text).map_err(|what| BackupError::damaged(path, Part::Header, what))?;
        let content_at = (BEGINNING_BYTES + header_bytes + SUM_BYTES) as u64;
        check_length(path, length, content_at, &header)?;
        Ok(Self { path: path.to_path_buf(), source, header, header_sum: sum, content_at })
    }

    /// Where it lies: a file, or an address such as `s3://bucket/name`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose state it is, and of when.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads all of it and compares it with its sums. `progress` is told how many bytes of the content were read.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] names the part, or what the system said.
    pub fn check(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), BackupError> {
        self.read(progress, &mut |_| Ok(()))
    }

    /// The same, and puts the content into a new file in a folder for temporary ones, which must have room for it.
    ///
    /// # Errors
    /// As [`Backup::check`].
    pub fn extract(&mut self, folder: &Path, progress: &mut dyn FnMut(u64)) -> Result<Content, BackupError> {
        let path = folder.join(format!("onespend-{}.tmp", uuid::Uuid::new_v4()));
        let mut file = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(BackupError::io(&path, "create"))?;
        let content = Content { backup: self.path.clone(), file: path };
        let target = &content.file;
        self.read(progress, &mut |chunk| file.write_all(chunk).map_err(BackupError::io(target, "write")))?;
        Ok(content)
    }

    fn read(
        &mut self,
        progress: &mut dyn FnMut(u64),
        sink: &mut dyn FnMut(&[u8]) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let expected = self.read_end()?;
        self.seek(self.content_at)?;
        let (mut sum, mut left) = (sha256::Hash::engine(), self.header.size_bytes);
        let mut buffer = vec![0; READ_BYTES];
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES);
            take(&mut self.source, &self.path, Part::Content, &mut buffer[..wanted])?;
            sum.input(&buffer[..wanted]);
            sink(&buffer[..wanted])?;
            left -= wanted as u64;
            progress(self.header.size_bytes - left);
        }
        if sha256::Hash::from_engine(sum).to_byte_array() != expected {
            return Err(BackupError::damaged(&self.path, Part::Content, "its checksum is another"));
        }
        Ok(())
    }

    /// The sum that the content must have.
    fn read_end(&mut self) -> Result<[u8; SUM_BYTES], BackupError> {
        self.seek(self.content_at.saturating_add(self.header.size_bytes))?;
        let (mut content_sum, mut seal) = ([0; SUM_BYTES], [0; SUM_BYTES]);
        take(&mut self.source, &self.path, Part::End, &mut content_sum)?;
        take(&mut self.source, &self.path, Part::End, &mut seal)?;
        if form::seal(&self.header_sum, &content_sum) != seal {
            return Err(BackupError::damaged(&self.path, Part::End, "its checksum is another"));
        }
        Ok(content_sum)
    }

    fn seek(&mut self, to: u64) -> Result<(), BackupError> {
        self.source.seek(SeekFrom::Start(to)).map(drop).map_err(BackupError::io(&self.path, "read"))
    }
}

impl Content {
    /// Reads the state's rows, in order of table and key, each checked.
    ///
    /// # Errors
    /// [`BackupError::Content`] says what is wrong with the database or a row.
    pub fn rows(&self, visit: &mut RowVisitor<'_>) -> Result<StateCopy, BackupError> {
        read_copy(&self.file, visit).map_err(|cause| BackupError::Content { path: self.backup.clone(), cause })
    }
}

fn take(source: &mut dyn Read, path: &Path, part: Part, buffer: &mut [u8]) -> Result<(), BackupError> {
    source.read_exact(buffer).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::UnexpectedEof => BackupError::damaged(path, part, "the file ends in it"),
        _ => BackupError::io(path, "read")(cause),
    })
}

fn check_length(path: &Path, found: u64, content_at: u64, header: &Header) -> Result<(), BackupError> {
    let content_end = content_at.saturating_add(header.size_bytes);
    let end = content_end.saturating_add(END_BYTES as u64);
    let part = if found < content_end { Part::Content } else { Part::End };
    match found.cmp(&end) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(BackupError::damaged(path, part, "the file ends in it")),
        std::cmp::Ordering::Greater => Err(BackupError::damaged(path, Part::End, "bytes follow it")),
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
