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
}

#[derive(Debug, Serialize)]
struct Known {
    #[serde(flatten)]
    member: Member,
    /// Null if the node did not answer, or was not asked.
    version: Option<String>,
    /// The same.
    bitcoind: Option<Bitcoind>,
}

impl Members {
    /// After a change of the members: what the leader knows.
    pub fn of_leader(members: Vec<v1::Member>) -> Self {
        Self::with(members, BTreeMap::new())
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
            let (version, bitcoind) = match answers.remove(&member.node_id) {
                Some(answer) => (Some(answer.version), answer.bitcoind.map(Bitcoind::from)),
                None => (None, None),
            };
            Known { member: Member::from(member), version, bitcoind }
        };
        Self { members: members.into_iter().map(known).collect() }
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
        let rows = self.members.iter().map(|known| {
            let Known { member, version, bitcoind } = known;
            let lag = member.lag_entries.and_then(|lag| i64::try_from(lag).ok());
            [
                member.node_id.to_string(),
                if member.voter { "voter" } else { "learner" }.to_owned(),
                member.control_address.clone(),
                member.data_address.clone(),
                lag.map(grouped).unwrap_or_default(),
                member.last_contact_ms.map(|ms| format!("{} ago", span(Duration::from_millis(ms)))).unwrap_or_default(),
                bitcoind.as_ref().map(Bitcoind::line).unwrap_or_default(),
                version.clone().unwrap_or_default(),
            ]
        });
        let mut text = table::list(columns, rows, "no members");
        let voters = self.members.iter().filter(|known| known.member.voter).count();
        if voters == 2 {
            text.push_str(
                "\nwarning: with two voters both are needed for every write, so they fail more often than one",
            );
        }
        text
    }
}
