#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::OptionalExtension;
use tempfile::TempDir;

use super::*;
use crate::store::contract::log::{LogFixture, acked, all, append, log_contract, nobody, records};
use crate::store::{CommitStats, Owner};

fn owner() -> Owner {
    Owner { cluster_id: "demo".into(), node_id: 1 }
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
        let mut at = Self { log: None, folder: TempDir::new().unwrap() };
        at.open();
        at
    }

    fn log(&self) -> &dyn LogStore {
        self.log.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.log = None;
        self.intruder().execute_batch("DROP TRIGGER IF EXISTS broken").unwrap();
        self.open();
    }

    fn break_disk(&self) {
        self.intruder()
            .execute_batch("CREATE TRIGGER broken BEFORE INSERT ON entry BEGIN SELECT RAISE(ABORT, 'on purpose'); END")
            .unwrap();
    }
}

log_contract!(OnDisk);

/// As much as a group of callers would send in one go, many times over.
const MANY: u64 = 20_000;

fn observed(folder: &TempDir) -> (SqliteLog, Arc<Mutex<Vec<CommitStats>>>) {
    let commits = Arc::new(Mutex::new(Vec::new()));
    let seen = commits.clone();
    let observer: CommitObserver = Arc::new(move |stats| seen.lock().unwrap().push(stats));
    let folder = DataFolder::open(folder.path(), &owner()).unwrap();
    let log = SqliteLog::open(&folder, LogOptions { observer: Some(observer), ..LogOptions::default() }).unwrap();
    (log, commits)
}

fn open(folder: &TempDir) -> Result<SqliteLog, StoreError> {
    SqliteLog::open(&DataFolder::open(folder.path(), &owner())?, LogOptions::default())
}

/// A log with some records, closed.
fn closed(count: u64) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    append(&open(&folder).unwrap(), 0..count, "a");
    let path = folder.path().join("raft.db");
    (folder, path)
}

fn rows_in(path: &Path) -> u64 {
    Connection::open(path)
        .unwrap()
        .query_row("SELECT count(*) FROM entry", [], |row| row.get::<_, i64>(0))
        .unwrap()
        .cast_unsigned()
}

/// Keeps the writer waiting inside its commit until the guard is dropped.
fn hold_commits(folder: &TempDir) -> Connection {
    let db = Connection::open(folder.path().join("raft.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}

/// What watches for a disk that stalls must not wait for the end of what stalls.
#[test]
fn a_commit_that_waits_has_begun_and_not_ended() {
    let folder = TempDir::new().unwrap();
    let (begun, ended) = (Arc::new(Mutex::new(0_u32)), Arc::new(Mutex::new(0_u32)));
    let (begins, ends) = (begun.clone(), ended.clone());
    let options = LogOptions {
        begins: Some(Arc::new(move || *begins.lock().unwrap() += 1)),
        observer: Some(Arc::new(move |_| *ends.lock().unwrap() += 1)),
    };
    let log = SqliteLog::open(&DataFolder::open(folder.path(), &owner()).unwrap(), options).unwrap();
    append(&log, 0..1, "a");
    // Nothing that begins from here on can end before it is dropped.
    let held = hold_commits(&folder);
    let counts = || (*begun.lock().unwrap(), *ended.lock().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| append(&log, 1..2, "a"));
        loop {
            let (begun, ended) = counts();
            if begun > ended {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        drop(held);
    });
    drop(log);
    let (begun, ended) = counts();
    assert_eq!(begun, ended);
}

#[test]
fn appends_that_wait_share_a_commit() {
    let folder = TempDir::new().unwrap();
    let (log, commits) = observed(&folder);
    append(&log, 0..1, "a");
    commits.lock().unwrap().clear();
    let held = hold_commits(&folder);
    let next = Mutex::new(1_u64);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut next = next.lock().unwrap();
                    log.append(records(*next..*next + 1, "a"), nobody());
                    *next += 1;
                }
            });
        }
    });
    drop(held);
    acked(|done| log.append(vec![], done)).unwrap();
    let commits = commits.lock().unwrap();
    let entries: u64 = commits.iter().map(|stats| stats.entries).sum();
    let bytes: u64 = commits.iter().map(|stats| stats.bytes).sum();
    assert_eq!(entries, 320);
    assert_eq!(bytes, all(&log)[1..].iter().map(|(_, record)| record.len() as u64).sum::<u64>());
    assert!(commits.len() <= 3, "{} commits for 320 appends", commits.len());
}

#[test]
fn an_older_commit_in_flight_does_not_uncover_truncated_records() {
    let folder = TempDir::new().unwrap();
    let (log, commits) = observed(&folder);
    let log = Arc::new(log);
    let held = hold_commits(&folder);
    let (tell, told) = mpsc::channel();
    let reader = Arc::downgrade(&log);
    // Runs when the first append is durable and the truncation and its successor are not.
    let look = Box::new(move |result: Result<(), StoreError>| {
        result.unwrap();
        tell.send((all(&*reader.upgrade().unwrap()), commits.lock().unwrap().clone())).unwrap();
    });
    log.append(records(0..MANY, "a"), look);
    while log.queue.waiting() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    log.truncate_from(10, nobody());
    log.append(records(10..MANY + 5, "b"), nobody());
    drop(held);
    let expected = [records(0..10, "a"), records(10..MANY + 5, "b")].concat();
    let (seen, commits) = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(commits.len(), 1, "the rest was still in flight");
    assert_eq!(commits[0].entries, MANY);
    assert!(seen == expected, "the new records are seen, not the truncated ones");
    acked(|done| log.append(vec![], done)).unwrap();
    assert!(all(&*log) == expected);
}

#[test]
fn records_that_left_the_memory_are_read_from_disk() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder).unwrap();
    append(&log, 0..MANY, "a");
    append(&log, MANY..MANY + 1, "a");
    let in_memory_from = log.queue.with_tail(Tail::kept_from);
    assert!(in_memory_from > MANY / 2, "memory is bounded");
    assert!(all(&log) == records(0..MANY + 1, "a"));
    let across = in_memory_from - 3..in_memory_from + 3;
    assert_eq!(log.read(across.clone(), usize::MAX).unwrap(), records(across.clone(), "a"));
    assert_eq!(log.read(across.clone(), 1).unwrap(), records(across.start..across.start + 1, "a"));
    acked(|done| log.truncate_from(5, done)).unwrap();
    append(&log, 5..7, "b");
    assert_eq!(all(&log), [records(0..5, "a"), records(5..7, "b")].concat());
}

#[test]
fn readers_beside_truncations_and_purges_see_one_history() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder).unwrap();
    append(&log, 0..MANY, "0.");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..40_u64 {
                let from = MANY - round * 400;
                log.truncate_from(from, nobody());
                acked(|done| log.append(records(from..MANY, &format!("{round}.")), done)).unwrap();
                log.purge_through(round * 50, vec![1], nobody());
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut reads = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let seen = all(&log);
            reads += 1;
            assert!(seen.is_sorted_by(|a, b| a.0 + 1 == b.0), "no hole");
            // Each round rewrites everything from a lower index: within one history the rounds never rise, except
            // that records below the latest cut are older.
            let rounds: Vec<u64> = seen
                .iter()
                .map(|(_, record)| std::str::from_utf8(record).unwrap().split_once('.').unwrap().0.parse().unwrap())
                .collect();
            let last = *rounds.last().unwrap();
            let cut = MANY - last * 400;
            for ((index, _), round) in seen.iter().zip(rounds) {
                assert_eq!(round, if *index >= cut { last } else { 0 }, "index {index} after round {last}");
            }
        }
        assert!(reads > 0);
    });
}

#[test]
fn purged_rows_are_deleted_in_chunks() {
    let folder = TempDir::new().unwrap();
    let (log, commits) = observed(&folder);
    append(&log, 0..3_500, "a");
    commits.lock().unwrap().clear();
    let path = folder.path().join("raft.db");
    let (tell, told) = mpsc::channel();
    let at = path.clone();
    // Counts on the log's thread, before the next chunk.
    let count: Callback = Box::new(move |_| tell.send(rows_in(&at)).unwrap());
    log.purge_through(3_399, vec![1], count);
    assert_eq!(told.recv().unwrap(), 2_500, "not all at once");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while rows_in(&path) > 100 {
        assert!(std::time::Instant::now() < deadline, "{} rows are left", rows_in(&path));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(commits.lock().unwrap().len() >= 4, "1000 rows at a time");
    assert_eq!(all(&log), records(3_400..3_500, "a"));
}

#[test]
fn purged_rows_that_a_stop_left_are_deleted_later() {
    let (folder, path) = closed(3_500);
    let log = open(&folder).unwrap();
    let held = hold_commits(&folder);
    log.purge_through(3_499, vec![1], nobody());
    log.queue.stop();
    drop(held);
    drop(log);
    assert_eq!(rows_in(&path), 2_500, "stopping does not wait for the purge");
    let log = open(&folder).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while rows_in(&path) > 0 {
        assert!(std::time::Instant::now() < deadline, "{} rows are left", rows_in(&path));
        std::thread::sleep(Duration::from_millis(5));
    }
    append(&log, 3_500..3_501, "b");
}

#[test]
fn the_lazy_value_rides_on_the_next_commit() {
    let folder = TempDir::new().unwrap();
    let (log, commits) = observed(&folder);
    append(&log, 0..1, "a");
    commits.lock().unwrap().clear();
    let stored = || -> Option<Vec<u8>> {
        let db = Connection::open(folder.path().join("raft.db")).unwrap();
        db.query_row("SELECT value FROM named WHERE name = 'committed'", [], |row| row.get(0)).optional().unwrap()
    };
    log.put_lazily(LogKey::Committed, vec![7]);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(stored(), None);
    append(&log, 1..2, "a");
    assert_eq!(stored(), Some(vec![7]));
    assert_eq!(commits.lock().unwrap().len(), 1);
}

#[test]
fn a_failed_commit_refuses_all_that_waits_in_order() {
    let at = OnDisk::fresh();
    let log = at.log.as_ref().unwrap();
    append(log, 0..1, "a");
    at.break_disk();
    let held = hold_commits(&at.folder);
    let (tell, told) = mpsc::channel();
    for n in 1..100_u64 {
        let tell = tell.clone();
        log.append(records(n..n + 1, "a"), Box::new(move |result| tell.send((n, result.is_err())).unwrap()));
    }
    drop((held, tell));
    let heard: Vec<(u64, bool)> = told.iter().collect();
    assert_eq!(heard, (1..100).map(|n| (n, true)).collect::<Vec<_>>());
}

/// Opening must fail, be a corruption, and name the file and what is wrong.
fn assert_damaged(folder: &TempDir, what: &str) {
    let error = open(folder).map(|_| ()).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    let text = error.to_string();
    assert!(text.contains("raft.db") && text.contains(what), "{text}");
}

#[test]
fn a_damaged_database_is_refused_by_name() {
    for (sql, what) in [
        ("UPDATE entry SET record = x'00' WHERE idx = 5", "log entry 5"),
        ("UPDATE entry SET idx = 100 WHERE idx = 9", "log entry 9"),
        ("DELETE FROM entry WHERE idx = 5", "log entry 5 is missing"),
        ("INSERT INTO named VALUES('vote', x'01', 0)", "vote"),
        ("INSERT INTO named VALUES('mood', x'01', 0)", "mood"),
        ("INSERT INTO purged VALUES(1, 3, x'01', 0)", "purge marker"),
        ("DELETE FROM identity", "whose it is"),
        ("PRAGMA application_id = 1", "not a raft.db"),
    ] {
        let (folder, path) = closed(11);
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
        assert_damaged(&folder, what);
    }
}

#[test]
fn a_cut_or_foreign_file_is_refused_by_name() {
    let (folder, path) = closed(5_000);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    assert_damaged(&folder, "bytes of");
    std::fs::write(&path, "once upon a time ".repeat(1_000)).unwrap();
    assert_damaged(&folder, "not a database");
    std::fs::write(&path, "").unwrap();
    assert_damaged(&folder, "not a raft.db");
}

#[test]
fn damage_that_comes_later_is_noticed_when_it_is_read() {
    let (folder, path) = closed(11);
    let log = open(&folder).unwrap();
    let db = Connection::open(path).unwrap();
    db.execute_batch("UPDATE entry SET record = x'00' WHERE idx = 5").unwrap();
    let error = log.read(0..10, usize::MAX).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("log entry 5"), "{error}");
    db.execute_batch("DELETE FROM entry WHERE idx = 5").unwrap();
    let error = log.read(0..10, usize::MAX).unwrap_err();
    assert!(error.to_string().contains("log entry 5 is missing"), "{error}");
    assert_eq!(log.read(0..5, usize::MAX).unwrap(), records(0..5, "a"));
}

#[test]
fn records_that_are_cut_off_under_a_reader_are_not_taken_for_damage() {
    type Cut = fn(&SqliteLog);
    let cuts: [(Cut, Range<u64>); 2] = [
        (|log| acked(|done| log.truncate_from(5, done)).unwrap(), 0..5),
        (|log| acked(|done| log.purge_through(4, vec![4], done)).unwrap(), 5..11),
    ];
    for (cut, left) in cuts {
        let (folder, path) = closed(11);
        let log = open(&folder).unwrap();
        std::thread::scope(|scope| {
            let held = lock(&log.reader);
            let reading = scope.spawn(|| log.read(0..11, usize::MAX));
            // The reader has seen what to read, and waits for the connection.
            std::thread::sleep(Duration::from_millis(200));
            cut(&log);
            assert_eq!(rows_in(&path), left.end - left.start);
            drop(held);
            assert_eq!(reading.join().unwrap().unwrap(), records(left, "a"));
        });
    }
}

#[test]
fn the_last_handle_may_be_dropped_in_a_callback() {
    let folder = TempDir::new().unwrap();
    let log = Arc::new(open(&folder).unwrap());
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let last = log.clone();
    let done: Callback = Box::new(move |result| {
        gone.recv().unwrap();
        drop(last);
        tell.send(result).unwrap();
    });
    log.append(records(0..3, "a"), done);
    drop(log);
    go.send(()).unwrap();
    told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
}

#[test]
fn a_clean_stop_leaves_all_in_the_database_file() {
    let (folder, path) = closed(11);
    let wal = folder.path().join("raft.db-wal");
    assert_eq!(std::fs::metadata(wal).map_or(0, |file| file.len()), 0);
    assert_eq!(rows_in(&path), 11);
}
