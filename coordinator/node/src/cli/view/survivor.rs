//! What is left of a cluster on one node, and the cluster that goes on from it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::agreement::UNDECIDED;
use crate::cli::format::{ago, counted};
use crate::cli::table;
use crate::config::Config;
use crate::raft::{NodeId, SalvagedMember};
use crate::survivor::Inspection;

/// Payments in doubt that a person is shown; a program is shown all.
const MAX_SHOWN: usize = 20;

/// What a stopped node has.
#[derive(Debug, Serialize)]
pub struct Found {
    cluster_id: String,
    node_id: u64,
    data_dir: PathBuf,
    last_index: u64,
    last_term: u64,
    /// At least so far the log is committed.
    committed_index: u64,
    /// How far the state was stored.
    applied_index: u64,
    /// Entries that are not known to be committed, and are kept.
    uncommitted_entries: u64,
    /// Wall time of the last command in the log, by the clock of who led then; null if the log has none.
    last_entry_unix_ms: Option<u64>,
    members: Vec<Member>,
    /// Ids of all nodes, this one too, of removed ones the highest: no id up to the highest of these may be used again.
    used_ids: BTreeSet<NodeId>,
    /// Payments that may be signed because of entries which are not known to be committed, as `wallet/payment`.
    payments_in_doubt: Vec<String>,
    /// Whether the cluster was in recovery mode already, or its folder was put back and nobody has looked yet.
    recovery: bool,
    /// The log index at which as many nodes contradicted this one's state as agreed with it, where nothing has decided
    /// that; else null.
    undecided: Option<String>,
}

#[derive(Debug, Serialize)]
struct Member {
    node_id: u64,
    voter: bool,
    control_address: String,
    data_address: String,
}

impl From<&SalvagedMember> for Member {
    fn from(member: &SalvagedMember) -> Self {
        Self {
            node_id: member.node_id,
            voter: member.voter,
            control_address: member.addresses.control.clone(),
            data_address: member.addresses.data.clone(),
        }
    }
}

impl Found {
    /// Of a folder that was looked at.
    pub(crate) fn of(inspection: &Inspection) -> Self {
        let (owner, salvage) = (inspection.owner(), &inspection.salvage);
        Self {
            cluster_id: owner.cluster_id,
            node_id: owner.node_id,
            data_dir: inspection.data_dir().to_owned(),
            last_index: salvage.last.index.0,
            last_term: salvage.last.term,
            committed_index: salvage.committed.0,
            applied_index: salvage.stored.index.0,
            uncommitted_entries: salvage.uncommitted(),
            last_entry_unix_ms: salvage.last_wall_ms,
            members: salvage.members.iter().map(Member::from).collect(),
            used_ids: inspection.used_ids.iter().copied().chain([owner.node_id]).collect(),
            payments_in_doubt: salvage.in_doubt.iter().map(|key| format!("{}/{}", key.wallet, key.payment)).collect(),
            recovery: inspection.was_put_back || salvage.state.recovery().is_some(),
            undecided: inspection.undecided.clone(),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let last = match self.last_entry_unix_ms {
            Some(at) => format!("; last command {}", ago(UNIX_EPOCH + Duration::from_millis(at))),
            None => String::new(),
        };
        let committed = match self.uncommitted_entries {
            0 => format!("up to {}, which is all", self.committed_index),
            more => format!("at least up to {}; {more} more may be, and are kept", self.committed_index),
        };
        let recovery = if self.recovery { "was not confirmed yet: the data had been put back before" } else { "" };
        let card = table::card([
            ("state of", format!("node {} of cluster {}", self.node_id, self.cluster_id)),
            ("data folder", self.data_dir.display().to_string()),
            ("log", format!("index {}, term {}{last}", self.last_index, self.last_term)),
            ("committed", committed),
            ("stored state", format!("up to {}", self.applied_index)),
            ("perhaps wrong", self.undecided()),
            ("members", self.members()),
            ("ids used up", listed(self.used_ids.iter().map(NodeId::to_string))),
            ("in doubt", self.doubts()),
            ("recovery mode", recovery.to_owned()),
        ]);
        format!(
            "{card}\n\n\
             Writes that were acknowledged may be missing: what only the other nodes had is not in this\n\
             state, and nothing here can show what that is. It may have been signed and paid."
        )
    }

    fn members(&self) -> String {
        listed(self.members.iter().map(|member| {
            let this = if member.node_id == self.node_id { " (this one)" } else { "" };
            let learner = if member.voter { "" } else { " (no vote)" };
            format!("{}{this}{learner}", member.node_id)
        }))
    }

    fn undecided(&self) -> String {
        let Some(index) = &self.undecided else { return String::new() };
        format!(
            "as many nodes contradicted this state at log index {index} as agreed with it ({UNDECIDED}): if another \
             node is left, find out first which of them is right"
        )
    }

    fn doubts(&self) -> String {
        let all = self.payments_in_doubt.len();
        if all == 0 {
            return String::new();
        }
        let shown = listed(self.payments_in_doubt.iter().take(MAX_SHOWN).cloned());
        let more = if all > MAX_SHOWN { format!(" and {} more", all - MAX_SHOWN) } else { String::new() };
        let what = counted(all, "payment, whose order", "payments, whose orders");
        format!("{what} may have been lost or replaced: {shown}{more}")
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The cluster that goes on.
#[derive(Debug, Serialize)]
pub struct Taken {
    cluster_id: String,
    node_id: u64,
    data_dir: PathBuf,
    /// Where its log goes on; null where only the end of the work was done.
    index: Option<u64>,
    /// The fence epoch that it begins with; null likewise.
    epoch: Option<u32>,
    /// Where the old stores are.
    aside: PathBuf,
}

impl Taken {
    /// The cluster of a configuration. `begins` is index and epoch, if they are known.
    pub(crate) fn of(config: &Config, begins: Option<(u64, u32)>, aside: PathBuf) -> Self {
        Self {
            cluster_id: config.cluster.id.clone(),
            node_id: config.node.id,
            data_dir: config.node.data_dir.clone(),
            index: begins.map(|(index, _)| index),
            epoch: begins.map(|(_, epoch)| epoch),
            aside,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        format!(
            "node {} is the only member of cluster {} now; the old stores are in\n{}\n\
             Hand on what its signers remember (onespend signer adopt), then start it: it is in recovery\n\
             mode. Then add the others, under ids above all that were used: onespend cluster add",
            self.node_id,
            self.cluster_id,
            self.aside.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        let member = |node_id, voter| Member {
            node_id,
            voter,
            control_address: format!("10.0.0.{node_id}:7801"),
            data_address: format!("10.0.0.{node_id}:7800"),
        };
        Found {
            cluster_id: "demo".to_owned(),
            node_id: 1,
            data_dir: PathBuf::from("/var/lib/onespend"),
            last_index: 812,
            last_term: 4,
            committed_index: 809,
            applied_index: 800,
            uncommitted_entries: 3,
            last_entry_unix_ms: Some(0),
            members: vec![member(1, true), member(2, true), member(4, false)],
            used_ids: BTreeSet::from([1, 2, 3, 4]),
            payments_in_doubt: (0..30).map(|n| format!("hot/p{n}")).collect(),
            recovery: false,
            undecided: None,
        }
    }

    #[test]
    fn what_is_unsure_is_said_plainly() {
        let text = found().text();
        for said in [
            "index 812, term 4; last command ",
            "at least up to 809; 3 more may be, and are kept",
            "1 (this one), 2, 4 (no vote)",
            "ids used up 1, 2, 3, 4",
            "30 payments, whose orders may have been",
            "and 10 more",
            "Writes that were acknowledged may be missing",
        ] {
            // Long lines are broken between words.
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(said.trim_end()), "{said}: {text}");
        }
        assert!(!text.contains("recovery mode") && !text.contains("perhaps wrong"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let sure = Found { uncommitted_entries: 0, payments_in_doubt: Vec::new(), ..found() };
        assert!(sure.text().contains("which is all") && !sure.text().contains("in doubt"));
    }

    /// safety 31.
    #[test]
    fn a_state_that_nobody_knows_to_be_right_is_shown_as_such() {
        let text = Found { undecided: Some("300".to_owned()), ..found() }.text();
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for said in
            ["perhaps wrong as many nodes contradicted", "at log index 300", UNDECIDED, "which of them is right"]
        {
            assert!(flat.contains(said), "{said}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
