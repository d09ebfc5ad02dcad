//! Raft's messages between nodes: openraft's values to the project's protobuf messages and back.

use std::collections::BTreeMap;

use onespend_proto::peer::v1 as wire;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::codec::Marker;
use super::types::{
    Addresses, CommittedLeader, LogEntry, LogId, Membership, Proposal, StoredMembership, TypeConfig, Vote,
};

/// A message that breaks the protocol: a field that must be there is not, or a value makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed peer message: {0}")]
pub(crate) struct Malformed(&'static str);

type Read<T> = Result<T, Malformed>;

/// Above it the next index would not fit the store's signed 64 bits.
const MAX_INDEX: u64 = i64::MAX as u64 - 1;

pub(crate) fn vote(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, node_id: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn read_vote(vote: Option<wire::Vote>) -> Read<Vote> {
    let vote = vote.ok_or(Malformed("vote is missing"))?;
    let make = if vote.committed { Vote::new_committed } else { Vote::new };
    Ok(make(vote.term, vote.node_id))
}

fn log_id(id: LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, index: id.index }
}

fn read_log_id(id: wire::LogId) -> Read<LogId> {
    if id.index > MAX_INDEX {
        return Err(Malformed("a log index is beyond what a log can hold"));
    }
    Ok(LogId::new(CommittedLeader::new(id.term), id.index))
}

fn read_some_log_id(id: Option<wire::LogId>) -> Read<Option<LogId>> {
    id.map(read_log_id).transpose()
}

fn membership(membership: &Membership) -> wire::Membership {
    let set = |voters: &std::collections::BTreeSet<u64>| wire::VoterSet { node_ids: voters.iter().copied().collect() };
    let node = |node: &Addresses| wire::Node { control_address: node.control.clone(), data_address: node.data.clone() };
    wire::Membership {
        configs: membership.get_joint_config().iter().map(set).collect(),
        nodes: membership.nodes().map(|(id, addresses)| (*id, node(addresses))).collect(),
    }
}

fn read_membership(membership: wire::Membership) -> Read<Membership> {
    let node = |node: wire::Node| Addresses { control: node.control_address, data: node.data_address };
    let configs = membership.configs.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let nodes: BTreeMap<_, _> = membership.nodes.into_iter().map(|(id, addresses)| (id, node(addresses))).collect();
    Membership::new(configs, nodes).map_err(|_| Malformed("a voter of the membership has no address"))
}

fn entry(entry: LogEntry) -> wire::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => wire::entry::Payload::Blank(wire::Blank {}),
        EntryPayload::Normal(proposal) => wire::entry::Payload::Normal(proposal.bytes().clone()),
        EntryPayload::Membership(members) => wire::entry::Payload::Membership(membership(&members)),
    };
    wire::Entry { log_id: Some(log_id(entry.log_id)), payload: Some(payload) }
}

fn read_entry(entry: wire::Entry) -> Read<LogEntry> {
    let payload = match entry.payload.ok_or(Malformed("an entry has no payload"))? {
        wire::entry::Payload::Blank(_) => EntryPayload::Blank,
        wire::entry::Payload::Normal(bytes) => EntryPayload::Normal(Proposal::from_stored(bytes)),
        wire::entry::Payload::Membership(members) => EntryPayload::Membership(read_membership(members)?),
    };
    let log_id = read_log_id(entry.log_id.ok_or(Malformed("an entry has no log id"))?)?;
    Ok(LogEntry { log_id, payload })
}

pub(crate) fn append_request(request: AppendEntriesRequest<TypeConfig>) -> wire::AppendStreamRequest {
    wire::AppendStreamRequest {
        vote: Some(vote(&request.vote)),
        prev_log_id: request.prev_log_id.map(log_id),
        entries: request.entries.into_iter().map(entry).collect(),
        leader_commit: request.leader_commit.map(log_id),
        heard_moment: 0,
        quorum_age_us: 0,
    }
}

pub(crate) fn read_append_request(request: wire::AppendStreamRequest) -> Read<AppendEntriesRequest<TypeConfig>> {
    let entries: Vec<LogEntry> = request.entries.into_iter().map(read_entry).collect::<Read<_>>()?;
    let prev_log_id = read_some_log_id(request.prev_log_id)?;
    let first = prev_log_id.map_or(0, |id| id.index + 1);
    if (first..).zip(&entries).any(|(expected, entry)| entry.log_id.index != expected) {
        return Err(Malformed("the entries have a hole"));
    }
    let leader_commit = read_some_log_id(request.leader_commit)?;
    Ok(AppendEntriesRequest { vote: read_vote(request.vote)?, prev_log_id, entries, leader_commit })
}

pub(crate) fn append_result(result: &StreamAppendResult<TypeConfig>) -> wire::AppendStreamResponse {
    use wire::append_stream_response::Result as Wire;
    let result = match result {
        Ok(matched) => Wire::Matched(wire::Matched { log_id: (*matched).map(log_id) }),
        Err(StreamAppendError::Conflict(at)) => Wire::Conflict(log_id(*at)),
        Err(StreamAppendError::HigherVote(higher)) => Wire::HigherVote(vote(higher)),
    };
    wire::AppendStreamResponse { result: Some(result), moment: 0 }
}

pub(crate) fn read_append_result(response: wire::AppendStreamResponse) -> Read<StreamAppendResult<TypeConfig>> {
    use wire::append_stream_response::Result as Wire;
    Ok(match response.result.ok_or(Malformed("an append has no result"))? {
        Wire::Matched(matched) => Ok(read_some_log_id(matched.log_id)?),
        Wire::Conflict(at) => Err(StreamAppendError::Conflict(read_log_id(at)?)),
        Wire::HigherVote(higher) => Err(StreamAppendError::HigherVote(read_vote(Some(higher))?)),
    })
}

pub(crate) fn ballot(request: &VoteRequest<TypeConfig>) -> wire::Ballot {
    wire::Ballot {
        vote: Some(vote(&request.vote)),
        last_log_id: request.last_log_id.map(log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn read_ballot(ballot: Option<wire::Ballot>) -> Read<VoteRequest<TypeConfig>> {
    let ballot = ballot.ok_or(Malformed("the ballot is missing"))?;
    let mut request = VoteRequest::new(read_vote(ballot.vote)?, read_some_log_id(ballot.last_log_id)?);
    request.leadership_transfer = ballot.leadership_transfer;
    Ok(request)
}

pub(crate) fn ballot_result(response: &VoteResponse<TypeConfig>) -> wire::BallotResult {
    wire::BallotResult {
        vote: Some(vote(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.map(log_id),
    }
}

pub(crate) fn read_ballot_result(result: Option<wire::BallotResult>) -> Read<VoteResponse<TypeConfig>> {
    let result = result.ok_or(Malformed("the result of the ballot is missing"))?;
    Ok(VoteResponse::new(read_vote(result.vote)?, read_some_log_id(result.last_log_id)?, result.granted))
}

pub(crate) fn snapshot_meta(marker: &Marker) -> wire::SnapshotMeta {
    wire::SnapshotMeta {
        last_log_id: marker.applied.map(log_id),
        last_membership: Some(wire::StoredMembership {
            log_id: marker.membership.log_id().map(log_id),
            membership: Some(membership(marker.membership.membership())),
        }),
        highest_removed_id: marker.highest_removed,
    }
}

pub(crate) fn read_snapshot_meta(meta: Option<wire::SnapshotMeta>) -> Read<Marker> {
    let meta = meta.ok_or(Malformed("the snapshot has no description"))?;
    let stored = meta.last_membership.ok_or(Malformed("the snapshot has no membership"))?;
    let members = read_membership(stored.membership.ok_or(Malformed("the snapshot has no membership"))?)?;
    Ok(Marker {
        applied: read_some_log_id(meta.last_log_id)?,
        membership: StoredMembership::new(read_some_log_id(stored.log_id)?, members),
        highest_removed: meta.highest_removed_id,
    })
}

pub(crate) fn transfer_request(request: &TransferLeaderRequest<TypeConfig>) -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        from_leader: Some(vote(request.from_leader())),
        to_node_id: *request.to_node_id(),
        last_log_id: request.last_log_id().copied().map(log_id),
    }
}

pub(crate) fn read_transfer_request(request: wire::TransferLeaderRequest) -> Read<TransferLeaderRequest<TypeConfig>> {
    let from = read_vote(request.from_leader)?;
    Ok(TransferLeaderRequest::new(from, request.to_node_id, read_some_log_id(request.last_log_id)?))
}

pub(crate) fn transfer_response(response: &TransferLeaderResponse<TypeConfig>) -> wire::TransferLeaderResponse {
    use wire::transfer_leader_response::Result as Wire;
    let result = match response {
        Ok(()) => Wire::Accepted(wire::TransferAccepted {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Wire::VoteChanged(wire::VoteChanged { expected: Some(vote(expected)), actual: Some(vote(actual)) })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Wire::LogNotFlushed(wire::LogNotFlushed {
            expected: (*expected).map(log_id),
            actual: (*actual).map(log_id),
        }),
    };
    wire::TransferLeaderResponse { result: Some(result) }
}

pub(crate) fn read_transfer_response(
    response: wire::TransferLeaderResponse,
) -> Read<TransferLeaderResponse<TypeConfig>> {
    use wire::transfer_leader_response::Result as Wire;
    Ok(match response.result.ok_or(Malformed("a transfer has no result"))? {
        Wire::Accepted(_) => Ok(()),
        Wire::VoteChanged(changed) => Err(TransferLeaderError::VoteChanged {
            expected: read_vote(changed.expected)?,
            actual: read_vote(changed.actual)?,
        }),
        Wire::LogNotFlushed(short) => Err(TransferLeaderError::LogNotFlushed {
            expected: read_some_log_id(short.expected)?,
            actual: read_some_log_id(short.actual)?,
        }),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use onespend_core::command::{Command, Entry};
    use onespend_core::ids::{Millis, ReservationId};
    use prost::Message;

    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeader::new(term), index)
    }

    fn members() -> Membership {
        let node = |n: u64| (n, Addresses { control: format!("10.0.0.{n}:7801"), data: format!("10.0.0.{n}:7800") });
        let nodes: BTreeMap<_, _> = [1, 2, 3].map(node).into();
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], nodes).unwrap()
    }

    /// Through the bytes, as between two nodes.
    fn carry<M: Message + Default>(message: &M) -> M {
        M::decode(message.encode_to_vec().as_slice()).unwrap()
    }

    fn append() -> AppendEntriesRequest<TypeConfig> {
        let command = Command::Release { reservation: ReservationId(7), fence: None };
        let entry = Entry { at: Millis(5), wall_ms: 6, request: None, command };
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(id(2, 9)),
            entries: vec![
                LogEntry { log_id: id(3, 10), payload: EntryPayload::Blank },
                LogEntry { log_id: id(3, 11), payload: EntryPayload::Membership(members()) },
                LogEntry { log_id: id(3, 12), payload: EntryPayload::Normal(Proposal::new(entry)) },
            ],
            leader_commit: Some(id(2, 8)),
        }
    }

    #[test]
    fn appends_arrive_as_they_were_sent() {
        let sent = append();
        let got = read_append_request(carry(&append_request(sent.clone()))).unwrap();
        assert_eq!((got.vote, got.prev_log_id, got.leader_commit), (sent.vote, sent.prev_log_id, sent.leader_commit));
        assert_eq!(got.entries, sent.entries);
        for result in [
            Ok(None),
            Ok(Some(id(3, 12))),
            Err(StreamAppendError::Conflict(id(2, 9))),
            Err(StreamAppendError::HigherVote(Vote::new(4, 1))),
        ] {
            assert_eq!(read_append_result(carry(&append_result(&result))).unwrap(), result);
        }
    }

    #[test]
    fn ballots_snapshots_and_transfers_arrive_as_they_were_sent() {
        let mut request = VoteRequest::new(Vote::new(4, 1), Some(id(3, 12)));
        request.leadership_transfer = true;
        assert_eq!(read_ballot(Some(carry(&ballot(&request)))).unwrap(), request);
        let response = VoteResponse::new(Vote::new(4, 1), None, true);
        assert_eq!(read_ballot_result(Some(carry(&ballot_result(&response)))).unwrap(), response);
        let membership = StoredMembership::new(Some(id(1, 1)), members());
        let marker = Marker { applied: Some(id(3, 9)), membership, highest_removed: Some(0) };
        for marker in [marker, Marker::default()] {
            assert_eq!(read_snapshot_meta(Some(carry(&snapshot_meta(&marker)))).unwrap(), marker);
        }
        let transfer = TransferLeaderRequest::new(Vote::new_committed(3, 2), 1, Some(id(3, 9)));
        assert_eq!(read_transfer_request(carry(&transfer_request(&transfer))).unwrap(), transfer);
        for answer in [
            Ok(()),
            Err(TransferLeaderError::VoteChanged { expected: Vote::new(1, 1), actual: Vote::new(2, 2) }),
            Err(TransferLeaderError::LogNotFlushed { expected: Some(id(1, 1)), actual: None }),
        ] {
            assert_eq!(read_transfer_response(carry(&transfer_response(&answer))).unwrap(), answer);
        }
    }

    #[test]
    fn messages_that_break_the_protocol_are_refused() {
        let good = append_request(append());
        let spoil: [fn(&mut wire::AppendStreamRequest); 6] = [
            |m| m.vote = None,
            |m| m.entries[0].log_id = None,
            |m| m.entries[1].payload = None,
            |m| drop(m.entries.remove(1)),
            |m| m.prev_log_id = Some(wire::LogId { term: 2, index: u64::MAX }),
            |m| {
                let orphan = wire::Membership {
                    configs: vec![wire::VoterSet { node_ids: vec![9] }],
                    nodes: std::collections::HashMap::default(),
                };
                m.entries[1].payload = Some(wire::entry::Payload::Membership(orphan));
            },
        ];
        for spoil in spoil {
            let mut bad = good.clone();
            spoil(&mut bad);
            read_append_request(bad).unwrap_err();
        }
        read_append_result(wire::AppendStreamResponse::default()).unwrap_err();
        read_ballot(None).unwrap_err();
        read_ballot_result(Some(wire::BallotResult::default())).unwrap_err();
        read_snapshot_meta(Some(wire::SnapshotMeta::default())).unwrap_err();
        read_transfer_request(wire::TransferLeaderRequest::default()).unwrap_err();
        read_transfer_response(wire::TransferLeaderResponse::default()).unwrap_err();
    }
}
