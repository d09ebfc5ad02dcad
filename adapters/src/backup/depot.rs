//! The port of places that keep backups, and which of these may go.

use std::path::Path;

use super::{Backup, BackupError, Header};

/// What a backup is called that a node made by its schedule.
pub(super) const SUFFIX: &str = ".backup";
/// What is added to the name of one that is not whole yet.
pub(super) const PARTIAL_SUFFIX: &str = ".partial";

/// One file of a depot.
#[derive(Debug)]
pub struct Kept {
    /// What it is called there.
    pub name: String,
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// What its header says, or why that cannot be read. The content is not looked at.
    pub header: Result<Header, BackupError>,
}

/// A place that keeps backups. Its methods block.
pub trait BackupDepot: Send + Sync {
    /// Puts a backup there and reads it back: when this returns, it is whole and durable. `content` is a file with the
    /// sum `content_sum`. Gives back the name.
    ///
    /// # Errors
    /// [`BackupError`]; then there is no backup of that name.
    fn store(&self, header: &Header, content: &Path, content_sum: &[u8; 32]) -> Result<String, BackupError>;

    /// Opens one by its name there.
    ///
    /// # Errors
    /// As [`Backup::open`].
    fn open(&self, name: &str) -> Result<Backup, BackupError>;

    /// Everything there that is called like a backup, by name.
    ///
    /// # Errors
    /// What the system said.
    fn list(&self) -> Result<Vec<Kept>, BackupError>;

    /// Removes one.
    ///
    /// # Errors
    /// What the system said.
    fn remove(&self, name: &str) -> Result<(), BackupError>;
}

/// What a node's backups begin with.
fn prefix(cluster_id: &str, node_id: u64) -> String {
    format!("onespend-{cluster_id}-n{node_id}-")
}

/// What a scheduled backup is called: names of one node are in order of time.
pub fn file_name(header: &Header) -> String {
    let Header { cluster_id, node_id, made_unix_ms, index, .. } = header;
    format!("{}{made_unix_ms:013}-{index}{SUFFIX}", prefix(cluster_id, *node_id))
}

/// Whether a name is one that this node gives, as a whole: names of clusters may begin alike.
pub(super) fn is_named_by(cluster_id: &str, node_id: u64, name: &str) -> bool {
    let own = name.strip_prefix(&prefix(cluster_id, node_id)).and_then(|rest| rest.strip_suffix(SUFFIX));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    own.and_then(|rest| rest.split_once('-')).is_some_and(|(time, index)| is_number(time) && is_number(index))
}

/// The backups that may go: of those that `newest` names as its own kind, all but the latest `keep`. One is of that kind
/// when its header says that the same node of the same cluster made it, and it still has the name that follows from its
/// header. Which is later the log says; clocks go back and forth. `newest` was just made and read back; it stays. So does
/// what is of a later index than it: the data folders were put back to an earlier state meanwhile, and whatever was made
/// before that is another history, for people to remove.
pub fn superfluous<'a>(kept: &'a [Kept], newest: &Header, keep: usize) -> Vec<&'a str> {
    let mut own: Vec<(u64, u64, &str)> = kept
        .iter()
        .filter_map(|one| Some((one.header.as_ref().ok()?, one.name.as_str())))
        .filter(|(header, name)| {
            header.cluster_id == newest.cluster_id
                && header.node_id == newest.node_id
                && file_name(header) == *name
                && header.index <= newest.index
                && *header != newest
        })
        .map(|(header, name)| (header.index, header.made_unix_ms, name))
        .collect();
    own.sort_unstable();
    own.into_iter().rev().skip(keep.saturating_sub(1)).map(|(_, _, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(node_id: u64, made_unix_ms: u64) -> Header {
        Header {
            cluster_id: "demo".to_owned(),
            node_id,
            index: made_unix_ms,
            term: 1,
            state_hash: [0; 32],
            size_bytes: 1,
            made_unix_ms,
            version: String::new(),
        }
    }

    fn kept(header: Header) -> Kept {
        Kept { name: file_name(&header), size_bytes: 1, header: Ok(header) }
    }

    #[test]
    fn only_what_this_node_made_by_its_schedule_may_go_and_the_latest_stay() {
        let mut all: Vec<Kept> = (1..=5).map(|at| kept(header(1, at))).collect();
        all.push(kept(header(2, 1)));
        all.push(kept(Header { cluster_id: "other".to_owned(), ..header(1, 1) }));
        all.push(Kept { name: "before-the-upgrade.backup".to_owned(), size_bytes: 1, header: Ok(header(1, 1)) });
        let damaged = BackupError::Exists { path: "any".into() };
        all.push(Kept { name: file_name(&header(1, 0)), size_bytes: 1, header: Err(damaged) });
        let newest = header(1, 5);
        let of = |at| file_name(&header(1, at));
        assert_eq!(superfluous(&all, &newest, 3), [of(2), of(1)]);
        assert_eq!(superfluous(&all, &newest, 1), [of(4), of(3), of(2), of(1)]);
        assert_eq!(superfluous(&all, &newest, 5), [""; 0]);
    }

    #[test]
    fn which_is_later_the_log_says_and_no_clock() {
        // The clock was ahead while the second and the third were made.
        let made = |(index, made_unix_ms)| Header { index, ..header(1, made_unix_ms) };
        let all = [(10, 1), (20, 800), (30, 900), (40, 2)].map(made);
        let listed: Vec<Kept> = all.clone().map(kept).into();
        let newest = &all[3];
        assert_eq!(superfluous(&listed, newest, 3), [file_name(&all[0])]);
        assert_eq!(superfluous(&listed, newest, 1), [2, 1, 0].map(|at: usize| file_name(&all[at])));
        assert_eq!(superfluous(&listed, newest, 0).len(), 3, "none would be no retention");
    }

    #[test]
    fn what_was_made_before_the_folders_were_put_back_counts_for_nothing_and_stays() {
        let made = |index, made_unix_ms| Header { index, ..header(1, made_unix_ms) };
        let all = [made(10, 1), made(90, 2), made(95, 3), made(11, 4), made(12, 5)];
        let listed: Vec<Kept> = all.clone().map(kept).into();
        assert_eq!(superfluous(&listed, &all[4], 2), [file_name(&all[0])]);
    }

    #[test]
    fn a_name_belongs_to_one_cluster_and_one_node() {
        let name = file_name(&header(3, 7));
        assert!(is_named_by("demo", 3, &name));
        let other = file_name(&Header { cluster_id: "demo-n3".to_owned(), ..header(2, 7) });
        assert!(other.starts_with(&prefix("demo", 3)) && !is_named_by("demo", 3, &other), "{other}");
        for strange in
            ["onespend-demo-n3-7.backup", "onespend-demo-n3-7-.backup", "onespend-demo-n3-7-7.backup.partial"]
        {
            assert!(!is_named_by("demo", 3, strange), "{strange}");
        }
    }

    #[test]
    fn names_are_in_order_of_time() {
        assert_eq!(file_name(&header(3, 1_764_459_663_000)), "onespend-demo-n3-1764459663000-1764459663000.backup");
        assert!(file_name(&header(1, 999)) < file_name(&header(1, 1_000)));
    }
}
