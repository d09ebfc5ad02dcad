//! openraft's own storage suite, against both implementations of the stores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use onespend_adapters::store::memory::{MemoryLog, MemoryState};
use onespend_adapters::store::sqlite::{DataFolder, LogOptions, SqliteLog, SqliteState};
use onespend_adapters::store::{LogStore, Owner, StateStore};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::lag::AppendTimes;
use super::log_store::RaftLog;
use super::observer::NoObserver;
use super::state_machine::StateMachine;
use super::types::TypeConfig;

fn over(log: Arc<dyn LogStore>, state: Arc<dyn StateStore>) -> (RaftLog, StateMachine) {
    let times = AppendTimes::default();
    let machine = StateMachine::open(state, times.clone(), Arc::new(NoObserver)).unwrap();
    (RaftLog::new(log, times), machine)
}

struct InMemory;

impl StoreBuilder<TypeConfig, RaftLog, StateMachine, TempDir> for InMemory {
    async fn build(&self) -> Result<(TempDir, RaftLog, StateMachine), StorageError<TypeConfig>> {
        let folder = TempDir::new().unwrap();
        let state = MemoryState::open(folder.path(), "suite").unwrap();
        let (log, machine) = over(Arc::new(MemoryLog::default()), Arc::new(state));
        Ok((folder, log, machine))
    }
}

struct InSqlite;

impl StoreBuilder<TypeConfig, RaftLog, StateMachine, TempDir> for InSqlite {
    async fn build(&self) -> Result<(TempDir, RaftLog, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let owner = Owner { cluster_id: "suite".to_owned(), node_id: 1 };
        let folder = DataFolder::open(dir.path(), &owner).unwrap();
        let log = SqliteLog::open(&folder, LogOptions::default()).unwrap();
        let state = SqliteState::open(&folder).unwrap();
        let (log, machine) = over(Arc::new(log), Arc::new(state));
        Ok((dir, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_in_memory_pass_openrafts_suite() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_in_sqlite_pass_openrafts_suite() {
    Suite::test_all(InSqlite).await.unwrap();
}
