//! A memory that an earlier version wrote must be read for ever, and go on refusing: `tests/golden/`. The file is never
//! changed; a later form gets a file of its own beside it. It belongs to a ledger that is told anew for each test: that a
//! log leads to the same transactions is a rule of the core (safety 14, 15).
//!
//! Where it is missing, it is made in the form of this version by
//! `ONESPEND_GOLDEN=write cargo test --release --locked -p onespend-adapters --test signer golden -- --ignored`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use onespend_adapters::signer::Signer as _;
use onespend_adapters::signer::memory::{self, Memory, Merged, Refusal, Summary};
use onespend_core::ids::{Fence, LogIndex};
use onespend_core::signing::SigningPermit;

use crate::ledger::Ledger;
use crate::memory::{Scene, owner, refusal};

fn file(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/signer-memory-v{format}.db"))
}

/// Copies what a version wrote to where a test wants it.
pub fn put(format: u32, to: &Path) {
    let golden = file(format);
    assert!(golden.is_file(), "{} is missing: what a version wrote is never removed", golden.display());
    fs::copy(golden, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).unwrap();
}

/// What the memory is of.
struct Story {
    scene: Scene,
    /// An earlier state of the log, which has gone on by itself.
    old: Ledger,
    /// A payment of the log.
    signed: SigningPermit,
    /// One of the earlier state.
    late: SigningPermit,
    /// The payment of the log once more, with another coin, as another node's signer knows it (from format 3 on).
    twin: SigningPermit,
}

fn story() -> Story {
    let mut scene = Scene::new(3);
    let mut old = scene.ledger.clone();
    let mut other = scene.ledger.clone();
    scene.ledger.grow(10);
    let signed = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let late = old.pay("w", "q", &scene.coins[1..2]);
    let twin = other.pay("w", "p", &scene.coins[2..]);
    Story { scene, old, signed, late, twin }
}

/// What was done with a memory: the word, who, and both fences.
fn events(summary: &Summary) -> Vec<(&str, &str, Fence, Fence)> {
    summary.audit.iter().map(|row| (row.what.as_str(), row.who.as_str(), row.position, row.recorded)).collect()
}

/// safety 6, 14, 30.
#[test]
fn a_memory_of_format_2_is_read_and_goes_on_refusing() {
    let Story { scene, mut old, signed, late, .. } = story();
    put(2, &scene.file());

    let summary = memory::inspect(&scene.file(), &owner()).unwrap();
    let counted = (summary.attempts, summary.outpoints, summary.highest_fence, summary.frozen, summary.epoch);
    assert_eq!(counted, (2, 2, Some(signed.fence()), None, 0));
    let (position, recorded) = (late.position(), signed.fence());
    let expected = [("frozen", "signer hot", position, recorded), ("unfrozen", "alice", position, recorded)];
    assert_eq!(events(&summary), expected);

    let signer = scene.start();
    for permit in [&signed, &late] {
        signer.sign(permit).unwrap();
    }
    assert_eq!(memory::inspect(&scene.file(), &owner()).unwrap(), summary, "signing again writes nothing");
    let second = old.pay("w", "r", &scene.coins[..1]);
    let expected = Refusal::SecondPayment { outpoint: scene.coins[0], earlier: vec![signed.key().clone()] };
    assert_eq!(refusal(&signer, &second), expected);
}

/// Without being brought up to date, which only the signer does.
#[test]
fn a_memory_of_format_2_is_copied_and_merged_as_it_is() {
    let Story { scene, signed, .. } = story();
    let [old, copy] = ["old.db", "copy.db"].map(|name| scene.file().with_file_name(name));
    put(2, &old);
    let before = memory::inspect(&old, &owner()).unwrap();
    memory::copy(&old, &owner(), &copy).unwrap();
    assert_eq!(memory::inspect(&copy, &owner()).unwrap(), before);
    let merged = memory::merge(&scene.file(), &owner(), &copy, &owner(), "alice").unwrap();
    assert_eq!(merged, Merged { added: 2, known: 0 });
    assert_eq!(fs::read(&old).unwrap(), fs::read(file(2)).unwrap(), "the old one stays as it is");
    scene.start().sign(&signed).unwrap();
    assert_eq!(memory::inspect(&scene.file(), &owner()).unwrap().attempts, 2);
}

/// safety 6, 8, 11, 14, 30.
#[test]
fn a_memory_of_format_3_is_read_and_goes_on_refusing() {
    let Story { scene, mut old, signed, late, twin } = story();
    put(3, &scene.file());

    let summary = memory::inspect(&scene.file(), &owner()).unwrap();
    let counted = (summary.attempts, summary.outpoints, summary.highest_fence, summary.frozen, summary.epoch);
    assert_eq!(counted, (3, 3, Some(signed.fence()), None, 1));
    let (position, recorded) = (late.position(), signed.fence());
    let expected = [
        ("frozen", "signer hot", position, recorded),
        ("unfrozen", "alice", position, recorded),
        ("merged", "bob", twin.fence(), recorded),
        ("accepted", "carol", Fence::of(1, LogIndex(0)), recorded),
    ];
    assert_eq!(events(&summary), expected);

    let signer = scene.start();
    signer.sign(&late).unwrap();
    assert_eq!(memory::inspect(&scene.file(), &owner()).unwrap(), summary, "signing again writes nothing");
    for permit in [&signed, &twin] {
        assert!(matches!(refusal(&signer, permit), Refusal::OtherTransaction { .. }), "two under one number");
    }
    let second = old.pay("w", "r", &scene.coins[..1]);
    let expected = Refusal::SecondPayment { outpoint: scene.coins[0], earlier: vec![signed.key().clone()] };
    assert_eq!(refusal(&signer, &second), expected);
    let mut recovered = scene.ledger.clone();
    recovered.recover(2);
    let expected = Refusal::EpochNotAccepted { signer: "hot".to_owned(), epoch: 2, accepted: 1 };
    assert_eq!(refusal(&signer, &recovered.pay("w", "s", &scene.coins[1..2])), expected);
}

/// How the file came about: two signatures, and a freeze in between that an operator lifted; then what another node's
/// signer had signed, and the word for an epoch.
#[test]
#[ignore = "makes the golden memory where it is missing, with ONESPEND_GOLDEN=write"]
fn the_golden_memory_is_made() {
    let Story { scene, signed, late, twin, .. } = story();
    scene.start().sign(&signed).unwrap();
    assert!(matches!(refusal(&scene.start(), &late), Refusal::Frozen { .. }));
    memory::unfreeze(&scene.file(), &owner(), "alice").unwrap();
    scene.start().sign(&late).unwrap();
    let other = scene.file().with_file_name("other.db");
    Memory::open(&other, owner()).unwrap().check_and_record(&twin).unwrap();
    memory::merge(&scene.file(), &owner(), &other, &owner(), "bob").unwrap();
    memory::accept(&scene.file(), &owner(), 1, "carol").unwrap();
    assert!(!scene.file().with_extension("db-wal").exists(), "all of it is in the one file");
    let asked = std::env::var("ONESPEND_GOLDEN").is_ok_and(|value| value == "write");
    if asked && !file(3).exists() {
        fs::create_dir_all(file(3).parent().unwrap()).unwrap();
        fs::copy(scene.file(), file(3)).unwrap();
    }
}
