//! Whose files a process may use: root, who meets a node's files in tools, is told to run these as the node does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Refuses root where something is to be written that belongs to somebody else: what root makes there, its owner could
/// not use. Of a path that is not there yet, the folder in which it would be made counts.
///
/// # Errors
/// In words, with the path.
pub fn refuse_root(path: &Path) -> Result<(), String> {
    let found = path.ancestors().find_map(|at| Some((at, fs::metadata(at).ok()?.uid())));
    found.map_or(Ok(()), |(at, owner)| judge(effective_user(), owner, at))
}

fn judge(user: Option<u32>, owner: u32, at: &Path) -> Result<(), String> {
    if user == Some(0) && owner != 0 { Err(format!("{} {}", at.display(), foreign(owner, 0, at))) } else { Ok(()) }
}

/// A node's keys belong to the node's user, and whoever gave them to another would keep the node from reading them. So
/// root, who meets them in tools, is told to run these as the node does.
pub(crate) fn foreign(owner: u32, user: u32, file: &Path) -> String {
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
pub(crate) fn effective_user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    // "Uid:", then real, effective, saved and file system ids (proc_pid_status(5)).
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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

    #[test]
    fn root_writes_only_where_root_owns_and_others_as_far_as_the_system_lets_them() {
        let at = Path::new("/var/lib/onespend");
        let told = judge(Some(0), 12_345, at).unwrap_err();
        assert!(told.starts_with("/var/lib/onespend belongs to user 12345") && told.contains("as that user"), "{told}");
        for (user, owner) in [(Some(0), 0), (Some(12_345), 12_345), (Some(12_345), 0), (None, 12_345)] {
            assert_eq!(judge(user, owner, at), Ok(()), "{user:?} {owner}");
        }
    }
}
