//! Reading a file that holds a secret, and refusing one that others can read.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::process_user::{effective_user, foreign};

/// Largest such file in bytes: 256 descriptors with room for comments.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Reads a file that its owner alone may read, and that is ours.
///
/// # Errors
/// In words, to stand after the file's name: it cannot be read, others may read it, or it is too large.
pub fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let real = fs::canonicalize(path).map_err(|error| error.to_string())?;
    // Opening a pipe would wait for a writer, so its kind is looked at before as well.
    let is_file = fs::metadata(&real).map_err(|error| error.to_string())?.is_file();
    if !is_file {
        return Err("is not a regular file".to_owned());
    }
    let mut file = File::open(&real).map_err(|error| error.to_string())?;
    // Asked of the open file, not of the path, so that nobody can exchange it in between.
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let shown = real.display();
        return Err(format!("others may read or change it (mode {mode:04o}). Run: chmod 600 '{shown}'"));
    }
    if let Some(user) = effective_user()
        && metadata.uid() != user
    {
        return Err(foreign(metadata.uid(), user, &real));
    }
    if metadata.len() > MAX_SECRET_BYTES as u64 {
        return Err(format!("is larger than {MAX_SECRET_BYTES} bytes"));
    }
    // Room for all of it at once: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
    let limit = MAX_SECRET_BYTES as u64;
    Read::by_ref(&mut file).take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    Ok(Zeroizing::new(text.to_owned()))
}
