//! `onespend cluster recover`: what it finds in the folder of a stopped node, what it refuses, and what it makes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bitcoin::Network;
use onespend_adapters::store::sqlite::{DataFolder, LogOptions, SqliteLog, SqliteState};
use onespend_adapters::store::{LogStore, Owner, RowBatch, RowChange, StateStore};
use onespend_core::apply::apply;
use onespend_core::command::{BlockRef, Command, Entry};
use onespend_core::ids::{Height, LogIndex, Millis};
use onespend_core::state::State;
use tempfile::TempDir;

use crate::backup::config;
use crate::run::{Authority, Ended, onespend};

const LOOK: &str = "--dry-run";
const ACCEPT: &str = "--i-accept-that-acknowledged-writes-may-be-lost";

fn open(data: &Path, node_id: u64) -> DataFolder {
    DataFolder::open(data, &Owner { cluster_id: "demo".to_owned(), node_id }).unwrap()
}

/// As `raft/codec.rs` writes it, for ever: term 2, index 81; the voters 1, 2, 3.
fn marker() -> Vec<u8> {
    let mut marker = vec![0x83, 0x82, 2, 0x18, 81, 0xf6, 0x82, 0x81, 0x83, 1, 2, 3, 0x83];
    for id in 1..=3 {
        marker.extend([0x83, id, 0x63, b'a', b':', b'1', 0x63, b'a', b':', b'2']);
    }
    marker
}

/// What a follower has after a crash: the state at index 81, and an entry after it that may be committed.
fn fill(folder: &DataFolder) {
    let mut state = State::default();
    let genesis = bitcoin::constants::genesis_block(Network::Regtest).block_hash();
    let tip = BlockRef { height: Height(0), hash: genesis };
    let start = Command::Start { network: Network::Regtest, tip };
    apply(&mut state, LogIndex(81), &Entry { at: Millis(1), wall_ms: 1, request: None, command: start });
    let rows = state.drain_changes().into_iter();
    let rows = rows.map(|row| RowChange { table: row.table, key: row.key, value: row.value }).collect();
    SqliteState::open(folder).unwrap().write(&RowBatch { marker: marker(), rows }).unwrap();
    let log = SqliteLog::open(folder, LogOptions::default()).unwrap();
    let blank: Vec<u8> = vec![0x82, 0x82, 2, 0x18, 82, 0x82, 0x00, 0x80];
    let (tell, told) = mpsc::channel();
    log.append(vec![(82, blank.into())], Box::new(move |done| tell.send(done).unwrap()));
    told.recv().unwrap().unwrap();
    log.stop();
}

/// A folder for one node, with certificates of the old cluster and of the new one.
struct Stopped {
    at: TempDir,
    old: Authority,
    new: Authority,
}

impl Stopped {
    fn new() -> Self {
        Self { at: tempfile::tempdir().unwrap(), old: Authority::new(), new: Authority::of("demo-2") }
    }

    fn data(&self) -> PathBuf {
        self.at.path().join("data")
    }

    /// With the configuration of the new cluster.
    fn recover(&self, how: &str) -> Ended {
        run(&config(self.at.path(), &self.new, "demo-2", ""), how)
    }

    fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> = files.map(|file| (file.clone(), fs::read(&file).unwrap())).collect();
        all.sort_unstable();
        all
    }
}

fn run(file: &Path, how: &str) -> Ended {
    onespend(&["-o", "json", "cluster", "recover", "--from-this-node", "--config", file.to_str().unwrap(), how])
}

#[test]
fn a_survivor_is_looked_at_without_a_change_and_then_goes_on_as_a_new_cluster() {
    let stopped = Stopped::new();
    fill(&open(&stopped.data(), 1));
    let before = stopped.content();

    let old = config(stopped.at.path(), &stopped.old, "demo", "");
    let looked = run(&old, LOOK).code(0).json();
    let found = &looked["found"];
    for (field, value) in
        [("last_index", 82), ("last_term", 2), ("committed_index", 81), ("uncommitted_entries", 1), ("node_id", 1)]
    {
        assert_eq!(found[field], value, "{looked}");
    }
    assert_eq!((&found["used_ids"], &found["members"][2]["voter"]), (&vec![1, 2, 3].into(), &true.into()), "{looked}");
    assert!(looked["taken"].is_null() && looked["in_the_way"][0].as_str().unwrap().contains("a name of its own"));
    let said = onespend(&["cluster", "recover", "--from-this-node", "--config", old.to_str().unwrap(), LOOK]).code(0);
    for words in
        ["index 82, term 2", "1 more may be", "acknowledged may be missing", "nothing was changed", "in the way"]
    {
        assert!(said.out.contains(words), "{words}: {said:?}");
    }
    let same_name = run(&old, ACCEPT).code(1);
    assert!(same_name.err.contains("a name of its own"), "{same_name:?}");
    assert!(stopped.recover(LOOK).code(0).json()["in_the_way"].as_array().unwrap().is_empty());
    assert_eq!(stopped.content(), before, "nothing was changed");

    let done = stopped.recover(ACCEPT).code(0).json();
    for (field, value) in [("index", 84), ("epoch", 1), ("node_id", 1)] {
        assert_eq!(done["taken"][field], value, "{done}");
    }
    assert!(fs::read_to_string(stopped.data().join("identity.json")).unwrap().contains("demo-2"));
    let looked = stopped.recover(LOOK).code(0).json();
    assert_eq!(looked["found"]["used_ids"], serde_json::json!([1, 3]), "nobody gets an id up to it: {looked}");
    assert!(stopped.data().join("superseded-demo/raft.db").is_file());
    let again = stopped.recover(ACCEPT).code(1);
    assert!(again.err.contains("a name of its own"), "{again:?}");
}

#[test]
fn without_the_operators_word_nothing_is_done() {
    let stopped = Stopped::new();
    fill(&open(&stopped.data(), 1));
    let before = stopped.content();
    let file = config(stopped.at.path(), &stopped.new, "demo-2", "");
    let file = file.to_str().unwrap();
    let unsaid = onespend(&["cluster", "recover", "--from-this-node", "--config", file]).code(2);
    assert!(unsaid.err.contains(ACCEPT), "{unsaid:?}");
    onespend(&["cluster", "recover", "--config", file, ACCEPT]).code(2);
    onespend(&["cluster", "recover", "--from-this-node", "--config", file, LOOK, ACCEPT]).code(2);
    assert_eq!(stopped.content(), before);
}

#[test]
fn a_folder_of_a_running_node_of_another_one_and_one_that_never_held_anything_are_refused() {
    let stopped = Stopped::new();
    let refused = |why: &str| {
        for how in [LOOK, ACCEPT] {
            let ended = stopped.recover(how).code(1);
            assert!(ended.err.contains(why), "{ended:?}");
        }
    };
    refused("no data folder of onespend");
    assert!(!stopped.data().exists(), "none was made");
    let running = open(&stopped.data(), 1);
    refused("in use by another process");
    drop(running);
    refused("never held anything");
    fs::remove_dir_all(stopped.data()).unwrap();
    fill(&open(&stopped.data(), 2));
    refused("a folder never moves to another node");
    fs::write(stopped.data().join("RECOVERING"), "no plan").unwrap();
    let half = stopped.recover(LOOK).code(1);
    assert!(half.err.contains("was not finished") && half.err.contains("cluster recover"), "{half:?}");
    let damaged = stopped.recover(ACCEPT).code(1);
    assert!(damaged.err.contains("RECOVERING is damaged"), "{damaged:?}");
}
