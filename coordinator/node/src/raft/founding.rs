//! The state outside of a running Raft: copies of it, and a cluster that begins with one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc;

use onespend_adapters::store::{Callback, LogKey, LogStore, SnapshotFile, StateStore, StoreError};
use onespend_core::ids::LogIndex;
use onespend_core::state::State;

use super::codec::{self, Marker};
use super::log_store::io_error;
use super::node::RaftNode;
use super::state_machine::{batch, position};
use super::types::{Addresses, CommittedLeader, LogId, Membership, NodeId, StoredMembership, Vote};
use super::view::Position;
use crate::runtime;

/// The one member that a cluster begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// Its id.
    pub node_id: NodeId,
    /// Where the others will reach it.
    pub addresses: Addresses,
    /// The term of the last entry in the state: terms go on above it, so that no log id is ever that of another entry.
    pub after_term: u64,
    /// The highest id that no other member may have, because another node may have it; 0 if there is none.
    pub highest_removed: NodeId,
}

impl RaftNode {
    /// Copies the state as it is here into a temporary file, which goes with the last clone of the value. Entries are
    /// applied meanwhile, and no snapshot is made: nothing is purged because of it.
    ///
    /// # Errors
    /// The store cannot be read, or the copy not be written. That does no harm to the node.
    pub async fn copy_state(&self) -> Result<SnapshotFile, StoreError> {
        let (behind, store) = self.stores();
        let copy = move || {
            behind.flush()?;
            store.copy()
        };
        runtime::blocking(copy).await.unwrap_or(Err(StoreError::Stopped))?.ok_or(StoreError::Stopped)
    }
}

/// The entry that a stored marker names.
///
/// # Errors
/// The marker is damaged, or of a later version.
pub fn place_of(marker: &[u8]) -> io::Result<Position> {
    Ok(position(codec::decode_marker(marker)?.applied))
}

/// Makes the stores of one node, which hold the rows of `state` as they were before it changed last and nothing of a log,
/// those of a cluster whose only member this is: as if it had led one term and written the last two entries, the change of
/// the members and what `state` did with the second. When this returns, all of it is on the disk.
///
/// # Errors
/// A store failed, or the state is at no entry that could follow a change of the members.
pub fn found(log: &dyn LogStore, store: &dyn StateStore, state: &mut State, founder: Founder) -> io::Result<()> {
    let (term, LogIndex(last)) = (founder.after_term + 1, state.applied());
    let members = last.checked_sub(1).ok_or_else(|| io::Error::other("the state has no place for the members"))?;
    let at = |index| LogId::new(CommittedLeader::new(term), index);
    let nodes = BTreeMap::from([(founder.node_id, founder.addresses)]);
    let membership = Membership::new(vec![BTreeSet::from([founder.node_id])], nodes)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let marker = Marker {
        applied: Some(at(last)),
        membership: StoredMembership::new(Some(at(members)), membership),
        highest_removed: Some(founder.highest_removed),
    };
    store.write(&batch(&marker, state.drain_changes())?).map_err(io_error)?;
    // Also what makes the rows durable; the other members will be sent it.
    store.snapshot().map_err(io_error)?;
    let vote = codec::encode_vote(&Vote::new_committed(term, founder.node_id))?;
    let purged = codec::encode_log_id(at(last))?;
    durable(|done| log.put(LogKey::Vote, vote, done))?;
    durable(|done| log.purge_through(last, purged, done))
}

fn durable(change: impl FnOnce(Callback)) -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    change(Box::new(move |result| drop(tell.send(result))));
    told.recv().map_err(io::Error::other)?.map_err(io_error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use onespend_adapters::store::Owner;
    use onespend_adapters::store::sqlite::{DataFolder, LogOptions, SqliteLog, SqliteState};
    use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};

    use super::super::lag::AppendTimes;
    use super::super::log_store::RaftLog;
    use super::super::observer::NoObserver;
    use super::super::state_machine::StateMachine;
    use super::*;

    fn founder() -> Founder {
        let addresses = Addresses { control: "10.0.0.7:7801".to_owned(), data: "10.0.0.7:7800".to_owned() };
        Founder { node_id: 7, addresses, after_term: 4, highest_removed: 9 }
    }

    /// What openraft finds when the node starts: one voter, a vote of that term, an empty log after the state, a snapshot.
    #[tokio::test]
    async fn a_founded_node_starts_as_the_only_member_above_all_that_was_before() {
        let at = tempfile::tempdir().unwrap();
        let owner = Owner { cluster_id: "new".to_owned(), node_id: 7 };
        let folder = DataFolder::open(at.path(), &owner).unwrap();
        let store = SqliteState::open(&folder).unwrap();
        let log = SqliteLog::open(&folder, LogOptions::default()).unwrap();
        let mut state = State::default();
        onespend_core::apply::skip(&mut state, LogIndex(20));
        onespend_core::restored::begin(&mut state, "a test", 1);
        found(&log, &store, &mut state, founder()).unwrap();
        log.stop();
        drop((log, store));

        let store = SqliteState::open(&folder).unwrap();
        let mut log =
            RaftLog::new(Arc::new(SqliteLog::open(&folder, LogOptions::default()).unwrap()), AppendTimes::default());
        let mut machine = StateMachine::open(Arc::new(store), AppendTimes::default(), Arc::new(NoObserver)).unwrap();
        let (applied, membership) = machine.applied_state().await.unwrap();
        let last = LogId::new(CommittedLeader::new(5), 22);
        assert_eq!(applied, Some(last));
        assert_eq!(membership.membership().voter_ids().collect::<Vec<_>>(), [7]);
        assert!(membership.log_id().as_ref() < Some(&last));
        assert_eq!(machine.view().used_ids().highest_removed, 9);
        let found = log.get_log_state().await.unwrap();
        assert_eq!((found.last_purged_log_id, found.last_log_id), (Some(last), Some(last)));
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(5, 7)));
        let snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.meta.last_log_id, Some(last));
        machine.view().read(|state| {
            assert!(state.recovery().is_some());
            assert_eq!(state.applied(), LogIndex(22));
        });
    }
}
