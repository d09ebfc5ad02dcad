//! Keeps what `docs/src/architecture.md` promises: the crate arrows, the folders, the file names, the sizes, and the
//! absences (core does no IO, only `raft/` names openraft, few files ask the wall clock).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rules;
mod rust_text;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rules::{
    ARROWS, MAY_ASK_THE_WALL_CLOCK, arrow_faults, asks_the_wall_clock, ceiling_faults, is_tests, name_faults,
    openraft_faults, purity_faults, size_faults, wall_clock_faults, wildcard_arm_faults, word_faults,
};

/// What clippy.toml must say.
const FUNCTION_LINES: &str = "too-many-lines-threshold = 70";
const TOP_LEVEL: [&str; 7] = ["coordinator", "adapters", "proto", "policies", "testnet", "docs", "target"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every `.rs` file below `folder`, with its path relative to the root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn all_rust_files() -> Vec<(String, String)> {
    let files: Vec<_> = ARROWS.iter().flat_map(|(_, folder, _)| rust_files(folder)).collect();
    assert!(files.len() >= ARROWS.len(), "the scan found almost nothing: {files:?}");
    files
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut dependencies = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let found = package["dependencies"].as_array().unwrap().iter();
        // What only tests use is not an arrow: proptest in core's tests cannot reach the daemon.
        let found = found.filter(|dependency| dependency["kind"] != "dev");
        dependencies.insert(
            package["name"].as_str().unwrap().to_owned(),
            found.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect(),
        );
    }
    assert_eq!(dependencies.len(), ARROWS.len(), "crates: {:?}", dependencies.keys());
    assert_none(&arrow_faults(&dependencies));
}

/// Faults and missing guards are features of three crates, which nothing switches on but the command line of the harness.
#[test]
fn faults_and_missing_guards_are_in_no_ordinary_build() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert_none(&packages.iter().flat_map(rules::feature_faults).collect::<Vec<_>>());
    let with: Vec<&str> = packages
        .iter()
        .filter(|package| package["features"].get("sabotage").is_some())
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    let expected = ["onespend-core", "onespend", "onespend-adapters"];
    assert_eq!(with, expected, "the scan looks at the wrong thing");
}

/// What `cargo deny` would refuse as well; it is not installed everywhere.
#[test]
fn no_banned_crate_and_no_foreign_source_is_in_the_lock_file() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap().parse::<toml::Table>().unwrap();
    let (deny, lock) = (read("deny.toml"), read("Cargo.lock"));
    let banned = deny["bans"]["deny"].as_array().unwrap();
    let banned: Vec<&str> = banned.iter().map(|one| one["crate"].as_str().unwrap()).collect();
    assert!(banned.contains(&"openssl"), "deny.toml bans something else: {banned:?}");
    let packages = lock["package"].as_array().unwrap();
    assert!(packages.len() > 100, "the lock file holds almost nothing");
    let foreign = |package: &toml::Value| {
        let source = package.get("source").and_then(toml::Value::as_str);
        source.is_some_and(|source| !source.starts_with("registry+https://github.com/rust-lang/crates.io-index"))
    };
    let faults = packages.iter().filter_map(|package| {
        let name = package["name"].as_str().unwrap();
        (banned.contains(&name) || foreign(package)).then(|| format!("{name} is in Cargo.lock"))
    });
    assert_none(&faults.collect::<Vec<_>>());
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for (package, folder, _) in ARROWS {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let flat: String = manifest.split_whitespace().collect();
        assert!(flat.contains("[lints]workspace=true"), "{package} has no [lints] workspace = true");
    }
    let clippy = fs::read_to_string(root().join("clippy.toml")).unwrap();
    assert!(clippy.contains(FUNCTION_LINES), "clippy.toml does not say {FUNCTION_LINES}");
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for lint in ["unsafe_code = \"forbid\"", "too_many_lines = ", "unwrap_used = ", "expect_used = "] {
        assert!(workspace.contains(lint), "the workspace's lints lack {lint}");
    }
}

#[test]
fn the_top_level_holds_only_the_folders_of_the_design() {
    for entry in fs::read_dir(root()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() && !name.starts_with('.') {
            assert!(TOP_LEVEL.contains(&name.as_str()), "{name}/ is not a folder of the design");
        }
    }
}

#[test]
fn files_are_named_by_nouns_and_stay_small() {
    let mut faults = Vec::new();
    for (path, text) in all_rust_files() {
        faults.extend(name_faults(&path));
        if !is_tests(&path) {
            faults.extend(size_faults(&path, &text));
            faults.extend(ceiling_faults(&path, &text));
        }
    }
    assert_none(&faults);
}

/// safety 15, 16.
#[test]
fn core_has_no_clock_randomness_io_or_unordered_map() {
    let files = rust_files("coordinator/core/src");
    assert!(!files.is_empty());
    assert_none(&files.iter().flat_map(|(path, text)| purity_faults(path, text)).collect::<Vec<_>>());
}

/// safety 16.
#[test]
fn few_files_ask_the_wall_clock_and_none_that_decides() {
    let files = all_rust_files();
    assert_none(&files.iter().flat_map(|(path, text)| wall_clock_faults(path, text)).collect::<Vec<_>>());
    for (place, why) in MAY_ASK_THE_WALL_CLOCK {
        let asks = files.iter().any(|(path, text)| path.starts_with(place) && asks_the_wall_clock(text).is_some());
        assert!(asks, "{place} does not ask the wall clock ({why}): it need not be on the list");
    }
}

#[test]
fn only_the_raft_folder_names_openraft() {
    let faults: Vec<_> = all_rust_files().iter().flat_map(|(path, text)| openraft_faults(path, text)).collect();
    assert_none(&faults);
}

#[test]
fn nothing_is_unsafe() {
    let faults: Vec<_> =
        all_rust_files().iter().flat_map(|(path, text)| word_faults(path, text, &["unsafe"])).collect();
    assert_none(&faults);
}

#[test]
fn every_rejection_is_mapped_to_a_status_by_name() {
    let path = "coordinator/node/src/grpc/status.rs";
    let text = fs::read_to_string(root().join(path)).unwrap();
    assert_none(&wildcard_arm_faults(path, &text));
}
