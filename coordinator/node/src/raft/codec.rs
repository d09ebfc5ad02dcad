//! The stored forms of everything that Raft keeps: minicbor with numbered fields, this project's own. A number is
//! never used again for something else.

use std::io;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use openraft::EntryPayload;
use prost::bytes::Bytes;

use super::types::{
    Addresses, CommittedLeader, LogEntry, LogId, Membership, NodeId, Payload, Proposal, SnapshotMeta, StoredMembership,
    Vote,
};
use super::view::UsedIds;

#[derive(Encode, Decode)]
struct LogIdRow {
    #[n(0)]
    term: u64,
    #[n(1)]
    index: u64,
}

#[derive(Encode, Decode)]
struct VoteRow {
    #[n(0)]
    term: u64,
    #[n(1)]
    node_id: u64,
    #[n(2)]
    committed: bool,
}

#[derive(Encode, Decode)]
struct MemberRow {
    #[n(0)]
    node_id: u64,
    #[n(1)]
    control: String,
    #[n(2)]
    data: String,
}

#[derive(Encode, Decode)]
struct MembershipRow {
    #[n(0)]
    configs: Vec<Vec<u64>>,
    #[n(1)]
    nodes: Vec<MemberRow>,
}

#[derive(Encode, Decode)]
enum PayloadRow<'b> {
    #[n(0)]
    Blank,
    #[n(1)]
    Normal(
        #[b(0)]
        #[cbor(with = "minicbor::bytes")]
        &'b [u8],
    ),
    #[n(2)]
    Membership(#[n(0)] MembershipRow),
}

#[derive(Encode, Decode)]
struct EntryRow<'b> {
    #[n(0)]
    log_id: LogIdRow,
    #[b(1)]
    payload: PayloadRow<'b>,
}

#[derive(Encode, Decode)]
struct MarkerRow {
    #[n(0)]
    applied: Option<LogIdRow>,
    #[n(1)]
    membership_log_id: Option<LogIdRow>,
    #[n(2)]
    membership: MembershipRow,
    #[n(3)]
    highest_removed: Option<u64>,
}

/// The place in the history that a stored state has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The last entry that it includes.
    pub(crate) applied: Option<LogId>,
    /// The last membership that it includes.
    pub(crate) membership: StoredMembership,
    /// The highest id of the nodes that were removed, 0 if none was. Earlier versions did not store it.
    pub(crate) highest_removed: Option<NodeId>,
}

impl Marker {
    /// Takes note of an entry that changes the members.
    pub(crate) fn change_members(&mut self, at: LogId, members: Membership) {
        let before = self.membership.nodes().map(|(id, _)| *id);
        let removed = before.filter(|id| members.get_node(id).is_none()).max();
        self.highest_removed = Some(self.used_ids().highest_removed.max(removed.unwrap_or(0)));
        self.membership = StoredMembership::new(Some(at), members);
    }

    /// Which ids are used up. Where an earlier version did not store who was removed, all up to the highest of a member.
    pub(crate) fn used_ids(&self) -> UsedIds {
        let highest_member = || self.membership.nodes().map(|(id, _)| *id).max().unwrap_or(0);
        let highest_removed = self.highest_removed.unwrap_or_else(highest_member);
        UsedIds { as_of: *self.membership.log_id(), highest_removed }
    }

    /// What openraft has to know of a snapshot with this marker.
    pub(crate) fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

fn write<T: Encode<()>>(value: &T) -> io::Result<Vec<u8>> {
    minicbor::to_vec(value).map_err(|error| io::Error::other(format!("a record has no stored form: {error}")))
}

fn read<'b, T: Decode<'b, ()>>(what: &str, bytes: &'b [u8]) -> io::Result<T> {
    let damaged = |cause: String| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {cause}"));
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| damaged(error.to_string()))?;
    if decoder.position() == bytes.len() { Ok(value) } else { Err(damaged("bytes are left over".to_owned())) }
}

impl From<LogId> for LogIdRow {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogIdRow> for LogId {
    fn from(row: LogIdRow) -> Self {
        Self::new(CommittedLeader::new(row.term), row.index)
    }
}

impl From<&Membership> for MembershipRow {
    fn from(membership: &Membership) -> Self {
        let member = |(node_id, node): (&NodeId, &Addresses)| MemberRow {
            node_id: *node_id,
            control: node.control.clone(),
            data: node.data.clone(),
        };
        Self {
            configs: membership.get_joint_config().iter().map(|voters| voters.iter().copied().collect()).collect(),
            nodes: membership.nodes().map(member).collect(),
        }
    }
}

impl MembershipRow {
    fn into_membership(self) -> io::Result<Membership> {
        let node = |row: MemberRow| (row.node_id, Addresses { control: row.control, data: row.data });
        let configs = self.configs.into_iter().map(|voters| voters.into_iter().collect()).collect();
        let nodes: std::collections::BTreeMap<_, _> = self.nodes.into_iter().map(node).collect();
        Membership::new(configs, nodes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("membership: {error}")))
    }
}

pub(crate) fn encode_log_id(id: LogId) -> io::Result<Vec<u8>> {
    write(&LogIdRow::from(id))
}

pub(crate) fn decode_log_id(bytes: &[u8]) -> io::Result<LogId> {
    read::<LogIdRow>("log id", bytes).map(LogId::from)
}

pub(crate) fn encode_vote(vote: &Vote) -> io::Result<Vec<u8>> {
    write(&VoteRow { term: vote.leader_id.term, node_id: vote.leader_id.voted_for, committed: vote.committed })
}

pub(crate) fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let row: VoteRow = read("vote", bytes)?;
    let make = if row.committed { Vote::new_committed } else { Vote::new };
    Ok(make(row.term, row.node_id))
}

pub(crate) fn encode_entry(entry: &LogEntry) -> io::Result<Vec<u8>> {
    let payload = match &entry.payload {
        EntryPayload::Blank => PayloadRow::Blank,
        EntryPayload::Normal(proposal) => PayloadRow::Normal(proposal.bytes()),
        EntryPayload::Membership(membership) => PayloadRow::Membership(membership.into()),
    };
    write(&EntryRow { log_id: entry.log_id.into(), payload })
}

/// The command's bytes are not copied: they stay part of the record.
pub(crate) fn decode_entry(record: &Arc<[u8]>) -> io::Result<LogEntry> {
    let row: EntryRow<'_> = read("log entry", record)?;
    let payload: Payload = match row.payload {
        PayloadRow::Blank => EntryPayload::Blank,
        PayloadRow::Normal(bytes) => {
            let record = Bytes::from_owner(Arc::clone(record));
            EntryPayload::Normal(Proposal::from_stored(record.slice_ref(bytes)))
        }
        PayloadRow::Membership(row) => EntryPayload::Membership(row.into_membership()?),
    };
    Ok(LogEntry { log_id: row.log_id.into(), payload })
}

pub(crate) fn encode_marker(marker: &Marker) -> io::Result<Vec<u8>> {
    write(&MarkerRow {
        applied: marker.applied.map(LogIdRow::from),
        membership_log_id: marker.membership.log_id().map(LogIdRow::from),
        membership: marker.membership.membership().into(),
        highest_removed: marker.highest_removed,
    })
}

pub(crate) fn decode_marker(bytes: &[u8]) -> io::Result<Marker> {
    let row: MarkerRow = read("marker of the state", bytes)?;
    let log_id = row.membership_log_id.map(LogId::from);
    Ok(Marker {
        applied: row.applied.map(LogId::from),
        membership: StoredMembership::new(log_id, row.membership.into_membership()?),
        highest_removed: row.highest_removed,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use onespend_core::command::{Command, Entry};
    use onespend_core::ids::{Millis, ReservationId};

    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeader::new(term), index)
    }

    fn members() -> Membership {
        let node = |n: u64| (n, Addresses { control: format!("10.0.0.{n}:7801"), data: format!("10.0.0.{n}:7800") });
        let nodes: BTreeMap<_, _> = [1, 2, 3].map(node).into();
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], nodes).unwrap()
    }

    fn entries() -> Vec<LogEntry> {
        let command = Command::Release { reservation: ReservationId(7), fence: None };
        let entry = Entry { at: Millis(5), wall_ms: 6, request: None, command };
        vec![
            LogEntry { log_id: id(1, 0), payload: EntryPayload::Membership(members()) },
            LogEntry { log_id: id(1, 1), payload: EntryPayload::Blank },
            LogEntry { log_id: id(2, 300), payload: EntryPayload::Normal(Proposal::new(entry)) },
        ]
    }

    #[test]
    fn entries_come_back_as_they_were() {
        for entry in entries() {
            let record: Arc<[u8]> = encode_entry(&entry).unwrap().into();
            let back = decode_entry(&record).unwrap();
            assert_eq!(back, entry);
            if let (EntryPayload::Normal(a), EntryPayload::Normal(b)) = (&back.payload, &entry.payload) {
                assert_eq!(a.entry().unwrap(), b.entry().unwrap());
            }
        }
    }

    #[test]
    fn votes_log_ids_and_markers_come_back_as_they_were() {
        for vote in [Vote::new(3, 2), Vote::new_committed(4, 1)] {
            assert_eq!(decode_vote(&encode_vote(&vote).unwrap()).unwrap(), vote);
        }
        assert_eq!(decode_log_id(&encode_log_id(id(9, 1 << 40)).unwrap()).unwrap(), id(9, 1 << 40));
        let membership = StoredMembership::new(Some(id(1, 0)), members());
        let earlier = Marker { applied: Some(id(2, 9)), membership, highest_removed: None };
        let full = Marker { highest_removed: Some(1 << 40), ..earlier.clone() };
        for marker in [Marker::default(), earlier, full] {
            assert_eq!(decode_marker(&encode_marker(&marker).unwrap()).unwrap(), marker);
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for entry in entries() {
            let whole = encode_entry(&entry).unwrap();
            for len in 0..whole.len() {
                decode_entry(&whole[..len].into()).unwrap_err();
            }
            let mut longer = whole.clone();
            longer.push(0);
            decode_entry(&longer.into()).unwrap_err();
        }
    }

    /// What a node wrote must be readable for ever; another value here breaks every log on disk.
    #[test]
    fn the_stored_form_is_fixed() {
        let blank = LogEntry { log_id: id(1, 2), payload: EntryPayload::Blank };
        assert_eq!(encode_entry(&blank).unwrap(), [0x82, 0x82, 0x01, 0x02, 0x82, 0x00, 0x80]);
        assert_eq!(encode_vote(&Vote::new_committed(3, 2)).unwrap(), [0x83, 0x03, 0x02, 0xf5]);
        // As earlier versions wrote it: what another node announces has to be the same bytes.
        assert_eq!(encode_marker(&Marker::default()).unwrap(), [0x83, 0xf6, 0xf6, 0x82, 0x80, 0x80]);
        let marker = Marker { highest_removed: Some(3), ..Marker::default() };
        assert_eq!(encode_marker(&marker).unwrap(), [0x84, 0xf6, 0xf6, 0x82, 0x80, 0x80, 0x03]);
    }

    #[test]
    fn the_highest_id_of_a_removed_node_stays_and_is_guessed_where_it_was_not_stored() {
        let of = |ids: &[NodeId]| {
            let nodes: BTreeMap<_, _> = ids.iter().map(|id| (*id, Addresses::default())).collect();
            Membership::new(vec![ids.iter().copied().collect()], nodes).unwrap()
        };
        let mut marker = Marker::default();
        let mut after = |index, ids: &[NodeId]| {
            marker.change_members(id(1, index), of(ids));
            (marker.used_ids().as_of, marker.used_ids().highest_removed)
        };
        assert_eq!(after(1, &[1, 2, 3]), (Some(id(1, 1)), 0), "nobody was removed");
        assert_eq!(after(2, &[1, 2, 3, 9]), (Some(id(1, 2)), 0));
        assert_eq!(after(3, &[1, 3, 9]), (Some(id(1, 3)), 2));
        assert_eq!(after(4, &[3, 9]), (Some(id(1, 4)), 2), "the highest, not the last");
        assert_eq!(after(5, &[3, 9, 10, 11]), (Some(id(1, 5)), 2));
        assert_eq!(after(6, &[3, 11]), (Some(id(1, 6)), 10), "of two at once");

        let membership = StoredMembership::new(Some(id(1, 1)), of(&[2, 5]));
        let mut earlier = Marker { applied: None, membership, highest_removed: None };
        assert_eq!(earlier.used_ids().highest_removed, 5);
        earlier.change_members(id(1, 2), of(&[2, 5, 6]));
        assert_eq!(earlier.highest_removed, Some(5), "from the first change on it is stored");
    }
}
