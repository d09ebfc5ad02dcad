//! Reading a file that holds a secret, and refusing one that others can read.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

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

/// A node's keys belong to the node's user, and whoever gave them to another would keep the node from reading them. So root,
/// who meets them in tools, is told to run these as the node does.
fn foreign(owner: u32, user: u32, file: &Path) -> String {
    let name = name_of(owner);
    let shown = name.clone().unwrap_or_else(|| owner.to_string());
    let remedy = match (user, name) {
        (0, Some(name)) => format!("Run this as that user: runuser -u {name} -- onespend …"),
        (0, None) => "Run this as that user".to_owned(),
        (user, _) => {
            format!("Run this as that user, or if the file is meant for this one: chown {user} '{}'", file.display())
        }
    };
    format!("belongs to user {shown}, and this process runs as user {user}. {remedy}")
}

/// What `/etc/passwd` calls a user.
fn name_of(user: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    // Name, password, id, and more (passwd(5)).
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(user.to_string().as_str()))?;
    line.split(':').next().map(str::to_owned)
}

/// The effective user id. `None` on systems without `/proc`; there a file of mode 0600 that could be opened is ours,
/// unless we are root.
fn effective_user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    // "Uid:", then real, effective, saved and file system ids (proc_pid_status(5)).
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_told_to_run_a_tool_as_the_owner_and_never_to_take_the_file() {
        let told = foreign(12_345, 0, Path::new("/etc/onespend/hot.xprv"));
        assert!(told.contains("belongs to user 12345") && told.contains("as that user"), "{told}");
        assert!(!told.contains("chown"), "{told}");
        let told = foreign(0, 12_345, Path::new("/etc/onespend/hot.xprv"));
        assert!(
            told.contains("belongs to user root") && told.contains("chown 12345 '/etc/onespend/hot.xprv'"),
            "{told}"
        );
    }
}
