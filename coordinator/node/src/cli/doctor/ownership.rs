//! Whose the data folder is, and what is marked in it: a start refuses the folder of another node, and one whose stores
//! are not complete. What the databases hold is left to the start, which reads all of it.

use std::path::Path;

use onespend_adapters::store::sqlite::{DataFolder, DifferingMark, FoundFolder, RestoredMark};
use onespend_adapters::store::{Owner, PeerBook, StoreError};

use super::findings::{Area, Findings};

/// Looks as a start does, and changes nothing.
pub fn check(folder: &Path, owner: &Owner, findings: &mut Findings) {
    if folder.exists() && !folder.is_dir() {
        return; // a fault of the configuration
    }
    match DataFolder::look(folder, owner) {
        Ok(FoundFolder::Nobodys) => {
            findings.ok(Area::DataFolder, format!("no stores are in it: the first start makes those of {owner}"));
        }
        Ok(FoundFolder::Nameless) => findings.warn(
            Area::DataFolder,
            "stores are in it that hold nothing, and no identity.json that says whose",
            "start the node: it makes again what an interrupted first start left",
        ),
        Ok(FoundFolder::Owners) => findings.ok(Area::DataFolder, format!("it is that of {owner}")),
        Err(error) => findings.fail(Area::DataFolder, error.to_string(), remedy(&error)),
    }
    marks(folder, findings);
}

/// Whether the node still knows which folder each other one came with. Only where there are others to know.
pub fn check_peer_book(folder: &Path, owner: &Owner, findings: &mut Findings) {
    if matches!(DataFolder::look(folder, owner), Ok(FoundFolder::Owners)) && PeerBook::is_missing(folder) {
        findings.warn(
            Area::DataFolder,
            "no peers.json: whatever data folder comes next under each node's id is taken for the right one",
            "right where this node has met no other yet. Else the file was lost: see to it that no other node comes \
             back with an empty folder, and look what else is missing here",
        );
    }
}

fn remedy(error: &StoreError) -> &'static str {
    match error {
        StoreError::Foreign { .. } => {
            "correct node.data_dir, or cluster.id and node.id: a folder never moves to another node, and to another \
             cluster only by `onespend restore` and `onespend cluster recover`"
        }
        StoreError::HalfRestored { .. } => "empty the folder, and run `onespend restore` again",
        StoreError::HalfRecovered { .. } => "run `onespend cluster recover` again, with the same configuration",
        StoreError::Superseded { .. } => "point node.data_dir at the folder of the cluster that goes on",
        StoreError::NewerFormat { .. } => "install the version that wrote it, or a later one",
        StoreError::Missing { .. } | StoreError::Corrupt { .. } => {
            "bring the node back under a new id, with an empty folder: what it promised the others is not all there"
        }
        StoreError::Io { .. } => "give the folder to the user that runs the node: chown -R, chmod 700",
        _ => "look at the folder: the node would not start on it",
    }
}

fn marks(folder: &Path, findings: &mut Findings) {
    if let Some(why) = DifferingMark::of(folder).why() {
        let remedy = "keep the folder for analysis, report it, and replace the node under a new id";
        findings.fail(Area::DataFolder, format!("it is marked (DIFFERS): {}", why.trim_end()), remedy);
    }
    if let Some(index) = DifferingMark::undecided(folder).why() {
        let found =
            format!("it is marked (UNDECIDED): nobody knows whether its state is right, index {}", index.trim_end());
        findings.warn(Area::DataFolder, found, "the operations book has \"Two states, and nobody to decide\"");
    }
    if RestoredMark::of(folder).is_set() {
        let remedy =
            "as it should be after a restore: the cluster begins in recovery mode, see `onespend recovery show`";
        findings.warn(Area::DataFolder, "it came out of a backup (RESTORED)", remedy);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::findings::Report;
    use super::*;
    use crate::cli::output::Show as _;

    fn owner(cluster_id: &str, node_id: u64) -> Owner {
        Owner { cluster_id: cluster_id.to_owned(), node_id }
    }

    /// The folder of node 1 of cluster `demo`, whose node is stopped.
    fn used() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        DataFolder::open(folder.path(), &owner("demo", 1)).unwrap();
        folder
    }

    /// Exit code and text, without breaks.
    fn told(folder: &Path, owner: &Owner) -> (u8, String) {
        let mut findings = Findings::default();
        check(folder, owner, &mut findings);
        let report = Report::of(findings);
        (report.exit().code(), report.text().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn tells(folder: &Path, owner: &Owner, code: u8, words: &str) {
        let (exit, text) = told(folder, owner);
        assert!(exit == code && text.contains(words), "{code} {words}: {exit} {text}");
    }

    #[test]
    fn a_folder_that_is_empty_or_not_there_is_fine_and_stays_so() {
        let (at, own) = (tempfile::tempdir().unwrap(), owner("demo", 1));
        for folder in [at.path(), &at.path().join("none")] {
            tells(folder, &own, 0, "the first start makes those of node 1 of cluster \"demo\"");
        }
        assert_eq!(std::fs::read_dir(at.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_is_its_owners_alone() {
        let folder = used();
        tells(folder.path(), &owner("demo", 1), 0, "it is that of node 1 of cluster \"demo\"");
        for other in [owner("demo", 2), owner("other", 1)] {
            tells(folder.path(), &other, 2, "belongs to node 1 of cluster \"demo\", not to node");
        }
        std::fs::remove_file(folder.path().join("raft.db")).unwrap();
        tells(folder.path(), &owner("demo", 1), 2, "under a new id");
    }

    #[test]
    fn a_folder_that_was_used_and_has_no_book_of_the_others_is_a_warning() {
        let code = |folder: &Path| {
            let mut findings = Findings::default();
            check_peer_book(folder, &owner("demo", 1), &mut findings);
            Report::of(findings).exit().code()
        };
        let (folder, none) = (used(), tempfile::tempdir().unwrap());
        assert_eq!((code(folder.path()), code(none.path())), (1, 0));
        let book = PeerBook::open(&DataFolder::open(folder.path(), &owner("demo", 1)).unwrap()).unwrap();
        book.meet(2, "a").unwrap();
        assert_eq!(code(folder.path()), 0);
    }

    #[test]
    fn stores_without_an_identity_are_doubtful_and_one_that_is_damaged_is_refused() {
        let (folder, own) = (used(), owner("demo", 1));
        let identity = folder.path().join("identity.json");
        std::fs::write(&identity, "once upon a time").unwrap();
        tells(folder.path(), &own, 2, "identity.json is damaged");
        std::fs::write(&identity, r#"{"format_version": 99}"#).unwrap();
        tells(folder.path(), &own, 2, "install the version that wrote it");
        std::fs::remove_file(&identity).unwrap();
        tells(folder.path(), &own, 1, "no identity.json that says whose");
    }

    #[test]
    fn each_mark_is_told_with_what_to_do() {
        for (mark, code, words) in [
            ("RESTORING", 2, "run `onespend restore` again"),
            ("RECOVERING", 2, "run `onespend cluster recover` again"),
            ("SUPERSEDED", 2, "the cluster that goes on"),
            ("DIFFERS", 2, "(DIFFERS): at index 7 remedy: keep the folder"),
            ("UNDECIDED", 1, "Two states, and nobody to decide"),
            ("RESTORED", 1, "see `onespend recovery show`"),
        ] {
            let folder = used();
            std::fs::write(folder.path().join(mark), "at index 7\n").unwrap();
            tells(folder.path(), &owner("demo", 1), code, words);
        }
    }

    #[test]
    fn what_is_no_folder_is_left_to_the_configuration() {
        let file = tempfile::NamedTempFile::new().unwrap();
        tells(file.path(), &owner("demo", 1), 0, "0 ok, 0 warnings, 0 failures");
    }
}
