//! A copy of a signer's memory in one file, also while it is in use.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use onespend_adapters::signer::memory::{self, Memory, Owner, Refusal};
use onespend_adapters::signer::{Signer, SignerError};

use crate::memory::{Scene, owner};

/// The files beside a memory whose names begin with `name`.
fn files(folder: &Path, name: &str) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|found| found.starts_with(name))
        .collect();
    found.sort();
    found
}

fn beside(scene: &Scene, name: &str) -> PathBuf {
    scene.file().with_file_name(name)
}

/// What is in the write-ahead log alone is in the copy too.
#[test]
fn of_a_memory_in_use_opens_and_refuses_the_same() {
    let mut scene = Scene::new(2);
    let mut other = scene.ledger.clone();
    let signer = scene.start();
    let paid = scene.ledger.pay("w", "p", &scene.coins[..1]);
    signer.sign(&paid).unwrap();
    signer.accept_epoch(1, "alice").unwrap();
    let copy = beside(&scene, "copy.db");
    memory::copy(&scene.file(), &owner(), &copy).unwrap();
    assert_eq!(files(scene.file().parent().unwrap(), "copy"), ["copy.db"], "it is one file");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(memory::inspect(&copy, &owner()), memory::inspect(&scene.file(), &owner()));
    // The signer goes on, and the copy does not.
    signer.sign(&scene.ledger.pay("w", "q", &scene.coins[1..])).unwrap();

    let copied = Memory::open(&copy, owner()).unwrap();
    assert_eq!((copied.accepted_epoch(), copied.highest_fence()), (1, Some(paid.fence())));
    copied.check_and_record(&paid).unwrap();
    let Err(SignerError::Remembered { refusal, .. }) = copied.check_and_record(&other.pay("w", "r", &scene.coins[..1]))
    else {
        panic!("it has forgotten")
    };
    assert_eq!(*refusal, Refusal::SecondPayment { outpoint: scene.coins[0], earlier: vec![paid.key().clone()] });
}

#[test]
fn replaces_nothing() {
    let scene = Scene::new(1);
    drop(scene.start());
    let there = beside(&scene, "there");
    fs::write(&there, "precious").unwrap();
    let link = beside(&scene, "link");
    symlink(beside(&scene, "nowhere"), &link).unwrap();
    for to in [&there, &link, &scene.file()] {
        let error = memory::copy(&scene.file(), &owner(), to).unwrap_err().to_string();
        assert!(error.contains(&to.display().to_string()) && error.contains("is there already"), "{error}");
    }
    assert_eq!(fs::read(&there).unwrap(), b"precious");
    assert!(!beside(&scene, "nowhere").exists());
    memory::inspect(&scene.file(), &owner()).unwrap();
}

#[test]
fn leaves_nothing_behind_where_there_is_none_to_be_made() {
    let scene = Scene::new(1);
    let to = beside(&scene, "copy.db");
    memory::copy(&scene.file(), &owner(), &to).unwrap_err();
    drop(scene.start());
    let stranger = Owner { signer: "cold".to_owned(), ..owner() };
    assert!(memory::copy(&scene.file(), &stranger, &to).unwrap_err().to_string().contains("belongs to"));
    let nowhere = beside(&scene, "missing/copy.db");
    let error = memory::copy(&scene.file(), &owner(), &nowhere).unwrap_err().to_string();
    assert!(error.contains("missing/copy.db"), "{error}");
    let edit = rusqlite::Connection::open(scene.file()).unwrap();
    edit.execute_batch("UPDATE totals SET highest_fence = 1").unwrap();
    drop(edit);
    assert!(memory::copy(&scene.file(), &owner(), &to).unwrap_err().to_string().contains("is damaged"));
    assert_eq!(files(scene.file().parent().unwrap(), "copy"), Vec::<String>::new());
}

/// Where a name is too long for the journal that SQLite puts beside it, the file is begun and cannot be filled.
#[test]
fn that_fails_half_way_is_taken_away_again() {
    let scene = Scene::new(1);
    drop(scene.start());
    let name = format!("copy{}", "x".repeat(250));
    memory::copy(&scene.file(), &owner(), &beside(&scene, &name)).unwrap_err();
    assert_eq!(files(scene.file().parent().unwrap(), "copy"), Vec::<String>::new());
}

/// safety 30: as of a memory that was handed on, a write-ahead log of another one would make it forget.
#[test]
fn put_over_a_memory_whose_write_ahead_log_stayed_is_refused() {
    let mut theirs = Scene::new(2);
    theirs.start().sign(&theirs.ledger.pay("w", "p", &theirs.coins[..1])).unwrap();
    let copy = beside(&theirs, "copy.db");
    memory::copy(&theirs.file(), &owner(), &copy).unwrap();

    let mut ours = Scene::new(1);
    let paid = ours.ledger.pay("w", "r", &ours.coins);
    let signer = ours.start();
    signer.sign(&paid).unwrap();
    let log = PathBuf::from(format!("{}-wal", ours.file().display()));
    let killed = fs::read(&log).unwrap();
    assert!(!killed.is_empty());
    drop(signer);
    fs::copy(&copy, ours.file()).unwrap();
    fs::write(&log, &killed).unwrap();
    let why = Memory::open(&ours.file(), owner()).unwrap_err().to_string();
    assert!(why.contains("-wal") && why.contains("copy it again"), "{why}");
}
