//! The file of a signer's memory: whose it is, and what is wrong with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use bitcoin::hashes::Hash;
use onespend_adapters::signer::memory::{self, Memory, Owner};
use onespend_adapters::signer::{Signer, SignerError};

use crate::golden;
use crate::memory::{Scene, owner};

/// Why the file is refused. The error names it, and the file stays as it is.
#[track_caller]
fn refusal(file: &Path, owner: Owner) -> String {
    let before = fs::read(file).unwrap();
    let error = Memory::open(file, owner).unwrap_err();
    assert_eq!(fs::read(file).unwrap(), before);
    assert!(!error.retry() && error.to_string().contains(&file.display().to_string()), "{error}");
    match error {
        SignerError::Memory { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

/// A memory with two attempts, closed, and the txid of the first as it is stored.
fn used() -> (Scene, [u8; 32]) {
    let mut scene = Scene::new(2);
    let first = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let second = scene.ledger.pay("w", "q", &scene.coins[1..]);
    let signer = scene.start();
    signer.sign(&first).unwrap();
    signer.sign(&second).unwrap();
    (scene, first.txid().to_byte_array())
}

fn edit(file: &Path, sql: &str) {
    rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn is_for_its_owner_alone() {
    let (scene, _) = used();
    let file = scene.file();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let why = refusal(&file, owner());
    assert!(why.contains("mode 0640") && why.contains("chmod 600"), "{why}");
}

#[test]
fn of_another_cluster_network_or_signer_is_refused() {
    let (scene, _) = used();
    for other in [
        Owner { cluster_id: "other".to_owned(), ..owner() },
        Owner { network: Network::Signet, ..owner() },
        Owner { signer: "cold".to_owned(), ..owner() },
    ] {
        let why = refusal(&scene.file(), other.clone());
        assert!(why.contains(&format!("belongs to {}, not to {other}", owner())), "{why}");
        assert!(memory::inspect(&scene.file(), &other).is_err());
        assert!(memory::unfreeze(&scene.file(), &other, "alice").is_err());
    }
    Memory::open(&scene.file(), owner()).unwrap();
}

#[test]
fn of_a_newer_format_is_refused() {
    let (scene, _) = used();
    edit(&scene.file(), "PRAGMA user_version = 9");
    let why = refusal(&scene.file(), owner());
    assert!(why.contains("format 9") && why.contains("up to format 3"), "{why}");
}

#[test]
fn that_is_no_memory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signer-hot.db");
    for content in ["", "rubbish", &"rubbish ".repeat(2_000)] {
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        refusal(&file, owner());
    }
    fs::remove_file(&file).unwrap();
    edit(&file, "CREATE TABLE identity(one)");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let why = refusal(&file, owner());
    assert!(why.contains("not a signer's memory"), "{why}");
}

#[test]
fn torn_off_anywhere_is_refused() {
    let (scene, _) = used();
    let whole = fs::read(scene.file()).unwrap();
    for kept in [0, 50, 100, 4_096, 8_192, whole.len() / 2, whole.len() - 4_096] {
        fs::write(scene.file(), &whole[..kept]).unwrap();
        refusal(&scene.file(), owner());
    }
    fs::write(scene.file(), &whole).unwrap();
    Memory::open(&scene.file(), owner()).unwrap();
}

/// SQLite does not look into a value that is in no index; the digest does. In its row, a fence comes after the txid.
#[test]
fn with_one_bit_changed_is_refused() {
    let (scene, txid) = used();
    let whole = fs::read(scene.file()).unwrap();
    let at = whole.windows(32).position(|window| window == txid).unwrap();
    for (offset, why) in [(7, "is damaged: "), (32, "its content is not what was recorded")] {
        let mut bytes = whole.clone();
        bytes[at + offset] ^= 4;
        fs::write(scene.file(), &bytes).unwrap();
        let refused = refusal(&scene.file(), owner());
        assert!(refused.contains(why), "{offset}: {refused}");
    }
}

#[test]
fn that_somebody_edited_is_refused() {
    for change in [
        "DELETE FROM spends WHERE attempt = 1",
        "DELETE FROM spends WHERE attempt = 2; DELETE FROM attempts WHERE id = 2",
        "UPDATE attempts SET fence = 1 WHERE id = 1",
        "UPDATE attempts SET payment = 'r' WHERE id = 1",
        "UPDATE spends SET attempt = 2 WHERE attempt = 1",
        "UPDATE totals SET highest_fence = 1",
        "UPDATE totals SET floor = highest_fence + 1",
        "UPDATE totals SET epoch = 1",
    ] {
        let (scene, _) = used();
        edit(&scene.file(), &format!("PRAGMA foreign_keys = OFF; {change}"));
        let why = refusal(&scene.file(), owner());
        assert!(why.contains("is damaged"), "{change}: {why}");
    }
}

#[test]
fn is_used_by_one_process_and_looked_at_by_others() {
    let (scene, _) = used();
    let signer = scene.start();
    let in_use = SignerError::MemoryInUse { path: scene.file() };
    assert_eq!(memory::unfreeze(&scene.file(), &owner(), "alice"), Err(in_use.clone()));
    assert_eq!(Memory::open(&scene.file(), owner()).unwrap_err(), in_use);
    assert_eq!(memory::inspect(&scene.file(), &owner()).unwrap().highest_fence, signer.highest_fence());
}

#[test]
fn that_is_not_there_is_made_for_a_signer_and_for_nobody_else() {
    let scene = Scene::new(1);
    assert!(memory::inspect(&scene.file(), &owner()).is_err());
    assert!(memory::unfreeze(&scene.file(), &owner(), "alice").is_err());
    assert!(!scene.file().exists());
    drop(scene.start());
    let left: Vec<String> = fs::read_dir(scene.file().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("signer-"))
        .collect();
    assert_eq!(left, ["signer-hot.db"], "nothing but the memory is left behind");
    let nowhere = scene.file().parent().unwrap().join("missing/signer-hot.db");
    assert!(matches!(Memory::open(&nowhere, owner()), Err(SignerError::Memory { .. })));
}

/// As after a restore: the memory of another machine is copied to where this one's lay, and this one was killed, so its
/// write-ahead log is there. SQLite would replay it over the copy, which would forget what it was copied for.
#[test]
fn copied_over_one_whose_write_ahead_log_stayed_is_refused_until_that_is_gone() {
    let (theirs, _) = used();
    let mut ours = Scene::new(1);
    let paid = ours.ledger.pay("w", "r", &ours.coins[..1]);
    let signer = ours.start();
    signer.sign(&paid).unwrap();
    let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", ours.file().display()));
    let killed = fs::read(beside("-wal")).unwrap();
    assert!(!killed.is_empty());
    drop(signer);

    memory::adopt(&theirs.file(), &owner(), "restored", "alice").unwrap();
    let restored = Owner { cluster_id: "restored".to_owned(), ..owner() };
    fs::copy(theirs.file(), ours.file()).unwrap();
    fs::write(beside("-wal"), &killed).unwrap();
    let why = refusal(&ours.file(), restored.clone());
    assert!(why.contains("-wal") && why.contains("copy it again"), "{why}");
    assert!(memory::inspect(&ours.file(), &restored).is_err());
    assert_eq!(fs::read(beside("-wal")).unwrap(), killed, "an operator decides what goes");

    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(suffix)).unwrap();
    }
    let copied = memory::inspect(&theirs.file(), &restored).unwrap();
    drop(Memory::open(&ours.file(), restored.clone()).unwrap());
    assert_eq!(memory::inspect(&ours.file(), &restored).unwrap(), copied);
}

/// What an earlier version wrote goes on, and is of no copy.
#[test]
fn of_the_first_format_is_taken_on() {
    let scene = Scene::new(2);
    golden::put(2, &scene.file());
    edit(
        &scene.file(),
        "ALTER TABLE identity DROP COLUMN copy; ALTER TABLE totals DROP COLUMN copy; PRAGMA user_version = 1",
    );
    let before = memory::inspect(&scene.file(), &owner()).unwrap();
    assert_eq!((before.attempts, before.epoch), (2, 0));
    drop(Memory::open(&scene.file(), owner()).unwrap());
    assert_eq!(memory::inspect(&scene.file(), &owner()).unwrap(), before);
    memory::adopt(&scene.file(), &owner(), "restored", "alice").unwrap();
    let restored = Owner { cluster_id: "restored".to_owned(), ..owner() };
    assert_eq!(memory::inspect(&scene.file(), &restored).unwrap().attempts, 2);
}
