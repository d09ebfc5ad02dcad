//! The stores of a new cluster take the place of the old one's in the same data folder: not at all, or wholly.
//!
//! The order makes an interruption harmless at any point:
//! 1. the new stores are made in `recovering/`, inside the folder: the old ones are as they were;
//! 2. the mark `RECOVERING` says what is moved where: from here on no node starts on the folder, and whoever
//!    comes next goes on from it and never back;
//! 3. the old stores go to `superseded-<cluster>/`, where a mark keeps nodes from starting on them;
//! 4. the new ones come up, and the mark goes.
//!
//! What is not a store, such as a signer's memory, stays where it is.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DataFolder;
use super::folder::{make_folder, read_identity, require_databases, take_lock};
use super::privacy::close_to_others;
use super::restoring::{self, NewFolder};
use crate::store::identity::Identity;
use crate::store::{Owner, StoreError, durable};

/// The file whose presence is the mark, and whose content is the [`Plan`].
const MARK_FILE: &str = "RECOVERING";
/// The mark of stores that another cluster has taken over.
const SUPERSEDED_FILE: &str = "SUPERSEDED";
/// Beside it: what they were found to hold, for whoever did not see it.
const FOUND_FILE: &str = "FOUND";
/// Where the new stores are made.
const WORKPLACE: &str = "recovering";
/// How the names of all files begin that belong to the stores. Anything else in the folder is not ours to move.
const STORE_FILES: [&str; 9] =
    ["identity.", "raft.db", "state.db", "state.new", "snapshot-", "incoming-", "copy-", "peers.", "RESTORED"];

/// The data folder of a node that does not run, held by this process alone.
#[derive(Debug)]
pub struct Survivor {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

/// A copy of stores that is removed with this value, which must outlive them.
#[derive(Debug)]
pub struct StoresCopy {
    folder: DataFolder,
    _place: RemovedOnDrop,
}

impl StoresCopy {
    /// To open the stores in.
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }
}

/// A temporary folder.
#[derive(Debug)]
struct RemovedOnDrop(PathBuf);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        // Whoever cleans the folder for temporary files finds what stays behind.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is moved where.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    /// Whose the folder is afterwards.
    cluster_id: String,
    node_id: u64,
    /// The folder for the old stores, in the data folder.
    aside: String,
    move_aside: Vec<String>,
    put_in_place: Vec<String>,
    /// For people: what the old stores were found to hold.
    #[serde(default)]
    found: String,
}

impl Survivor {
    /// Takes a folder that was used and is whole. Changes nothing in it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for one that is no data folder or lacks a file, [`StoreError::Locked`] for that of a running
    /// node, [`StoreError::HalfRecovered`] and its like for one that no node may start on.
    pub fn hold(path: &Path) -> Result<Self, StoreError> {
        restoring::refuse_unfinished(path)?;
        refuse_unfinished(path)?;
        let identity = if path.is_dir() { read_identity(path)? } else { None };
        let Some(identity) = identity else {
            return Err(StoreError::Missing { path: path.to_path_buf(), why: "this is no data folder of onespend" });
        };
        let lock = take_lock(path)?;
        require_databases(path)?;
        Ok(Self { path: path.to_path_buf(), identity, _lock: lock })
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.identity.owner()
    }

    /// Copies the stores into a folder for temporary files, and opens the copy: opening a store may write, and here nothing
    /// may be.
    ///
    /// # Errors
    /// [`StoreError`] with what the system said.
    pub fn copy_to(&self, scratch: &Path) -> Result<StoresCopy, StoreError> {
        let place = RemovedOnDrop(scratch.join(format!("onespend-{}", uuid::Uuid::new_v4())));
        make_folder(&place.0)?;
        for name in store_files(&self.path)? {
            let to = place.0.join(&name);
            fs::copy(self.path.join(&name), &to).map_err(StoreError::io(&to, "copy to"))?;
        }
        Ok(StoresCopy { folder: DataFolder::open(&place.0, &self.owner())?, _place: place })
    }

    /// Begins the stores that will take the place of these. What an earlier attempt left of them is thrown away.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] where an earlier cluster of the old or the new name was set aside, or what the system said.
    pub fn begin(&self, owner: &Owner) -> Result<NewFolder, StoreError> {
        // Nodes of an earlier cluster take one of its name for their own.
        for found in [self.aside(), superseded(&owner.cluster_id)] {
            if self.path.join(&found).exists() {
                return Err(StoreError::NotEmpty { path: self.path.clone(), found });
            }
        }
        let workplace = self.path.join(WORKPLACE);
        remove_folder(&workplace)?;
        NewFolder::begin(&workplace, owner)
    }

    /// Puts the new stores, which are closed and complete, in the place of the old ones. Gives back where those are; what was
    /// found in them stays beside them, see [`found_in`].
    ///
    /// # Errors
    /// [`StoreError`] with what the system said; from [`StoreError::HalfRecovered`] on, [`resume`] goes on.
    pub fn succeed(self, new: NewFolder, found: &str) -> Result<PathBuf, StoreError> {
        let Owner { cluster_id, node_id } = new.folder().owner();
        new.finish()?;
        let plan = Plan {
            cluster_id,
            node_id,
            aside: self.aside(),
            move_aside: store_files(&self.path)?,
            put_in_place: store_files(&self.path.join(WORKPLACE))?,
            found: found.to_owned(),
        };
        let mark = self.path.join(MARK_FILE);
        let text = serde_json::to_vec_pretty(&plan)
            .map_err(|cause| StoreError::io(&mark, "encode")(io::Error::other(cause)))?;
        durable::replace_file(&mark, &text)?;
        plan.carry_out(&self.path)?;
        Ok(self.path.join(plan.aside))
    }

    /// Throws away what was begun, as if it had not been. What cannot be removed is thrown away by the next attempt.
    pub fn abandon(&self, new: NewFolder) {
        drop(new);
        let _ = remove_folder(&self.path.join(WORKPLACE));
    }

    fn aside(&self) -> String {
        superseded(&self.identity.cluster_id)
    }
}

fn superseded(cluster_id: &str) -> String {
    format!("superseded-{cluster_id}")
}

/// What stores that were set aside were found to hold, in words.
pub fn found_in(aside: &Path) -> Option<String> {
    fs::read_to_string(aside.join(FOUND_FILE)).ok()
}

/// Goes on where putting the stores of `owner` in place was interrupted, and gives back where the old ones are; `None`
/// if nothing was begun.
///
/// # Errors
/// [`StoreError::Foreign`] if it was begun for another cluster or node, [`StoreError::Locked`], or what the system said.
pub fn resume(path: &Path, owner: &Owner) -> Result<Option<PathBuf>, StoreError> {
    let mark = path.join(MARK_FILE);
    if !mark.exists() {
        return Ok(None);
    }
    let _lock = take_lock(path)?;
    let text = fs::read(&mark).map_err(StoreError::io(&mark, "read"))?;
    let plan: Plan = serde_json::from_slice(&text).map_err(|cause| StoreError::corrupt(&mark, cause.to_string()))?;
    let begun_for = Owner { cluster_id: plan.cluster_id.clone(), node_id: plan.node_id };
    if begun_for != *owner {
        return Err(StoreError::Foreign { path: mark, found: begun_for, expected: owner.clone() });
    }
    plan.carry_out(path)?;
    Ok(Some(path.join(plan.aside)))
}

impl Plan {
    /// May be done any number of times, from wherever it was left.
    fn carry_out(&self, path: &Path) -> Result<(), StoreError> {
        let (aside, workplace, mark) = (path.join(&self.aside), path.join(WORKPLACE), path.join(MARK_FILE));
        make_folder(&aside)?;
        durable::replace_file(&aside.join(SUPERSEDED_FILE), b"Another cluster goes on from this state.\n")?;
        durable::replace_file(&aside.join(FOUND_FILE), self.found.as_bytes())?;
        durable::sync_folder_of(&aside)?;
        for name in &self.move_aside {
            let to = aside.join(name);
            // What has this name in the folder once an old file is aside is the new one.
            if !to.exists() {
                durable::rename(&path.join(name), &to)?;
            }
        }
        durable::sync_folder_of(&mark)?;
        for name in &self.put_in_place {
            let from = workplace.join(name);
            if from.exists() {
                durable::rename(&from, &path.join(name))?;
            }
        }
        remove_folder(&workplace)?;
        close_to_others(&aside)?;
        close_to_others(path)?;
        durable::remove(&mark)?;
        durable::sync_folder_of(&mark)
    }
}

/// Refuses a folder whose stores are being replaced, and stores that were.
pub(super) fn refuse_unfinished(path: &Path) -> Result<(), StoreError> {
    if path.join(MARK_FILE).exists() {
        return Err(StoreError::HalfRecovered { path: path.to_path_buf() });
    }
    if path.join(SUPERSEDED_FILE).exists() {
        return Err(StoreError::Superseded { path: path.to_path_buf() });
    }
    Ok(())
}

/// The names of the files that belong to the stores, in order.
pub(super) fn store_files(path: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(StoreError::io(path, "list"))? {
        let entry = entry.map_err(StoreError::io(path, "list"))?;
        let is_file = entry.file_type().map_err(StoreError::io(path, "list"))?.is_file();
        let name = entry.file_name().into_string().unwrap_or_default();
        if is_file && STORE_FILES.iter().any(|start| name.starts_with(start)) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path, "remove")(cause)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::StateStore as _;
    use crate::store::contract::state::batch;
    use crate::store::sqlite::{LogOptions, SqliteLog, SqliteState};

    fn owner(cluster_id: &str) -> Owner {
        Owner { cluster_id: cluster_id.to_owned(), node_id: 1 }
    }

    fn write(folder: &DataFolder, value: &str) {
        drop(SqliteLog::open(folder, LogOptions::default()).unwrap());
        let store = SqliteState::open(folder).unwrap();
        store.write(&batch(value, &[(1, "a", Some(value))])).unwrap();
        store.snapshot().unwrap();
    }

    fn marker(path: &Path, cluster_id: &str) -> String {
        let store = SqliteState::open(&DataFolder::open(path, &owner(cluster_id)).unwrap()).unwrap();
        String::from_utf8(store.load(&mut |_| Ok(())).unwrap().unwrap()).unwrap()
    }

    /// A folder of cluster `old` that was used, with a signer's memory in it.
    fn used() -> tempfile::TempDir {
        let at = tempfile::tempdir().unwrap();
        write(&DataFolder::open(at.path(), &owner("old")).unwrap(), "old state");
        fs::write(at.path().join("signer-hot.db"), "precious").unwrap();
        at
    }

    fn content(path: &Path) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> = files
            .filter(|path| path.is_file())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
            .collect();
        all.sort_unstable();
        all
    }

    fn new_in(survivor: &Survivor) -> NewFolder {
        let new = survivor.begin(&owner("new")).unwrap();
        write(new.folder(), "new state");
        new
    }

    #[test]
    fn the_new_stores_take_the_place_of_the_old_ones_and_the_rest_stays() {
        let at = used();
        let survivor = Survivor::hold(at.path()).unwrap();
        assert_eq!(survivor.owner(), owner("old"));
        let new = new_in(&survivor);
        let aside = survivor.succeed(new, "found").unwrap();
        assert_eq!(marker(at.path(), "new"), "new state");
        assert_eq!(fs::read(at.path().join("signer-hot.db")).unwrap(), b"precious");
        assert!(!at.path().join(WORKPLACE).exists() && !at.path().join(MARK_FILE).exists());
        let refused = DataFolder::open(&aside, &owner("old")).unwrap_err();
        assert!(matches!(refused, StoreError::Superseded { .. }), "{refused}");
        fs::remove_file(aside.join(SUPERSEDED_FILE)).unwrap();
        assert_eq!(marker(&aside, "old"), "old state", "nothing of it is lost");
        assert_eq!(found_in(&aside).as_deref(), Some("found"));

        // Twice on, and back under the first name: its nodes may still be somewhere.
        let refused = Survivor::hold(at.path()).unwrap().begin(&owner("old")).unwrap_err();
        assert!(matches!(&refused, StoreError::NotEmpty { found, .. } if found == "superseded-old"), "{refused}");
    }

    #[test]
    fn looking_changes_nothing_and_only_a_whole_folder_that_nobody_uses_is_taken() {
        let at = used();
        let before = content(at.path());
        let survivor = Survivor::hold(at.path()).unwrap();
        assert!(matches!(DataFolder::open(at.path(), &owner("old")), Err(StoreError::Locked { .. })));
        let scratch = tempfile::tempdir().unwrap();
        let copy = survivor.copy_to(scratch.path()).unwrap();
        write(copy.folder(), "something else");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
        drop((survivor, copy));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        assert_eq!(content(at.path()), before);

        let running = DataFolder::open(at.path(), &owner("old")).unwrap();
        assert!(matches!(Survivor::hold(at.path()), Err(StoreError::Locked { .. })));
        drop(running);
        let empty = tempfile::tempdir().unwrap();
        for none in [empty.path(), &empty.path().join("none")] {
            assert!(matches!(Survivor::hold(none), Err(StoreError::Missing { .. })));
        }
        assert_eq!(content(empty.path()), []);
        fs::remove_file(at.path().join("raft.db")).unwrap();
        assert!(matches!(Survivor::hold(at.path()), Err(StoreError::Missing { .. })));
    }

    /// Until the mark is there, the old node starts as if nothing had been.
    #[test]
    fn an_attempt_that_ended_before_the_mark_leaves_the_old_node() {
        let at = used();
        let survivor = Survivor::hold(at.path()).unwrap();
        drop(new_in(&survivor));
        survivor.abandon(new_in(&survivor));
        assert!(!at.path().join(WORKPLACE).exists(), "what failed leaves the disk as full as it was");
        drop(new_in(&survivor));
        drop(survivor);
        assert_eq!(resume(at.path(), &owner("new")).unwrap(), None);
        assert_eq!(marker(at.path(), "old"), "old state");
        let survivor = Survivor::hold(at.path()).unwrap();
        let new = new_in(&survivor);
        survivor.succeed(new, "found").unwrap();
        assert_eq!(marker(at.path(), "new"), "new state");
    }

    /// From the mark on, nobody starts until it is finished: whatever was moved before the interruption.
    #[test]
    fn an_attempt_that_ended_after_the_mark_is_finished_from_wherever_it_was() {
        for moved in 0.. {
            let at = used();
            let survivor = Survivor::hold(at.path()).unwrap();
            new_in(&survivor).finish().unwrap();
            let (move_aside, workplace) = (store_files(at.path()).unwrap(), at.path().join(WORKPLACE));
            let put_in_place = store_files(&workplace).unwrap();
            let aside = at.path().join("superseded-old");
            let mut moves: Vec<(PathBuf, PathBuf)> =
                move_aside.iter().map(|name| (at.path().join(name), aside.join(name))).collect();
            moves.extend(put_in_place.iter().map(|name| (workplace.join(name), at.path().join(name))));
            let plan = Plan {
                cluster_id: "new".to_owned(),
                node_id: 1,
                aside: "superseded-old".to_owned(),
                move_aside,
                put_in_place,
                found: "found".to_owned(),
            };
            fs::write(at.path().join(MARK_FILE), serde_json::to_vec(&plan).unwrap()).unwrap();
            fs::create_dir(&aside).unwrap();
            for (from, to) in moves.iter().take(moved) {
                fs::rename(from, to).unwrap();
            }
            assert!(matches!(resume(at.path(), &owner("new")), Err(StoreError::Locked { .. })));
            drop(survivor);

            for cluster in ["old", "new"] {
                let refused = DataFolder::open(at.path(), &owner(cluster)).unwrap_err();
                assert!(matches!(refused, StoreError::HalfRecovered { .. }), "{moved}: {refused}");
            }
            assert!(matches!(Survivor::hold(at.path()), Err(StoreError::HalfRecovered { .. })));
            assert!(matches!(resume(at.path(), &owner("third")), Err(StoreError::Foreign { .. })));
            assert_eq!(resume(at.path(), &owner("new")).unwrap(), Some(aside.clone()), "{moved}");
            assert_eq!(marker(at.path(), "new"), "new state", "{moved}");
            assert!(!workplace.exists());
            fs::remove_file(aside.join(SUPERSEDED_FILE)).unwrap();
            assert_eq!(marker(&aside, "old"), "old state", "{moved}");
            assert_eq!(found_in(&aside).as_deref(), Some("found"), "{moved}: whoever finishes it has to know");
            if moved == moves.len() {
                return;
            }
        }
    }

    #[test]
    fn what_an_earlier_cluster_of_the_name_left_is_not_written_over() {
        let at = used();
        fs::create_dir(at.path().join("superseded-old")).unwrap();
        let refused = Survivor::hold(at.path()).unwrap().begin(&owner("new")).unwrap_err();
        assert!(refused.to_string().contains("superseded-old"), "{refused}");
        assert!(!at.path().join(WORKPLACE).exists());
    }
}
