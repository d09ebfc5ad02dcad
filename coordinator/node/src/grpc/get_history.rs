//! GetHistory: who led, as far as this node has learnt since it started.

use onespend_proto::v1;

use super::api::Api;
use crate::health::LeadershipChange;

pub(super) fn get_history(api: &Api) -> v1::GetHistoryResponse {
    let leadership = api.replica.history().changes().iter().map(change).collect();
    v1::GetHistoryResponse { node_id: api.settings.node_id, leadership }
}

fn change(change: &LeadershipChange) -> v1::LeadershipChange {
    let (seconds, millis) = (change.at_unix_ms / 1_000, change.at_unix_ms % 1_000);
    let time = prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis * 1_000_000).unwrap_or_default(),
    };
    v1::LeadershipChange { term: change.term, leader_id: change.leader_id, time: Some(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_milliseconds() {
        let shown = change(&LeadershipChange { term: 7, leader_id: 2, at_unix_ms: 1_700_000_000_042 });
        assert_eq!(shown.time.map(|time| time.to_string()).as_deref(), Some("2023-11-14T22:13:20.042Z"));
        assert_eq!((shown.term, shown.leader_id), (7, 2));
    }
}
