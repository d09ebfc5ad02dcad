#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tempfile::TempDir;

use super::*;
use crate::store::Owner;
use crate::store::contract::log::{LogFixture, log_contract};

fn owner() -> Owner {
    Owner {
        cluster_id: "demo".into(),
        node_id: 1,
    }
}

struct OnDisk {
    log: Option<SqliteLog>,
    folder: TempDir,
}

impl OnDisk {
    fn open(&mut self) {
        let folder = DataFolder::open(self.folder.path(), &owner()).unwrap();
        self.log = Some(SqliteLog::open(&folder, LogOptions::default()).unwrap());
    }

    /// A second connection, which no node would make.
    fn intruder(&self) -> Connection {
        Connection::open(self.folder.path().join("raft.db")).unwrap()
    }
}

impl LogFixture for OnDisk {
    fn fresh() -> Self {
        let mut at = Self {
            log: None,
            folder: TempDir::new().unwrap(),
        };
        at.open();
        at
    }

    fn log(&self) -> &dyn LogStore {
        self.log.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.log = None;
        self.intruder()
            .execute_batch("DROP TRIGGER IF EXISTS broken")
            .unwrap();
        self.open();
    }

    fn break_disk(&self) {
        self.intruder()
            .execute_batch("CREATE TRIGGER broken BEFORE INSERT ON entry BEGIN SELECT RAISE(ABORT, 'on purpose'); END")
            .unwrap();
    }
}

log_contract!(OnDisk);
