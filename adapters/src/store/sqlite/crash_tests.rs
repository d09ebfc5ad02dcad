//! Processes that are killed in the middle. A child runs one of the ignored tests of this file in a process of its own until
//! the parent sends SIGKILL. This shows what is acknowledged too early or replaced in the wrong order; that the disk keeps
//! what was synced is up to the disk.

// A child tells its parent on standard output what was acknowledged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use super::{DataFolder, LogOptions, SqliteLog, SqliteState};
use crate::store::contract::log::{acked, all, nobody, records};
use crate::store::contract::state::{batch, rows, transfer};
use crate::store::memory::MemoryLog;
use crate::store::{Callback, LogKey, LogStore, Owner, Record, SnapshotFile, StateStore};

const FOLDER: &str = "ONESPEND_TEST_FOLDER";
const ROUNDS: u64 = 6;

fn folder(path: &Path) -> DataFolder {
    DataFolder::open(path, &Owner { cluster_id: "demo".into(), node_id: 1 }).unwrap()
}

fn child(test: &str, at: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", &format!("store::sqlite::crash_tests::{test}")])
        .env(FOLDER, at)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets the child say `lines` lines, kills it, and gives back all that it said.
fn kill_after(mut child: Child, lines: usize) -> Vec<u64> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = Vec::new();
    for line in stdout.lines() {
        // The test harness of the child says something, too.
        said.extend(line.unwrap().strip_prefix("acked ").and_then(|n| n.parse::<u64>().ok()));
        if said.len() == lines {
            child.kill().unwrap();
        }
    }
    assert!(said.len() >= lines, "the child ended by itself: {:?}", child.wait());
    child.wait().unwrap();
    said
}

/// The n-th change of the endless history that a child writes: append three, and now and then cut off the last five.
fn change(log: &dyn LogStore, n: u64, next: &mut u64, done: Callback) {
    if n % 7 == 6 {
        *next = next.saturating_sub(5);
        log.truncate_from(*next, done);
    } else {
        log.append(records(*next..*next + 3, &format!("{n}.")), done);
        *next += 3;
    }
}

#[test]
#[ignore = "the child of killed_in_the_middle_every_acknowledged_change_is_there"]
fn child_appends() {
    let at = PathBuf::from(std::env::var(FOLDER).unwrap());
    let log = SqliteLog::open(&folder(&at), LogOptions::default()).unwrap();
    let (tell, told) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        for n in told {
            println!("acked {n}");
            std::io::stdout().flush().unwrap();
        }
    });
    let mut next = 0;
    for n in 0_u64.. {
        let tell = tell.clone();
        change(
            &log,
            n,
            &mut next,
            Box::new(move |result| {
                result.unwrap();
                tell.send(n).unwrap();
            }),
        );
    }
}

/// safety 29: on one node; a quorum is Raft's matter.
#[test]
fn killed_in_the_middle_every_acknowledged_change_is_there() {
    for round in 0..ROUNDS {
        let at = TempDir::new().unwrap();
        let said = kill_after(child("child_appends", at.path()), 40 + usize::try_from(round).unwrap() * 90);
        assert!(said.is_sorted_by(|a, b| a + 1 == *b), "acknowledged in order");
        let acked = said.last().unwrap() + 1;
        let found = all(&SqliteLog::open(&folder(at.path()), LogOptions::default()).unwrap());
        assert!(
            is_prefix_of_history(&found, acked),
            "{acked} changes were acknowledged, {} records found",
            found.len()
        );
    }
}

/// Is it what some number of changes, at least the acknowledged ones, leave?
fn is_prefix_of_history(found: &[Record], acked: u64) -> bool {
    /// More than can be on its way when the child is killed.
    const UNACKNOWLEDGED: u64 = 100_000;
    let model = MemoryLog::default();
    let mut next = 0;
    for n in 0..acked {
        change(&model, n, &mut next, nobody());
    }
    for n in acked..acked + UNACKNOWLEDGED {
        let same_end = model.state().last == found.last().map(|record| record.0);
        if same_end && all(&model) == found {
            return true;
        }
        change(&model, n, &mut next, nobody());
    }
    false
}

/// A snapshot of another node in which every value says the same.
fn snapshot_of(at: &Path, word: &str) -> SnapshotFile {
    let state = SqliteState::open(&folder(at)).unwrap();
    let keys: Vec<String> = (0..400).map(|n| format!("{n:04}")).collect();
    let word = word.repeat(100);
    let changes: Vec<_> = keys.iter().map(|key| (1, key.as_str(), Some(word.as_str()))).collect();
    state.write(&batch(&word[..1], &changes)).unwrap();
    state.snapshot().unwrap().unwrap()
}

#[test]
#[ignore = "the child of killed_in_an_installation_the_state_is_the_old_one_or_the_new_one"]
fn child_installs() {
    let at = PathBuf::from(std::env::var(FOLDER).unwrap());
    let snapshots = ["a", "b"].map(|word| snapshot_of(&at.join(word), word));
    let state = SqliteState::open(&folder(&at.join("node"))).unwrap();
    for n in 0.. {
        let snapshot = &snapshots[n % 2];
        state.install(&transfer(snapshot, &state).unwrap()).unwrap();
        state.write(&batch(std::str::from_utf8(&snapshot.digest.marker).unwrap(), &[])).unwrap();
        println!("acked {n}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn killed_in_an_installation_the_state_is_the_old_one_or_the_new_one() {
    for round in 0..ROUNDS {
        let at = TempDir::new().unwrap();
        let mut running = child("child_installs", at.path());
        // Not in step with what the child says, so that it is hit anywhere.
        std::thread::sleep(Duration::from_millis(250 + round * 37));
        running.kill().unwrap();
        running.wait().unwrap();
        let node = at.path().join("node");
        if !node.join("identity.json").exists() {
            continue;
        }
        let state = SqliteState::open(&folder(&node)).unwrap();
        let (marker, rows) = rows(&state);
        let Some(marker) = marker else { continue };
        let word = String::from_utf8(marker).unwrap().repeat(100);
        assert_eq!(rows.len(), 400);
        assert!(rows.values().all(|value| *value == word), "the rows and the marker belong together");
        let current = state.current_snapshot().unwrap().unwrap();
        assert_eq!(current.digest.marker, &word.as_bytes()[..1], "the state is as new as the snapshot");
        state.verify(&current).unwrap();
        assert!(!node.join("state.new").exists());
    }
}

#[test]
fn a_vote_that_was_acknowledged_survives() {
    let at = TempDir::new().unwrap();
    let said = kill_after(child("child_votes", at.path()), 50);
    let log = SqliteLog::open(&folder(at.path()), LogOptions::default()).unwrap();
    let vote = u64::from_le_bytes((*log.get(LogKey::Vote).unwrap()).try_into().unwrap());
    assert!(vote >= *said.last().unwrap());
}

#[test]
#[ignore = "the child of a_vote_that_was_acknowledged_survives"]
fn child_votes() {
    let at = PathBuf::from(std::env::var(FOLDER).unwrap());
    let log = SqliteLog::open(&folder(&at), LogOptions::default()).unwrap();
    for n in 0_u64.. {
        acked(|done| log.put(LogKey::Vote, n.to_le_bytes().to_vec(), done)).unwrap();
        println!("acked {n}");
        std::io::stdout().flush().unwrap();
    }
}
