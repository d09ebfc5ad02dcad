//! Reading secrets from a file or an environment variable, and refusing those that others can read.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::signer::SignerError;

/// Largest key file or variable in bytes: 256 descriptors with room for comments.
pub const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

pub(super) fn read_file(path: &Path) -> Result<Zeroizing<String>, SignerError> {
    let fault = |why: String| SignerError::KeyFile { path: path.to_owned(), why };
    let real = fs::canonicalize(path).map_err(|error| fault(error.to_string()))?;
    // Opening a pipe would wait for a writer, so its kind is looked at before as well.
    let is_file = fs::metadata(&real).map_err(|error| fault(error.to_string()))?.is_file();
    if !is_file {
        return Err(fault("is not a regular file".to_owned()));
    }
    let mut file = File::open(&real).map_err(|error| fault(error.to_string()))?;
    // Asked of the open file, not of the path, so that nobody can exchange it in between.
    let metadata = file.metadata().map_err(|error| fault(error.to_string()))?;
    if !metadata.is_file() {
        return Err(fault("is not a regular file".to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let shown = real.display();
        return Err(fault(format!("others may read or change it (mode {mode:04o}). Run: chmod 600 '{shown}'")));
    }
    if let Some(user) = effective_user()
        && metadata.uid() != user
    {
        let (owner, shown) = (metadata.uid(), real.display());
        return Err(fault(format!(
            "belongs to user {owner}, and this process runs as {user}. Run: chown {user} '{shown}'"
        )));
    }
    if metadata.len() > MAX_SOURCE_BYTES as u64 {
        return Err(fault(format!("is larger than {MAX_SOURCE_BYTES} bytes")));
    }
    // Room for all of it at once: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SOURCE_BYTES + 1));
    let limit = MAX_SOURCE_BYTES as u64;
    Read::by_ref(&mut file).take(limit).read_to_end(&mut bytes).map_err(|error| fault(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| fault("is not UTF-8 text".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

pub(super) fn read_variable(variable: &str) -> Result<Zeroizing<String>, SignerError> {
    let fault = |why: &str| SignerError::Environment { variable: variable.to_owned(), why: why.to_owned() };
    // Asking for such a name is a panic of the standard library on some systems.
    if variable.is_empty() || variable.contains(['=', '\0']) {
        return Err(fault("is not the name of a variable"));
    }
    let value = std::env::var_os(variable).ok_or_else(|| fault("is not set"))?;
    let text = value.into_string().map_err(|_| fault("is not UTF-8 text"))?;
    let text = Zeroizing::new(text);
    if text.len() > MAX_SOURCE_BYTES {
        return Err(fault("is larger than 65536 bytes"));
    }
    Ok(text)
}

/// The effective user id. `None` on systems without `/proc`; there a file of mode 0600 that could be opened is ours,
/// unless we are root.
fn effective_user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    // "Uid:", then real, effective, saved and file system ids (proc_pid_status(5)).
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}
