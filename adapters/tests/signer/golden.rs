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
use onespend_adapters::signer::memory::{self, Refusal};
use onespend_core::signing::SigningPermit;

use crate::ledger::Ledger;
use crate::memory::{Scene, owner, refusal};

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/signer-memory-v2.db")
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
}

fn story() -> Story {
    let mut scene = Scene::new(3);
    let mut old = scene.ledger.clone();
    scene.ledger.grow(10);
    let signed = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let late = old.pay("w", "q", &scene.coins[1..2]);
    Story { scene, old, signed, late }
}

/// safety 6, 14, 30.
#[test]
fn a_memory_of_format_2_is_read_and_goes_on_refusing() {
    let Story { scene, mut old, signed, late } = story();
    let golden = file();
    assert!(golden.is_file(), "{} is missing: what a version wrote is never removed", golden.display());
    fs::copy(golden, scene.file()).unwrap();
    fs::set_permissions(scene.file(), fs::Permissions::from_mode(0o600)).unwrap();

    let summary = memory::inspect(&scene.file(), &owner()).unwrap();
    let counted = (summary.attempts, summary.outpoints, summary.highest_fence, summary.frozen);
    assert_eq!(counted, (2, 2, Some(signed.fence()), None));
    let events: Vec<_> =
        summary.audit.iter().map(|row| (row.what.as_str(), row.who.as_str(), row.position, row.recorded)).collect();
    let (position, recorded) = (late.position(), signed.fence());
    assert_eq!(events, [("frozen", "signer hot", position, recorded), ("unfrozen", "alice", position, recorded)]);

    let signer = scene.start();
    for permit in [&signed, &late] {
        signer.sign(permit).unwrap();
    }
    assert_eq!(memory::inspect(&scene.file(), &owner()).unwrap(), summary, "signing again writes nothing");
    let second = old.pay("w", "r", &scene.coins[..1]);
    let expected = Refusal::SecondPayment { outpoint: scene.coins[0], earlier: vec![signed.key().clone()] };
    assert_eq!(refusal(&signer, &second), expected);
}

/// How the file came about: two signatures, and a freeze in between that an operator lifted.
#[test]
#[ignore = "makes the golden memory where it is missing, with ONESPEND_GOLDEN=write"]
fn the_golden_memory_is_made() {
    let Story { scene, signed, late, .. } = story();
    scene.start().sign(&signed).unwrap();
    assert!(matches!(refusal(&scene.start(), &late), Refusal::Frozen { .. }));
    memory::unfreeze(&scene.file(), &owner(), "alice").unwrap();
    scene.start().sign(&late).unwrap();
    assert!(!scene.file().with_extension("db-wal").exists(), "all of it is in the one file");
    let asked = std::env::var("ONESPEND_GOLDEN").is_ok_and(|value| value == "write");
    if asked && !file().exists() {
        fs::create_dir_all(file().parent().unwrap()).unwrap();
        fs::copy(scene.file(), file()).unwrap();
    }
}
