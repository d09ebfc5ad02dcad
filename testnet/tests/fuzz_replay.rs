//! Everything that fuzzing begins with, and all that it ever found, through the same functions that the fuzzers in
//! `testnet/fuzz` call: a crash that was mended stays mended, without a fuzzer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../fuzz/src"]
mod fuzz {
    pub mod grpc_requests;
    pub mod history;
    pub mod log_entries;
    pub mod log_records;
    pub mod psbt_intake;
    pub mod rows;
    pub mod snapshots;
}

use std::fs;
use std::path::Path;

use fuzz::{grpc_requests, log_entries, log_records, psbt_intake, rows, snapshots};
use onespend::intake::{Reading, read_marker, read_record, read_request};
use onespend_core::command::Entry;
use onespend_policies::Action;

/// A target: its name, what it does with bytes, and what it begins with.
type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

const TARGETS: [Target; 6] = [
    ("psbt_intake", psbt_intake::feed, psbt_intake::seeds),
    ("grpc_requests", grpc_requests::feed, grpc_requests::seeds),
    ("rows", rows::feed, rows::seeds),
    ("log_entries", log_entries::feed, log_entries::seeds),
    ("log_records", log_records::feed, log_records::seeds),
    ("snapshots", snapshots::feed, snapshots::seeds),
];

fn crashes() -> Vec<(String, String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/crashes");
    let mut found = Vec::new();
    for target in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
        for file in fs::read_dir(target.path()).unwrap().map(Result::unwrap) {
            found.push((name(&target), name(&file), fs::read(file.path()).unwrap()));
        }
    }
    found
}

#[test]
fn what_fuzzing_begins_with_is_fed_without_a_panic() {
    for (name, feed, seeds) in TARGETS {
        let seeds = seeds();
        assert!(seeds.len() > 1, "{name} has nothing to begin with");
        for seed in &seeds {
            feed(seed);
            // Cut short anywhere.
            for len in (0..seed.len()).step_by(1 + seed.len() / 64) {
                feed(&seed[..len]);
            }
        }
    }
}

#[test]
fn what_fuzzing_found_stays_mended() {
    for (target, file, bytes) in crashes() {
        let known = TARGETS.iter().find(|(name, ..)| *name == target);
        let (_, feed, _) = known.unwrap_or_else(|| panic!("crashes/{target}/{file} is of no target"));
        println!("{target}/{file}");
        feed(&bytes);
    }
}

/// Seeds that are refused at the door would leave the rooms behind it dark.
#[test]
fn what_fuzzing_begins_with_gets_as_far_as_it_should() {
    let read = |seed: &Vec<u8>| {
        let action = Action::ALL[usize::from(seed[0])];
        (action, read_request(action, &seed[1..], bitcoin::Network::Regtest, 6))
    };
    let readings: Vec<_> = grpc_requests::seeds().iter().map(read).collect();
    let is_read =
        |action: Action| readings.iter().any(|(one, reading)| *one == action && matches!(reading, Reading::Read));
    let rpcs = Action::ALL.iter().copied().filter(|action| *action != Action::ForwardCall);
    let dark: Vec<Action> = rpcs.filter(|action| !is_read(*action)).collect();
    let shown: Vec<_> = readings.iter().filter(|(action, _)| dark.contains(action)).collect();
    assert!(dark.is_empty(), "no seed of {dark:?} is read: {shown:?}");
    let seeds = log_entries::seeds();
    assert!(seeds.len() > 50);
    assert!(seeds.iter().all(|seed| Entry::from_bytes(&seed[1..]).is_ok()));
    for seed in log_records::seeds() {
        let read = if seed[0] == 0 { read_record(&seed[1..]).map(|_| ()) } else { read_marker(&seed[1..]).map(|_| ()) };
        read.unwrap_or_else(|error| panic!("{seed:02x?}: {error}"));
    }
}
