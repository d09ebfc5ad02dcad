//! What the stores of one stopped node hold, for a cluster that has lost its quorum for good (ADR 0020).
//!
//! Without a quorum nobody can say which of the last entries were committed. All of them are applied: an entry that is in
//! the log may have been committed, and its intent signed, by a leader that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use onespend_adapters::store::{LogKey, LogStore, StateStore};
use onespend_core::ids::{LogIndex, PaymentKey};
use onespend_core::state::State;
use openraft::EntryPayload;

use super::codec;
use super::log_store::io_error;
use super::state_machine::{apply_one, check_readable, load, position};
use super::types::{Addresses, LogEntry, LogId, Membership, NodeId, Proposal};
use super::view::{News, Position};

/// Bytes of the log that are in memory at once.
const READ_BYTES: usize = 2 << 20;

/// A member of the cluster, as this node knew it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvagedMember {
    /// Its id.
    pub node_id: NodeId,
    /// Where it was reached.
    pub addresses: Addresses,
    /// Whether it had a vote.
    pub voter: bool,
}

/// The state after the last entry of the log, and how sure each part of it is.
pub struct Salvage {
    /// The state. What has changed since it was stored can be drained.
    pub state: State,
    /// How far the stored rows were.
    pub stored: Position,
    /// At least so far the log is committed.
    pub committed: LogIndex,
    /// The last entry of the log, committed or not.
    pub last: Position,
    /// The highest term that this node has heard of.
    pub term: u64,
    /// The members by the last change of them, committed or not, in order of their ids.
    pub members: Vec<SalvagedMember>,
    /// Every node that was a member at some time, as far as it can be seen here: of the removed ones at least the highest.
    pub ids: BTreeSet<NodeId>,
    /// Wall time of the last command, by the clock of who led then, in Unix milliseconds.
    pub last_wall_ms: Option<u64>,
    /// Payments that may be signed because of entries which are not known to be committed.
    pub in_doubt: BTreeSet<PaymentKey>,
}

impl Salvage {
    /// How many entries are not known to be committed.
    pub fn uncommitted(&self) -> u64 {
        self.last.index.0.saturating_sub(self.committed.0)
    }
}

/// Reads both stores and applies what the log has beyond the stored rows. `None` if nothing was ever in them.
/// The stores are not changed, but for what opening them does.
///
/// # Errors
/// A store cannot be read, an entry is missing, or it is not known to this version (safety 32).
pub fn salvage(log: &dyn LogStore, store: &dyn StateStore) -> io::Result<Option<Salvage>> {
    let (state, marker) = load(store)?;
    let (held, stored) = (log.state(), marker.applied);
    if held.purged.as_ref().map(|purged| purged.index) > stored.map(|id| id.index) {
        return Err(io::Error::other("the log was purged beyond the stored state"));
    }
    let vote = log.get(LogKey::Vote).map(|bytes| codec::decode_vote(&bytes)).transpose()?;
    let committed = log.get(LogKey::Committed).map(|bytes| codec::decode_log_id(&bytes)).transpose()?;
    // What was applied here was committed.
    let committed = committed.map(|id| id.index).max(stored.map(|id| id.index)).unwrap_or(0);
    let mut replay = Replay {
        committed,
        next: stored.map_or(0, |id| id.index + 1),
        last: stored,
        state,
        membership: marker.membership.membership().clone(),
        ids: BTreeSet::new(),
        proposal: None,
        in_doubt: BTreeSet::new(),
    };
    replay.ids.extend(replay.membership.nodes().map(|(id, _)| *id));
    replay.ids.extend(Some(marker.used_ids().highest_removed).filter(|id| *id > 0));
    replay.log(log, held.first, held.last)?;
    let Some(last) = replay.last else { return Ok(None) };
    let last_wall_ms = replay.proposal.as_ref().and_then(|proposal| proposal.entry().ok()).map(|entry| entry.wall_ms);
    let heard = vote.map_or(0, |vote| vote.leader_id.term);
    Ok(Some(Salvage {
        stored: position(stored),
        committed: LogIndex(committed),
        last: position(Some(last)),
        term: heard.max(last.leader_id.term),
        members: members(&replay.membership),
        state: replay.state,
        ids: replay.ids,
        last_wall_ms,
        in_doubt: replay.in_doubt,
    }))
}

/// Goes through the log.
struct Replay {
    committed: u64,
    /// The first entry that the state lacks.
    next: u64,
    /// `None` before there is one.
    last: Option<LogId>,
    state: State,
    membership: Membership,
    ids: BTreeSet<NodeId>,
    proposal: Option<Proposal>,
    in_doubt: BTreeSet<PaymentKey>,
}

impl Replay {
    fn log(&mut self, log: &dyn LogStore, first: Option<u64>, last: Option<u64>) -> io::Result<()> {
        let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
        if first > self.next {
            return Err(io::Error::other(format!("log entry {} is missing", self.next)));
        }
        let mut at = first;
        while at <= last {
            let records = log.read(at..last + 1, READ_BYTES).map_err(io_error)?;
            if records.is_empty() {
                return Err(io::Error::other(format!("log entry {at} is missing")));
            }
            for (index, record) in records {
                self.entry(codec::decode_entry(&record)?)?;
                at = index + 1;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: LogEntry) -> io::Result<()> {
        let is_new = entry.log_id.index >= self.next;
        if is_new {
            check_readable(&entry)?;
            let mut news = News::default();
            apply_one(&mut self.state, &entry, &mut news)?;
            self.last = Some(entry.log_id);
            if entry.log_id.index > self.committed {
                self.in_doubt.extend(news.permitted.into_iter().map(|(payment, _)| payment));
            }
        }
        match entry.payload {
            EntryPayload::Normal(proposal) => self.proposal = Some(proposal),
            EntryPayload::Membership(membership) => {
                self.ids.extend(membership.nodes().map(|(id, _)| *id));
                if is_new {
                    self.membership = membership;
                }
            }
            EntryPayload::Blank => {}
        }
        Ok(())
    }
}

fn members(membership: &Membership) -> Vec<SalvagedMember> {
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let nodes: BTreeMap<&NodeId, &Addresses> = membership.nodes().collect();
    let member = |(node_id, addresses): (&NodeId, &Addresses)| SalvagedMember {
        node_id: *node_id,
        addresses: addresses.clone(),
        voter: voters.contains(node_id),
    };
    nodes.into_iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_adapters::store::memory::{MemoryLog, MemoryState};
    use prost::bytes::Bytes;
    use tempfile::TempDir;

    use super::super::specimen::{append, follower, history, id, paid};
    use super::*;

    struct Stores {
        log: MemoryLog,
        store: MemoryState,
        _folder: TempDir,
    }

    impl Stores {
        fn empty() -> Self {
            let folder = TempDir::new().unwrap();
            let store = MemoryState::open(folder.path(), "test").unwrap();
            Self { log: MemoryLog::default(), store, _folder: folder }
        }

        fn with(applied: usize) -> Self {
            let at = Self::empty();
            follower(&at.log, &at.store, applied);
            at
        }

        fn salvage(&self) -> io::Result<Option<Salvage>> {
            salvage(&self.log, &self.store)
        }
    }

    /// safety 30, and why all of the log counts: its last entry may have been signed for.
    #[test]
    fn what_is_in_the_log_and_not_known_to_be_committed_is_applied_and_named() {
        for applied in 1..=5 {
            let found = Stores::with(applied).salvage().unwrap().unwrap();
            assert_eq!(found.state.applied(), LogIndex(4), "{applied}");
            assert_eq!(found.state.payment(&paid()).map(|payment| payment.attempts.len()), Some(1));
            assert_eq!((found.stored.index.0, found.committed.0), (applied as u64 - 1, applied as u64 - 1));
            assert_eq!(found.uncommitted(), 5 - applied as u64);
            assert_eq!(found.last, Position { index: LogIndex(4), term: 3 });
            assert_eq!(found.term, 5, "it had voted in a later term");
            assert_eq!(found.last_wall_ms, Some(1_004));
            let in_doubt: Vec<_> = found.in_doubt.iter().cloned().collect();
            assert_eq!(in_doubt, if applied < 5 { vec![paid()] } else { vec![] });
        }
    }

    /// A follower learns late what is committed; what it knows takes the doubt away.
    #[test]
    fn what_is_known_to_be_committed_is_not_in_doubt() {
        let at = Stores::with(2);
        at.log.put(LogKey::Committed, codec::encode_log_id(id(3, 4)).unwrap(), Box::new(drop));
        let found = at.salvage().unwrap().unwrap();
        assert_eq!((found.committed, found.uncommitted()), (LogIndex(4), 0));
        assert!(found.in_doubt.is_empty() && found.state.payment(&paid()).is_some());
    }

    #[test]
    fn members_are_those_of_the_last_change_and_no_id_is_forgotten() {
        let before = Stores::with(3).salvage().unwrap().unwrap();
        let votes: Vec<_> = before.members.iter().map(|member| (member.node_id, member.voter)).collect();
        assert_eq!(votes, [(1, true), (2, true), (3, true), (4, false)]);

        let at = Stores::with(3);
        let addresses = Addresses { control: "10.0.0.7:7801".to_owned(), data: "10.0.0.7:7800".to_owned() };
        let after = Membership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, addresses.clone())])).unwrap();
        append(&at.log, &[LogEntry { log_id: id(4, 5), payload: EntryPayload::Membership(after) }]);
        let found = at.salvage().unwrap().unwrap();
        assert_eq!(found.members, [SalvagedMember { node_id: 7, addresses, voter: true }]);
        assert_eq!(found.ids, BTreeSet::from([1, 2, 3, 4, 7]));
    }

    #[test]
    fn stores_that_never_held_anything_are_nothing_to_go_on_from() {
        assert!(Stores::empty().salvage().unwrap().is_none());
    }

    /// safety 32.
    #[test]
    fn an_entry_that_no_version_knows_is_not_skipped() {
        let at = Stores::with(5);
        let bytes = Bytes::from_static(&[0x84, 0x00, 0x00, 0xf6, 0x82, 0x19, 0x03, 0xe7, 0x80]);
        let payload = EntryPayload::Normal(Proposal::from_stored(bytes));
        append(&at.log, &[LogEntry { log_id: id(3, 5), payload }]);
        let refused = at.salvage().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("log entry 3.5"), "{refused}");
    }

    #[test]
    fn a_log_that_begins_after_the_state_is_refused() {
        let at = Stores::empty();
        append(&at.log, &history()[3..]);
        assert!(at.salvage().err().is_some_and(|error| error.to_string().contains("log entry 0 is missing")));
    }
}
