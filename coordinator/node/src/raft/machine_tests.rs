//! What stops a node, and what must not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use onespend_adapters::store::memory::{MemoryLog, MemoryState};
use onespend_adapters::store::{LogStore, PeerBook, StateStore, StoreError};
use onespend_core::command::{Command, Entry};
use onespend_core::ids::{Millis, ReservationId};
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use prost::bytes::Bytes;
use tempfile::TempDir;
use tonic::transport::ClientTlsConfig;

use super::config::RaftConfig;
use super::lag::AppendTimes;
use super::log_store::RaftLog;
use super::node::{RaftFatal, RaftNode, RaftParts, StartError};
use super::observer::NoObserver;
use super::propose::{Draft, ProposeError};
use super::state_machine::StateMachine;
use super::types::{Addresses, CommittedLeader, LogEntry, LogId, Membership, NodeId, Proposal};
use super::view::{HashAt, UsedIds};

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeader::new(1), index)
}

fn command(index: u64) -> LogEntry {
    let command = Command::Release { reservation: ReservationId(1), fence: None };
    let entry = Entry { at: Millis(index), wall_ms: 0, request: None, command };
    LogEntry { log_id: id(index), payload: EntryPayload::Normal(Proposal::new(entry)) }
}

/// A change of the members.
fn members(index: u64, ids: [NodeId; 3]) -> LogEntry {
    let nodes: BTreeMap<_, _> = ids.map(|node| (node, Addresses::default())).into();
    let membership = Membership::new(vec![ids.into()], nodes).unwrap();
    LogEntry { log_id: id(index), payload: EntryPayload::Membership(membership) }
}

/// What a later version may write.
fn unknown(index: u64) -> LogEntry {
    let bytes = Bytes::from_static(&[0x84, 0x00, 0x00, 0xf6, 0x82, 0x19, 0x03, 0xe7, 0x80]);
    LogEntry { log_id: id(index), payload: EntryPayload::Normal(Proposal::from_stored(bytes)) }
}

async fn apply(machine: &mut StateMachine, entries: Vec<LogEntry>) -> std::io::Result<()> {
    machine.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await
}

fn machine(state: &Arc<MemoryState>) -> StateMachine {
    StateMachine::open(state.clone(), AppendTimes::default(), Arc::new(NoObserver)).unwrap()
}

fn told_by(machine: &StateMachine) -> Vec<HashAt> {
    machine.view().hashes()
}

fn state_in(folder: &TempDir) -> Arc<MemoryState> {
    Arc::new(MemoryState::open(folder.path(), "test").unwrap())
}

fn parts(log: Arc<dyn LogStore>, state: Arc<dyn StateStore>) -> RaftParts {
    RaftParts {
        config: RaftConfig::default(),
        cluster_id: "test".to_owned(),
        node_id: 1,
        log,
        state,
        instance: "one".to_owned(),
        peers: PeerBook::default(),
        tls: ClientTlsConfig::new(),
        observer: Arc::new(NoObserver),
    }
}

/// safety 32: neither is it applied, nor what follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_is_not_skipped() {
    let folder = TempDir::new().unwrap();
    let mut machine = machine(&state_in(&folder));
    apply(&mut machine, vec![command(1), command(2)]).await.unwrap();
    let refused = apply(&mut machine, vec![command(3), unknown(4), command(5)]).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
    assert!(refused.to_string().contains("log entry 1.4"), "{refused}");
    assert_eq!(machine.view().read(|state| state.applied().0), 2);
}

/// An answer from the request cache carries the position: it was once behind the entry that the answer came from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_read_the_state_is_never_told_of_an_earlier_position() {
    const ENTRIES: u64 = 4_000;
    let folder = TempDir::new().unwrap();
    let mut machine = machine(&state_in(&folder));
    let view = machine.view().clone();
    let reader = std::thread::spawn(move || {
        let mut read = 0;
        while read < ENTRIES {
            read = view.read(|state| state.applied().0);
            let told = view.position().index.0;
            assert!(told >= read, "the state is at {read} and is said to be at {told}");
        }
    });
    for index in 1..=ENTRIES {
        apply(&mut machine, vec![command(index)]).await.unwrap();
    }
    reader.join().unwrap();
}

/// safety 32: nor does a start go past it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_start_over_a_log_that_it_cannot_read() {
    let folder = TempDir::new().unwrap();
    let store: Arc<dyn LogStore> = Arc::new(MemoryLog::default());
    let mut log = RaftLog::new(Arc::clone(&store), AppendTimes::default());
    log.append([command(0), unknown(1)], IOFlushed::noop()).await.unwrap();
    log.save_committed(Some(id(1))).await.unwrap();
    let refused = RaftNode::start(parts(store, state_in(&folder))).await.err().unwrap();
    assert!(matches!(&refused, StartError::Raft(why) if why.contains("log entry 1.1")), "{refused}");
}

/// safety 27, 29: what did not reach the disk is not acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_store_ends_the_node_and_its_callers_hear_no_success() {
    let folder = TempDir::new().unwrap();
    let log = Arc::new(MemoryLog::default());
    let node = RaftNode::start(parts(log.clone(), state_in(&folder))).await.unwrap();
    node.initialize([(1, Addresses::default())].into()).await.unwrap();
    let mut leadership = node.leadership();
    leadership.wait_for(|known| known.leader_term().is_some()).await.unwrap();
    let release = || Draft::duty(Command::Release { reservation: ReservationId(1), fence: None });
    let within = || tokio::time::Instant::now() + Duration::from_secs(5);
    node.proposer().propose(release(), within()).await.unwrap();

    log.fail(&StoreError::Corrupt { path: Path::new("raft.db").to_owned(), what: "on purpose".to_owned() });
    let lost = node.proposer().propose(release(), within()).await.unwrap_err();
    assert!(matches!(lost, ProposeError::Unknown | ProposeError::Stopped), "{lost:?}");
    let fatal = tokio::time::timeout(Duration::from_secs(5), node.wait_fatal()).await.unwrap();
    assert!(matches!(&fatal, RaftFatal::Store(error) if error.is_corruption()), "{fatal}");
    assert!(!node.turns().await, "its core has ended");
}

/// safety 25: the same hash there, and after the next command too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_carries_the_state_to_another_node_and_a_damaged_one_changes_nothing() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut source = machine(&state_in(&here));
    apply(&mut source, (1..=200).map(command).collect()).await.unwrap();
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(id(200)));
    let content = std::fs::read(&snapshot.snapshot.path).unwrap();

    let store = state_in(&there);
    let mut target = machine(&store);
    apply(&mut target, vec![command(1)]).await.unwrap();
    let before = target.view().read(onespend_core::state::State::hash);
    let mut incoming = store.receive(snapshot.snapshot.digest.clone()).unwrap();
    let mut damaged = content.clone();
    *damaged.last_mut().unwrap() ^= 1;
    incoming.write(&damaged).unwrap();
    assert!(incoming.finish().unwrap_err().is_corruption());
    assert_eq!(target.view().read(onespend_core::state::State::hash), before);

    let mut news = target.view().news();
    let mut incoming = store.receive(snapshot.snapshot.digest.clone()).unwrap();
    incoming.write(&content).unwrap();
    target.install_snapshot(&snapshot.meta, incoming.finish().unwrap()).await.unwrap();
    assert!(news.recv().await.unwrap().replaced);
    let hash = |machine: &StateMachine| machine.view().read(|state| (state.applied(), state.hash()));
    assert_eq!(hash(&target), hash(&source));
    assert_eq!(target.get_current_snapshot().await.unwrap().unwrap().meta, snapshot.meta);
    apply(&mut source, vec![command(201)]).await.unwrap();
    apply(&mut target, vec![command(201)]).await.unwrap();
    assert_eq!(hash(&target), hash(&source));
}

/// safety 31: nodes of a quiet cluster meet at the last index, however they came there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hash_at_the_last_index_is_told_after_entries_a_restart_and_a_snapshot() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = state_in(&here);
    let mut source = machine(&store);
    let first = told_by(&source)[0];
    apply(&mut source, (1..=200).map(command).collect()).await.unwrap();
    let told = told_by(&source);
    assert_eq!(told.iter().map(|at| at.index.0).collect::<Vec<_>>(), [200, 128]);
    assert!(first.hash != told[0].hash && told[0].hash != told[1].hash, "each is of its own index: {told:?}");
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
    drop(source);
    let mut restarted = machine(&store);
    assert_eq!(told_by(&restarted), told[..1]);

    let store = state_in(&there);
    let mut sent = machine(&store);
    let mut incoming = store.receive(snapshot.snapshot.digest.clone()).unwrap();
    incoming.write(&std::fs::read(&snapshot.snapshot.path).unwrap()).unwrap();
    sent.install_snapshot(&snapshot.meta, incoming.finish().unwrap()).await.unwrap();
    assert_eq!(told_by(&sent), told[..1]);

    // At a multiple it is told once, and of very many the newest.
    for node in [&mut restarted, &mut sent] {
        apply(node, (201..=128 * 70).map(command).collect()).await.unwrap();
    }
    let told = told_by(&restarted);
    assert!(told.iter().map(|at| at.index.0).eq((7..=70).rev().map(|number| number * 128)), "{told:?}");
    assert_eq!(told_by(&sent), told);
}

/// Also those that were removed before anybody came who is a member now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ids_of_removed_nodes_are_known_after_a_restart_and_where_only_a_snapshot_came() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = state_in(&here);
    let mut source = machine(&store);
    assert_eq!(source.view().used_ids(), UsedIds::default());
    // All at once: every change counts, not only the last.
    let changes = [[1, 2, 3], [4, 2, 3], [4, 5, 3], [4, 5, 6]];
    apply(&mut source, (1..).zip(changes).map(|(index, ids)| members(index, ids)).collect()).await.unwrap();
    let used = UsedIds { as_of: Some(id(4)), highest_removed: 3 };
    assert_eq!(source.view().used_ids(), used);
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
    drop(source);
    assert_eq!(machine(&store).view().used_ids(), used);

    let store = state_in(&there);
    let mut target = machine(&store);
    let mut incoming = store.receive(snapshot.snapshot.digest.clone()).unwrap();
    incoming.write(&std::fs::read(&snapshot.snapshot.path).unwrap()).unwrap();
    target.install_snapshot(&snapshot.meta, incoming.finish().unwrap()).await.unwrap();
    assert_eq!(target.view().used_ids(), used);
    apply(&mut target, vec![members(5, [5, 6, 7])]).await.unwrap();
    assert_eq!(target.view().used_ids(), UsedIds { as_of: Some(id(5)), highest_removed: 4 });
}

/// safety 27, 29: while the disk stands still nothing is acknowledged, and what was asked is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_is_bounded_and_at_the_deadline_its_outcome_is_unknown() {
    let folder = TempDir::new().unwrap();
    let log = Arc::new(MemoryLog::unsynced());
    let starting = RaftNode::start(parts(log.clone(), state_in(&folder)));
    let leads = async {
        let node = starting.await.unwrap();
        node.initialize([(1, Addresses::default())].into()).await.unwrap();
        node.leadership().wait_for(|known| known.leader_term().is_some()).await.unwrap();
        node
    };
    let syncs = async {
        loop {
            log.sync();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let node = tokio::select! {
        node = leads => node,
        () = syncs => unreachable!("it never ends"),
    };

    // From here on the disk stands still.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    let release = || Draft::duty(Command::Release { reservation: ReservationId(1), fence: None });
    let asked = (0..4_100).map(|_| node.proposer().propose(release(), deadline));
    let answers = futures::future::join_all(asked).await;
    let unknown = answers.iter().filter(|answer| matches!(answer, Err(ProposeError::Unknown))).count();
    let refused = answers.iter().filter(|answer| matches!(answer, Err(ProposeError::Overloaded))).count();
    assert_eq!((unknown, refused), (4_096, 4));
    let turns = tokio::time::timeout(Duration::from_secs(5), node.turns()).await;
    assert_eq!(turns, Ok(true), "its core does not wait for the disk");
}

/// safety 32: nor does the node go on, whatever else runs in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_ends_with_an_entry_that_cannot_be_read() {
    let folder = TempDir::new().unwrap();
    let node = RaftNode::start(parts(Arc::new(MemoryLog::default()), state_in(&folder))).await.unwrap();
    node.initialize([(1, Addresses::default())].into()).await.unwrap();
    node.leadership().wait_for(|known| known.leader_term().is_some()).await.unwrap();
    let EntryPayload::Normal(unreadable) = unknown(0).payload else { unreachable!("it is a command") };
    let patience = Duration::from_secs(20);
    let _ = tokio::time::timeout(patience, node.raft().client_write(unreadable)).await.expect("it is answered");
    let fatal = tokio::time::timeout(patience, node.wait_fatal()).await.expect("the node goes on");
    assert!(matches!(fatal, RaftFatal::Raft(_)), "{fatal}");
}
