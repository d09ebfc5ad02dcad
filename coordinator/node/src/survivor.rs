//! A cluster that has lost its quorum for good goes on from what one of its nodes has (ADR 0020).
//!
//! The node's folder is looked at in a copy, so looking changes nothing. What is found becomes the first node of a cluster
//! with a name of its own, in recovery mode, as a backup does (ADR 0019); then it takes the place of the old one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use onespend_adapters::store::sqlite::{
    DifferingMark, LogOptions, RestoredMark, SqliteLog, SqliteState, StoresCopy, Survivor, resume,
};
use onespend_adapters::store::{LogStore, Owner, PeerBook, StateStore};
use onespend_core::{invariant, restored};

use crate::backup::wall_ms;
use crate::config::Config;
use crate::incarnation;
use crate::parts;
use crate::raft::{Founder, NodeId, Salvage, salvage};

/// What one stopped node has. While this value lives, its folder is locked.
pub(crate) struct Inspection {
    survivor: Survivor,
    data_dir: PathBuf,
    /// What the stores hold.
    pub(crate) salvage: Salvage,
    /// Every other id that was used, as far as this node knows, of removed nodes the highest: no new node gets an id up to
    /// the highest of these.
    pub(crate) used_ids: BTreeSet<NodeId>,
    /// Whether the folder itself came out of a backup, and no leader has said so in the log yet.
    pub(crate) was_put_back: bool,
    /// The log index at which as many nodes contradicted its state as agreed with it, where nothing has decided that. No
    /// refusal: there may be no other node left.
    pub(crate) undecided: Option<String>,
    // In this order: the stores before what they lie in.
    store: SqliteState,
    _copy: StoresCopy,
}

/// A cluster that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Where its log goes on.
    pub(crate) index: u64,
    /// The fence epoch that it begins with.
    pub(crate) epoch: u32,
    /// Where the old stores are now.
    pub(crate) aside: PathBuf,
}

/// Finishes a recovery into this configuration's cluster that was interrupted, and gives back where the old stores are;
/// `None` if there was none.
///
/// # Errors
/// In words.
pub(crate) fn finish_interrupted(config: &Config) -> Result<Option<PathBuf>> {
    resume(&config.node.data_dir, &owner(config)).context("node.data_dir")
}

fn owner(config: &Config) -> Owner {
    Owner { cluster_id: config.cluster.id.clone(), node_id: config.node.id }
}

impl Inspection {
    /// Looks at the folder of the node that `config` describes, under its old name or the new one. `scratch` is a folder
    /// with room for a copy of its stores.
    ///
    /// # Errors
    /// In words. The folder is as it was.
    pub(crate) fn of(config: &Config, scratch: &Path) -> Result<Self> {
        let data_dir = config.node.data_dir.clone();
        let survivor = Survivor::hold(&data_dir).context("node.data_dir")?;
        let before = survivor.owner();
        ensure!(
            before.node_id == config.node.id,
            "{} belongs to {before}, and the configuration is that of node {}: a folder never moves to another node",
            data_dir.display(),
            config.node.id
        );
        if let Some(why) = DifferingMark::of(&data_dir).why() {
            bail!(
                "the state of this node was found to differ from that of the others ({why}): recover from another node"
            );
        }
        let copy = survivor.copy_to(scratch).context("a copy to look at")?;
        let log = SqliteLog::open(copy.folder(), LogOptions::default()).context("opening the log")?;
        let store = SqliteState::open(copy.folder()).context("opening the state")?;
        let book = PeerBook::open(copy.folder()).context("the book of the other nodes")?;
        let salvage = salvage(&log, &store).context("reading the log")?;
        log.stop();
        let Some(salvage) = salvage else {
            bail!("{} never held anything: there is nothing to go on from", data_dir.display());
        };
        invariant::check(&salvage.state).context("the state contradicts itself")?;
        let mut used_ids: BTreeSet<NodeId> = salvage.ids.iter().copied().chain(book.met()).collect();
        used_ids.remove(&config.node.id);
        let was_put_back = RestoredMark::of(&data_dir).is_set();
        let undecided = DifferingMark::undecided(&data_dir).why().map(|index| index.trim().to_owned());
        Ok(Self { survivor, data_dir, salvage, used_ids, was_put_back, undecided, store, _copy: copy })
    }

    /// Whose the folder is.
    pub(crate) fn owner(&self) -> Owner {
        self.survivor.owner()
    }

    /// Where it is.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What of a configuration stands in the way of [`Inspection::recover`].
    pub(crate) fn objections(&self, config: &Config) -> Vec<String> {
        incarnation::objections("the data folder", &self.owner().cluster_id, &self.salvage.state, config)
    }

    /// Makes of what was found the only member of the cluster that `config` names, in recovery mode, and puts it in place
    /// of the old stores. `found` stays beside these, for whoever does not see the end of it.
    ///
    /// # Errors
    /// In words. The folder is as it was, or says that [`finish_interrupted`] has to go on.
    pub(crate) fn recover(self, config: &Config, found: &str) -> Result<Recovered> {
        if let Some(objection) = self.objections(config).into_iter().next() {
            bail!(objection);
        }
        let before = self.owner();
        let Salvage { mut state, last, term, .. } = self.salvage;
        let founder = Founder {
            node_id: config.node.id,
            addresses: parts::own_addresses(config)?,
            after_term: term,
            highest_removed: self.used_ids.last().copied().unwrap_or(0),
        };
        let new = self.survivor.begin(&owner(config)).context("node.data_dir")?;
        let why = format!(
            "the quorum of cluster {} was lost, and node {} was all that was left of it: log index {}, term {}",
            before.cluster_id, before.node_id, last.index, last.term
        );
        restored::begin(&mut state, &why, wall_ms());
        let (index, epoch) = (state.applied().0, state.epoch());
        let fill = || {
            incarnation::fill(&new, |visit| self.store.load(visit).map(drop))?;
            incarnation::begin(&new, &mut state, founder)
        };
        if let Err(error) = fill() {
            self.survivor.abandon(new);
            return Err(error);
        }
        let aside = self.survivor.succeed(new, found)?;
        Ok(Recovered { index, epoch, aside })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use onespend_adapters::store::sqlite::DataFolder;
    use tempfile::TempDir;

    use super::*;
    use crate::raft::specimen::{last_of_three, paid};

    /// A configuration of node 1, with its folder in `at`.
    fn config(at: &Path, cluster: &str, more: &str) -> Config {
        let text = format!(
            "[cluster]\nid = '{cluster}'\nnetwork = 'regtest'\n[node]\nid = 1\ndata_dir = '{}'\n{more}\
             [[peers]]\nid = 1\ncontrol = '127.0.0.1:7801'\ndata = '127.0.0.1:7800'\n\
             [tls]\nca = 'ca.pem'\ncert = 'node-1.pem'\nkey = 'node-1.key'\n\
             [bitcoind]\nurl = 'http://127.0.0.1:18443'\ncookie_file = 'cookie'\n",
            at.join("data").display()
        );
        Config::parse(&text, &at.join("node.toml"), &[]).unwrap()
    }

    /// The folder of node 1 of `demo`, which was a follower when the others were lost, and the folder that it is in.
    fn survivor() -> TempDir {
        let at = tempfile::tempdir().unwrap();
        let owner = Owner { cluster_id: "demo".to_owned(), node_id: 1 };
        let folder = DataFolder::open(&at.path().join("data"), &owner).unwrap();
        last_of_three(&folder);
        let book = PeerBook::open(&folder).unwrap();
        book.meet(2, "two").unwrap();
        book.meet(9, "nine").unwrap();
        at
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_survivor_becomes_the_only_member_of_a_new_cluster_and_forgets_nothing() {
        let at = survivor();
        fs::write(at.path().join("data/signer-hot.db"), "precious").unwrap();
        let config = config(at.path(), "demo-2", "");
        let found = Inspection::of(&config, at.path()).unwrap();
        assert_eq!(found.used_ids, BTreeSet::from([2, 3, 4, 9]));
        assert!(!found.salvage.in_doubt.is_empty() && found.objections(&config).is_empty());
        assert_eq!(found.undecided, None);
        let last = found.salvage.last.index.0;
        let done = found.recover(&config, "found").unwrap();
        assert_eq!((done.index, done.epoch), (last + 2, 1));
        assert!(done.aside.join("raft.db").is_file());
        assert_eq!(fs::read(at.path().join("data/signer-hot.db")).unwrap(), b"precious");

        // It is a whole folder of the new cluster, and there is nothing more to do with it under this name.
        let again = Inspection::of(&config, at.path()).unwrap();
        assert_eq!(again.owner(), owner(&config));
        assert_eq!(again.used_ids, BTreeSet::from([9]), "no id up to it is used again");
        assert!(again.objections(&config)[0].contains("a name of its own"));
        let salvage = &again.salvage;
        assert_eq!((salvage.members.len(), salvage.uncommitted(), salvage.last.index.0), (1, 0, last + 2));
        assert_eq!(salvage.term, 6, "above the vote that it had given");
        let recovery = salvage.state.recovery().unwrap();
        assert!(recovery.reconciled.is_none() && recovery.why.contains("of cluster demo was lost"), "{recovery:?}");
        assert_eq!(salvage.state.payment(&paid()).map(|payment| payment.attempts.len()), Some(1));
    }

    /// safety 31: it may be the only one that is left, so it is said and not refused.
    #[test]
    fn a_survivor_whose_state_nobody_knows_to_be_right_says_so() {
        let at = survivor();
        DifferingMark::undecided(&at.path().join("data")).set("300\n").unwrap();
        let config = config(at.path(), "demo-2", "");
        let found = Inspection::of(&config, at.path()).unwrap();
        assert_eq!(found.undecided.as_deref(), Some("300"));
        assert!(found.objections(&config).is_empty());
        found.recover(&config, "found").unwrap();
    }

    #[test]
    fn a_configuration_that_old_nodes_could_meet_is_refused_and_nothing_is_changed() {
        let at = survivor();
        let before = names(&at.path().join("data"));
        let peer = "[[peers]]\nid = 2\ncontrol = '127.0.0.2:7801'\ndata = '127.0.0.2:7800'\n";
        for (cluster, more, why) in
            [("demo", "", "a name of its own"), ("demo-2", "join = true\n", "joins nobody"), ("demo-2", peer, "alone")]
        {
            let config = config(at.path(), cluster, more);
            let found = Inspection::of(&config, at.path()).unwrap();
            assert!(found.objections(&config)[0].contains(why), "{why}");
            let refused = found.recover(&config, "found").unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
            assert_eq!(names(&at.path().join("data")), before);
        }
        assert_eq!(names(at.path()), ["data"], "no copy is left");
    }

    #[test]
    fn a_folder_that_is_no_survivors_is_refused() {
        let at = tempfile::tempdir().unwrap();
        let config = config(at.path(), "demo-2", "");
        let refused = |why: &str| {
            let error = Inspection::of(&config, at.path()).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(error.contains(why), "{error}");
        };
        refused("no data folder of onespend");
        let owner = |node_id| Owner { cluster_id: "demo".to_owned(), node_id };
        let data = at.path().join("data");
        let fresh = DataFolder::open(&data, &owner(1)).unwrap();
        refused("in use by another process");
        drop(fresh);
        refused("never held anything");
        fs::remove_dir_all(&data).unwrap();
        drop(DataFolder::open(&data, &owner(2)).unwrap());
        refused("node 2 of cluster \"demo\", and the configuration is that of node 1");
        fs::remove_dir_all(&data).unwrap();
        last_of_three(&DataFolder::open(&data, &owner(1)).unwrap());
        DifferingMark::of(&data).set("at index 7").unwrap();
        refused("at index 7");
    }
}
