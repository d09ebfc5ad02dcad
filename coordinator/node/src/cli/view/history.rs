//! Who led, as the nodes that answered have learnt of it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use onespend_proto::v1;
use serde::Serialize;

use super::time;
use crate::cli::format::{ago, span};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};

/// The terms that had a leader, oldest first. What no node that answered has heard of since it started is missing.
#[derive(Debug, Serialize)]
pub struct History {
    leadership: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    term: u64,
    leader_id: u64,
    /// When the first of the nodes learnt of it, by that node's clock.
    time: Option<String>,
    /// That node.
    seen_by: u64,
    #[serde(skip)]
    at: Option<SystemTime>,
}

impl History {
    /// Of every node's answer to GetHistory. A term has one leader, so what several nodes tell of one is the same, and
    /// the first to learn of it knew best when it began: often the leader itself.
    pub fn of_all(answers: Vec<v1::GetHistoryResponse>) -> Self {
        let mut terms: BTreeMap<u64, Change> = BTreeMap::new();
        for v1::GetHistoryResponse { node_id, leadership } in answers {
            for change in leadership {
                let change = Change::seen_by(node_id, &change);
                let earlier = terms.get(&change.term).is_some_and(|known| known.at <= change.at);
                if !earlier {
                    terms.insert(change.term, change);
                }
            }
        }
        Self { leadership: terms.into_values().collect() }
    }
}

impl Change {
    fn seen_by(node_id: u64, change: &v1::LeadershipChange) -> Self {
        Self {
            term: change.term,
            leader_id: change.leader_id,
            time: time(change.time.as_ref()),
            seen_by: node_id,
            at: change.time.and_then(|at| SystemTime::try_from(at).ok()),
        }
    }

    /// Until the next one; nothing while there is none.
    fn lasted(&self, next: Option<&Self>) -> String {
        match (self.at, next.and_then(|next| next.at)) {
            (Some(from), Some(to)) => to.duration_since(from).map(span).unwrap_or_default(),
            (None, _) | (_, None) => String::new(),
        }
    }
}

impl Show for History {
    fn text(&self) -> String {
        let columns = [
            Column::Number("TERM"),
            Column::Number("LEADER"),
            Column::Whole("SINCE"),
            Column::Whole(""),
            Column::Whole("UNTIL THE NEXT"),
            Column::Number("SEEN BY"),
        ];
        let rows = self.leadership.iter().enumerate().map(|(place, change)| {
            [
                change.term.to_string(),
                change.leader_id.to_string(),
                change.time.clone().unwrap_or_default(),
                change.at.map(ago).unwrap_or_default(),
                change.lasted(self.leadership.get(place + 1)),
                change.seen_by.to_string(),
            ]
        });
        table::list(columns, rows, "no node that answered has heard of a leader")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(node_id: u64, leadership: &[(u64, u64, i64)]) -> v1::GetHistoryResponse {
        let change = |(term, leader_id, seconds): &(u64, u64, i64)| v1::LeadershipChange {
            term: *term,
            leader_id: *leader_id,
            time: Some(prost_types::Timestamp { seconds: *seconds, nanos: 0 }),
        };
        v1::GetHistoryResponse { node_id, leadership: leadership.iter().map(change).collect() }
    }

    #[test]
    fn each_term_is_told_once_by_the_first_who_knew() {
        let history = History::of_all(vec![
            told(1, &[(1, 2, 1_000), (4, 1, 5_000)]),
            told(2, &[(1, 2, 999), (3, 2, 4_000)]),
            told(3, &[(4, 1, 5_001)]),
        ]);
        let rows: Vec<_> = history.leadership.iter().map(|one| (one.term, one.leader_id, one.seen_by)).collect();
        assert_eq!(rows, [(1, 2, 2), (3, 2, 2), (4, 1, 1)]);
        let lasted = history.leadership[0].lasted(history.leadership.get(1));
        assert_eq!(lasted, "50 min 1 s");
        assert_eq!(history.leadership[2].lasted(None), "", "it leads still");
        let text = history.text();
        assert!(text.contains("1970-01-01T00:16:39Z"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn a_cluster_without_a_leader_has_no_history() {
        assert_eq!(History::of_all(vec![told(1, &[])]).text(), "no node that answered has heard of a leader");
    }
}
