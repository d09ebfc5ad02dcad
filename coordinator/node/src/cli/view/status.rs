//! The whole cluster in one screen: every node's answer to GetStatus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use onespend_proto::v1;
use serde::Serialize;

use super::chain::{Bitcoind, Block};
use super::health::Health;
use super::members::TWO_VOTERS;
use super::node_status::{StateHash, Status};
use super::quorum::{Complaint, Quorum};
use crate::cli::format::{counted, span};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};
use crate::cli::words::Word;

/// Every node that was asked, in order of the members' ids; those that are not members come last.
#[derive(Debug, Serialize)]
pub struct Cluster {
    cluster_id: Option<String>,
    network: Option<String>,
    finality_depth: Option<u32>,
    /// What every member can do; null if no node answered.
    feature_level: Option<u32>,
    /// The leader that the newest term knows; null if none.
    leader_id: Option<u64>,
    /// Null if nobody knows of a voter.
    quorum: Option<Quorum>,
    nodes: Vec<Node>,
    /// What a human must look at.
    alarms: Vec<String>,
    /// What is degraded and recovers by itself.
    warnings: Vec<String>,
}

/// What [`Status::role`] is for a node that the leader does not have among the members any more.
const REMOVED: &str = "removed";

/// One node.
#[derive(Debug, Serialize)]
pub struct Node {
    /// Control address that was asked.
    address: String,
    /// Null if it did not answer.
    status: Option<Status>,
    /// Why it did not answer.
    error: Option<String>,
}

impl Cluster {
    /// Of the answers by address. At least one should be good.
    pub fn new(answers: Vec<(String, Result<v1::GetStatusResponse, String>)>) -> Self {
        let first = answers.iter().find_map(|(_, answer)| answer.as_ref().ok());
        let (cluster_id, network, finality_depth) = match first {
            Some(first) => (Some(first.cluster_id.clone()), Some(first.network.clone()), Some(first.finality_depth)),
            None => (None, None, None),
        };
        let mut nodes: Vec<Node> = answers.into_iter().map(|(address, answer)| Node::new(address, answer)).collect();
        nodes.sort_by_key(|node| node.status.as_ref().map_or(u64::MAX, |status| status.node_id));
        let removed = mark_removed(&mut nodes);
        let newest =
            nodes.iter().filter_map(|node| node.status.as_ref()).max_by_key(|status| (status.term, status.leader_id));
        let leader_id = newest.map(|status| status.leader_id).filter(|leader| *leader != 0);
        let told = |what: fn(&Status) -> &[String]| {
            let of = |status: &Status| -> Vec<String> {
                what(status).iter().map(|text| format!("node {}: {text}", status.node_id)).collect()
            };
            nodes.iter().filter_map(|node| node.status.as_ref()).flat_map(of).collect::<Vec<_>>()
        };
        let (mut alarms, mut warnings) = (told(|status| &status.alarms), told(|status| &status.warnings));
        let answered = nodes.iter().filter_map(|node| node.status.as_ref());
        let furthest = answered.max_by_key(|status| (status.term, status.applied_index));
        warnings.extend(removed.into_iter().map(|id| format!("node {id} was removed and still runs: stop it")));
        if furthest.is_some_and(|status| status.members.iter().filter(|member| member.voter).count() == 2) {
            warnings.push(TWO_VOTERS.to_owned());
        }
        alarms.extend(differing_hashes(&nodes));
        let feature_level = best(&nodes).map(|best| best.feature_level);
        let quorum = quorum(&nodes);
        Self { cluster_id, network, finality_depth, feature_level, leader_id, quorum, nodes, alarms, warnings }
    }

    /// What is missing because most of the voters are gone, or none of them leads; `None` if somebody leads a quorum.
    pub fn complaint(&self) -> Option<Complaint> {
        self.quorum.as_ref().and_then(Quorum::complaint)
    }

    fn best(&self) -> Option<&Status> {
        best(&self.nodes)
    }
}

/// The one whose word counts most: the leader if it answered, else the node that is furthest.
fn best(nodes: &[Node]) -> Option<&Status> {
    let answered = || nodes.iter().filter_map(|node| node.status.as_ref());
    answered()
        .filter(|status| status.role == v1::NodeRole::Leader.word())
        .max_by_key(|status| status.term)
        .or_else(|| answered().max_by_key(|status| status.applied_index))
}

fn quorum(nodes: &[Node]) -> Option<Quorum> {
    let answered: Vec<&Status> = nodes.iter().filter_map(|node| node.status.as_ref()).collect();
    Quorum::new(best(nodes)?, &answered)
}

/// A node that runs on after its removal does not hear of it, and says what it was. Gives back the ids of such nodes.
fn mark_removed(nodes: &mut [Node]) -> Vec<u64> {
    let leader = best(nodes).filter(|best| best.role == v1::NodeRole::Leader.word());
    let Some(leader) = leader else { return Vec::new() };
    let members: BTreeSet<u64> = leader.members.iter().map(|member| member.node_id).collect();
    // A node that waits to be added knows of no members.
    let was_member = |status: &&mut Status| !status.members.is_empty() && !members.contains(&status.node_id);
    let gone = nodes.iter_mut().filter_map(|node| node.status.as_mut()).filter(was_member);
    gone.map(|status| {
        status.role = REMOVED;
        status.node_id
    })
    .collect()
}

impl Node {
    fn new(address: String, answer: Result<v1::GetStatusResponse, String>) -> Self {
        match answer {
            Ok(answer) => Self { address, status: Some(answer.into()), error: None },
            Err(error) => Self { address, status: None, error: Some(error) },
        }
    }
}

/// Who leads, since when, and whether a quorum agrees. Nodes without a majority go on naming a leader that is gone.
fn leader(id: u64, best: &Status) -> String {
    if best.node_id != id {
        return format!("node {id}, term {}, as others last knew; it does not say so itself", best.term);
    }
    let mut line = format!("node {id}, term {}", best.term);
    for (what, then, ms) in [("for ", "", best.leader_age_ms), ("quorum ", " ago", best.quorum_age_ms)] {
        if let Some(ms) = ms {
            // Writing to a String cannot fail.
            let _ = write!(line, ", {what}{}{then}", span(Duration::from_millis(ms)));
        }
    }
    line
}

/// The cluster's feature level, and what it waits for while some node knows a higher one.
fn feature_level(level: u32, nodes: &[Node]) -> String {
    let answered = || nodes.iter().filter_map(|node| node.status.as_ref());
    if answered().all(|status| status.known_feature_level <= level) {
        return level.to_string();
    }
    let behind: Vec<String> = answered()
        .filter(|status| status.known_feature_level <= level)
        .map(|status| format!("node {}", status.node_id))
        .collect();
    if behind.is_empty() {
        return format!("{level}, and rises once every member has said that it knows a higher one");
    }
    format!("{level}, until a later version runs on {}", behind.join(", "))
}

/// Equal indices must have equal hashes (safety.md 31).
fn differing_hashes(nodes: &[Node]) -> Vec<String> {
    let mut seen: BTreeMap<u64, (&str, u64)> = BTreeMap::new();
    let mut alarms = Vec::new();
    for status in nodes.iter().filter_map(|node| node.status.as_ref()) {
        let Some(StateHash { index, hash }) = &status.state_hash else { continue };
        let (first, node) = *seen.entry(*index).or_insert((hash, status.node_id));
        if first != hash {
            alarms.push(format!("nodes {node} and {} differ in their state at index {index}", status.node_id));
        }
    }
    alarms
}

impl Show for Cluster {
    fn text(&self) -> String {
        let first = |lack: Complaint| format!("{}: {}\n\n", lack.what.to_uppercase(), lack.why);
        let mut text = self.complaint().map(first).unwrap_or_default();
        text.push_str(&self.summary());
        let columns = [
            Column::Number("NODE"),
            Column::Whole("ROLE"),
            Column::Number("TERM"),
            Column::Number("APPLIED"),
            Column::Number("LAG"),
            Column::Whole("HEALTH"),
            Column::Text("BITCOIND"),
            Column::Whole("UPTIME"),
            Column::Number("LEVEL"),
            Column::Text("VERSION"),
        ];
        // Writing to a String cannot fail.
        let _ = write!(text, "\n\n{}", table::list(columns, self.nodes.iter().map(|node| self.row(node)), "no nodes"));
        text.push_str(&self.failing_checks());
        for (id, health) in self.health() {
            if let Some(complaint) = health.complaint() {
                let _ = write!(text, "\nhealth: node {id}: {complaint}");
            }
        }
        text.push_str(&self.frozen_wallets());
        for (kind, lines) in [("alarm", &self.alarms), ("warning", &self.warnings)] {
            for line in lines {
                let _ = write!(text, "\n{kind}: {line}");
            }
        }
        for node in &self.nodes {
            if let Some(error) = &node.error {
                let _ = write!(text, "\nno answer from {}: {error}", node.address);
            }
        }
        text
    }
}

impl Cluster {
    fn summary(&self) -> String {
        let Some(best) = self.best() else { return "no node answered".to_owned() };
        let leader = match self.leader_id {
            Some(id) => leader(id, best),
            None => "none: no writes and no linearizable reads".to_owned(),
        };
        let counts = |counts: &BTreeMap<&'static str, u64>| {
            let counts: Vec<String> = counts
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(state, count)| format!("{count} {state}"))
                .collect();
            if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
        };
        table::card([
            (
                "cluster",
                format!(
                    "{}, {}, new wallets settle after {}",
                    self.cluster_id.as_deref().unwrap_or_default(),
                    self.network.as_deref().unwrap_or_default(),
                    counted(self.finality_depth.unwrap_or_default() as usize, "block", "blocks")
                ),
            ),
            ("leader", leader),
            ("tip", best.tip.as_ref().map_or_else(|| "no block yet".to_owned(), Block::line)),
            ("wallets", best.wallets.to_string()),
            ("reservations", counts(&best.reservations)),
            ("payments", counts(&best.payments)),
            ("feature level", feature_level(best.feature_level, &self.nodes)),
        ])
    }

    /// What the nodes that say so tell load balancers, with their ids.
    fn health(&self) -> impl Iterator<Item = (u64, &Health)> {
        let answered = self.nodes.iter().filter_map(|node| node.status.as_ref());
        answered.filter_map(|status| Some((status.node_id, status.health.as_ref()?)))
    }

    /// A line about them, or nothing.
    fn frozen_wallets(&self) -> String {
        let frozen = self.best().map(|best| best.frozen_wallets).filter(|frozen| *frozen > 0);
        let line = |frozen| {
            let wallets = if frozen == 1 { "wallet" } else { "wallets" };
            format!("\nfrozen: {frozen} {wallets}; `onespend wallet list` shows which")
        };
        frozen.map(line).unwrap_or_default()
    }

    /// A list of them after an empty line, or nothing.
    fn failing_checks(&self) -> String {
        let rows: Vec<[String; 4]> = self
            .health()
            .flat_map(|(id, health)| health.failing_checks.iter().map(move |check| (id, check)))
            .map(|(id, check)| [id.to_string(), check.name.clone(), check.purpose.to_owned(), check.value.clone()])
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let columns =
            [Column::Number("NODE"), Column::Whole("FAILING CHECK"), Column::Whole("FOR"), Column::Text("VALUE")];
        format!("\n\n{}", table::list(columns, rows, ""))
    }

    fn row(&self, node: &Node) -> [String; 10] {
        let Some(status) = &node.status else {
            let id =
                self.best().and_then(|best| best.members.iter().find(|member| member.control_address == node.address));
            let id = id.map_or_else(|| "?".to_owned(), |member| member.node_id.to_string());
            let mut row = [const { String::new() }; 10];
            (row[0], row[1]) = (id, "no answer".to_owned());
            return row;
        };
        let committed = self.best().map_or(0, |best| best.committed_index);
        let role = if status.draining { format!("{}, draining", status.role) } else { status.role.to_owned() };
        [
            status.node_id.to_string(),
            role,
            status.term.to_string(),
            status.applied_index.to_string(),
            committed.saturating_sub(status.applied_index).to_string(),
            status.health.as_ref().map(Health::word).unwrap_or_default().to_owned(),
            status.bitcoind.as_ref().map(Bitcoind::line).unwrap_or_default(),
            status.uptime_ms.map(|ms| span(Duration::from_millis(ms))).unwrap_or_default(),
            status.known_feature_level.to_string(),
            status.version.clone(),
        ]
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
