//! Who belongs to the cluster, as the leader has it, with what each node says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use onespend_proto::v1;
use serde::Serialize;

use super::chain::Bitcoind;
use super::node_status::Member;
use crate::cli::format::{grouped, span};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};

/// The members in the order of their ids.
#[derive(Debug, Serialize)]
pub struct Members {
    members: Vec<Known>,
    /// What the leader has to say about a change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Known {
    #[serde(flatten)]
    member: Member,
    /// Null if the node did not answer, or was not asked.
    version: Option<String>,
    /// The same.
    bitcoind: Option<Bitcoind>,
    /// Whether it is out of rotation; the same.
    draining: Option<bool>,
}

/// A cluster that bears no failure at all.
pub const TWO_VOTERS: &str =
    "with two voters both are needed for every write, so they fail more often than one: add a third";

impl Members {
    /// After a change of the members: what the leader knows.
    pub fn of_leader(members: Vec<v1::Member>) -> Self {
        Self::with(members, BTreeMap::new())
    }

    /// The same after a promotion, with what keeps the new voter from leading.
    pub fn of_promotion(members: Vec<v1::Member>, warnings: Vec<String>) -> Self {
        Self { warnings, ..Self::of_leader(members) }
    }

    /// Of every node's answer to GetStatus; the members are those that the leader has, else the node that is furthest.
    pub fn of_all(answers: Vec<v1::GetStatusResponse>) -> Self {
        let leads = |answer: &v1::GetStatusResponse| answer.role() == v1::NodeRole::Leader;
        let best = answers.iter().max_by_key(|answer| (leads(answer), answer.term, answer.applied_index));
        let members = best.map(|answer| answer.members.clone()).unwrap_or_default();
        Self::with(members, answers.into_iter().map(|answer| (answer.node_id, answer)).collect())
    }

    fn with(members: Vec<v1::Member>, mut answers: BTreeMap<u64, v1::GetStatusResponse>) -> Self {
        let known = |member: v1::Member| {
            let answer = answers.remove(&member.node_id);
            let draining = answer.as_ref().map(|answer| answer.draining);
            let (version, bitcoind) = answer.map(|answer| (answer.version, answer.bitcoind)).unzip();
            Known { member: Member::from(member), version, bitcoind: bitcoind.flatten().map(Bitcoind::from), draining }
        };
        Self { members: members.into_iter().map(known).collect(), warnings: Vec::new() }
    }
}

impl Known {
    fn row(&self) -> [String; 8] {
        let Self { member, version, bitcoind, draining } = self;
        let lag = member.lag_entries.and_then(|lag| i64::try_from(lag).ok());
        [
            member.node_id.to_string(),
            vote(member.voter, *draining),
            member.control_address.clone(),
            member.data_address.clone(),
            lag.map(grouped).unwrap_or_default(),
            member.last_contact_ms.map(|ms| format!("{} ago", span(Duration::from_millis(ms)))).unwrap_or_default(),
            bitcoind.as_ref().map(Bitcoind::line).unwrap_or_default(),
            version.clone().unwrap_or_default(),
        ]
    }
}

impl Show for Members {
    fn text(&self) -> String {
        let columns = [
            Column::Number("NODE"),
            Column::Whole("VOTE"),
            Column::Whole("CONTROL"),
            Column::Whole("DATA"),
            Column::Number("LAG"),
            Column::Whole("LAST CONTACT"),
            Column::Text("BITCOIND"),
            Column::Text("VERSION"),
        ];
        let (rows, none) = (self.members.iter().map(Known::row), "no members");
        let asked = self.members.iter().any(|known| known.version.is_some());
        let mut text = if asked {
            table::list(columns, rows, none)
        } else {
            // After a change no node was asked, and what they would have said has no columns.
            let [node, vote, control, data, lag, contact, _, _] = columns;
            let rows =
                rows.map(|[node, vote, control, data, lag, contact, _, _]| [node, vote, control, data, lag, contact]);
            table::list([node, vote, control, data, lag, contact], rows, none)
        };
        let voters = self.members.iter().filter(|known| known.member.voter).count();
        for warning in self.warnings.iter().map(String::as_str).chain((voters == 2).then_some(TWO_VOTERS)) {
            text.push_str("\nwarning: ");
            text.push_str(warning);
        }
        text
    }
}

fn vote(voter: bool, draining: Option<bool>) -> String {
    let vote = if voter { "voter" } else { "learner" };
    if draining == Some(true) { format!("{vote}, draining") } else { vote.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node_id: u64, voter: bool) -> v1::Member {
        v1::Member { node_id, voter, control_address: format!("10.0.0.{node_id}:7801"), ..Default::default() }
    }

    fn status(node_id: u64, draining: bool, members: &[v1::Member]) -> v1::GetStatusResponse {
        let role = if node_id == 1 { v1::NodeRole::Leader } else { v1::NodeRole::Replica };
        v1::GetStatusResponse { node_id, role: role.into(), draining, members: members.to_vec(), ..Default::default() }
    }

    #[test]
    fn a_drained_member_and_a_pair_of_voters_are_shown() {
        let members = [member(1, true), member(2, true), member(4, false)];
        let text = Members::of_all(vec![status(1, false, &members), status(2, true, &members)]).text();
        assert!(text.contains("voter, draining") && text.contains("learner"), "{text}");
        assert!(text.contains("BITCOIND") && text.contains("VERSION"), "{text}");
        assert!(text.contains("warning: with two voters"), "{text}");
        let three = [member(1, true), member(2, true), member(3, true)];
        let text = Members::of_all(vec![status(1, false, &three)]).text();
        assert!(!text.contains("warning") && !text.contains("draining"), "{text}");
        let promoted = Members::of_promotion(three.to_vec(), vec!["its bitcoind is not in sync".to_owned()]);
        let text = promoted.text();
        assert!(text.ends_with("\nwarning: its bitcoind is not in sync"), "{text}");
        assert!(text.contains("LAST CONTACT") && !text.contains("BITCOIND"), "no node was asked: {text}");
    }
}
