//! Two memories of one signer become one, which refuses whatever either of them does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use onespend_adapters::signer::memory::{self, Memory, Merged, Owner, Refusal, Summary};
use onespend_adapters::signer::{Signer, SignerError};
use onespend_core::ids::Fence;
use onespend_core::signing::SigningPermit;

use crate::ledger::Ledger;
use crate::memory::{Scene, owner, refusal};

fn beside(scene: &Scene, name: &str) -> PathBuf {
    scene.file().with_file_name(name)
}

fn of_cluster(cluster_id: &str) -> Owner {
    Owner { cluster_id: cluster_id.to_owned(), ..owner() }
}

/// A memory of its own, with these permits signed.
fn other(scene: &Scene, name: &str, owner: &Owner, permits: &[&SigningPermit]) -> PathBuf {
    let file = beside(scene, name);
    let memory = Memory::open(&file, owner.clone()).unwrap();
    for permit in permits {
        memory.check_and_record(permit).unwrap();
    }
    file
}

fn look(file: &Path) -> Summary {
    memory::inspect(file, &owner()).unwrap()
}

/// The rule by which a copy of the memory refuses the permit; `None` where it does not. A process that starts.
fn verdict(file: &Path, permit: &SigningPermit) -> Option<&'static str> {
    let scratch = file.with_extension("scratch");
    fs::copy(file, &scratch).unwrap();
    match Memory::open(&scratch, owner()).unwrap().check_and_record(permit) {
        Ok(()) => None,
        Err(SignerError::Remembered { refusal, .. }) => Some(refusal.rule()),
        Err(other) => panic!("{other}"),
    }
}

/// Histories that contradict each other in every way that a rule is for; all begin with the same wallet. Each permit is
/// made late, so that no log is behind.
fn permits(scene: &Scene) -> Vec<SigningPermit> {
    let coins = &scene.coins;
    let late = |how: &dyn Fn(&mut Ledger) -> SigningPermit| {
        let mut log = scene.ledger.clone();
        let permit = how(&mut log);
        if permit.position().epoch() == 0 {
            log.recover(1);
        }
        log.grow(30);
        log.again(&permit, "nobody")
    };
    vec![
        late(&|log| log.pay("w", "p", &coins[..1])),
        late(&|log| log.pay("w", "q", &coins[..1])),
        late(&|log| log.pay("w", "p", &coins[1..2])),
        late(&|log| log.pay("w", "r", &coins[1..])),
        // The first one under a higher fence.
        late(&|log| {
            log.grow(3);
            log.pay("w", "p", &coins[..1])
        }),
        // A second attempt, of a log that has another first one.
        late(&|log| {
            log.pay("w", "p", &coins[1..2]);
            log.spend_elsewhere(coins[1]);
            log.pay("w", "p", &coins[2..])
        }),
        // One that pays nobody, of the next epoch.
        late(&|log| {
            log.recover(1);
            let second = log.pay("w", "q", &coins[..1]);
            log.cancel(&second, 9_000)
        }),
    ]
}

/// safety 6, 8, 11, 12: for every two memories and every further permit. What one of them has signed may be signed
/// again (safety 14): that makes no signature that is not there.
#[test]
fn refuses_a_permit_if_and_only_if_one_of_the_two_does() {
    let scene = Scene::new(3);
    let permits = permits(&scene);
    let files: Vec<PathBuf> = permits.iter().enumerate().map(|(at, permit)| single(&scene, at, permit)).collect();
    let alone: Vec<Vec<_>> =
        files.iter().map(|file| permits.iter().map(|permit| verdict(file, permit)).collect()).collect();
    let mut seen = Vec::new();
    for (one, first) in files.iter().enumerate() {
        for (two, second) in files.iter().enumerate().filter(|(two, _)| *two != one) {
            let merged = beside(&scene, &format!("merged-{one}-{two}.db"));
            fs::copy(first, &merged).unwrap();
            memory::merge(&merged, &owner(), second, &owner(), "alice").unwrap();
            for (at, permit) in permits.iter().enumerate().filter(|(at, _)| *at != one && *at != two) {
                let (refused, by) = (verdict(&merged, permit), [alone[one][at], alone[two][at]]);
                let expected = by.iter().any(Option::is_some);
                assert_eq!(refused.is_some(), expected, "{at} after {one} and {two}: {refused:?}, and {by:?} alone");
                seen.extend(refused);
            }
        }
    }
    for rule in ["second_payment", "other_transaction", "no_shared_coin", "lower_fence"] {
        assert!(seen.contains(&rule), "{rule} is not among the cases");
    }
}

/// A memory that has signed this one permit, and is accepted for the epochs of all.
fn single(scene: &Scene, at: usize, permit: &SigningPermit) -> PathBuf {
    let file = beside(scene, &format!("single-{at}.db"));
    let memory = Memory::open(&file, owner()).unwrap();
    memory.accept(1, "alice").unwrap();
    memory.check_and_record(permit).unwrap();
    file
}

/// safety 8: what one node signed and the log has lost, a node that joined later refuses after that.
#[test]
fn into_a_memory_that_is_not_there_makes_it_and_accepts_what_was_accepted() {
    let mut scene = Scene::new(1);
    let mut log = scene.ledger.clone();
    let lost = scene.ledger.pay("w", "p", &scene.coins);
    let theirs = other(&scene, "theirs.db", &owner(), &[&lost]);
    memory::accept(&theirs, &owner(), 1, "alice").unwrap();
    log.recover(1);
    let second = log.pay("w", "q", &scene.coins);

    let merged = memory::merge(&scene.file(), &owner(), &theirs, &owner(), "bob").unwrap();
    assert_eq!(merged, Merged { added: 1, known: 0 });
    let signer = scene.start();
    assert_eq!(signer.accepted_epoch(), Some(1));
    assert!(matches!(refusal(&signer, &second), Refusal::SecondPayment { .. }));
    drop(signer);
    let (ours, theirs) = (look(&scene.file()), look(&theirs));
    assert_eq!(
        (ours.attempts, ours.outpoints, ours.highest_fence, ours.floor),
        (1, 1, Some(lost.fence()), theirs.floor)
    );
    let told: Vec<_> =
        ours.audit.iter().map(|row| (row.what.as_str(), row.who.as_str(), row.position, row.recorded)).collect();
    assert_eq!(told, [("merged", "bob", lost.fence(), Fence(0))]);
}

/// The accepted epoch only moves up, and what is known already is not added again.
#[test]
fn a_second_time_changes_nothing_but_the_audit() {
    let mut scene = Scene::new(2);
    let (first, second) =
        (scene.ledger.pay("w", "p", &scene.coins[..1]), scene.ledger.pay("w", "q", &scene.coins[1..]));
    let theirs = other(&scene, "theirs.db", &owner(), &[&first]);
    memory::accept(&theirs, &owner(), 1, "alice").unwrap();
    scene.start().sign(&second).unwrap();
    memory::accept(&scene.file(), &owner(), 2, "alice").unwrap();
    let merge = || memory::merge(&scene.file(), &owner(), &theirs, &owner(), "bob").unwrap();
    assert_eq!(merge(), Merged { added: 1, known: 0 });
    let once = look(&scene.file());
    assert_eq!((once.attempts, once.outpoints, once.highest_fence, once.epoch), (2, 2, Some(second.fence()), 2));
    assert_eq!(merge(), Merged { added: 0, known: 1 });
    let twice = look(&scene.file());
    assert_eq!(twice.audit.len(), once.audit.len() + 1);
    assert_eq!(Summary { audit: vec![], ..twice }, Summary { audit: vec![], ..once });
}

/// safety 11: two logs gave one number to two transactions. Which of them is in a block, nobody here knows.
#[test]
fn two_transactions_under_one_number_are_both_kept_and_both_refused() {
    let scene = Scene::new(3);
    let [one, two, three] = [0, 1, 2].map(|at| scene.ledger.clone().pay("w", "p", &scene.coins[at..=at]));
    let theirs = other(&scene, "theirs.db", &owner(), &[&two]);
    scene.start().sign(&one).unwrap();
    memory::merge(&scene.file(), &owner(), &theirs, &owner(), "alice").unwrap();
    assert_eq!(look(&scene.file()).attempts, 2);
    let signer = scene.start();
    for (permit, recorded) in [(&one, two.txid()), (&two, one.txid())] {
        let (key, attempt) = (permit.key().clone(), permit.attempt());
        let expected = Refusal::OtherTransaction { key, attempt, recorded, asked: permit.txid() };
        assert_eq!(refusal(&signer, permit), expected);
    }
    assert!(matches!(refusal(&signer, &three), Refusal::OtherTransaction { .. }));
}

/// safety 12: of two fences of one transaction, the higher one, whoever had it.
#[test]
fn an_attempt_keeps_the_higher_fence_of_both() {
    for ours_is_higher in [false, true] {
        let mut scene = Scene::new(1);
        let mut later = scene.ledger.clone();
        later.grow(3);
        let (low, high) = (scene.ledger.pay("w", "p", &scene.coins), later.pay("w", "p", &scene.coins));
        let (ours, theirs) = if ours_is_higher { (&high, &low) } else { (&low, &high) };
        let theirs = other(&scene, "theirs.db", &owner(), &[theirs]);
        scene.start().sign(ours).unwrap();
        let merged = memory::merge(&scene.file(), &owner(), &theirs, &owner(), "alice").unwrap();
        assert_eq!(merged, Merged { added: 0, known: 1 });
        let summary = look(&scene.file());
        assert_eq!(
            (summary.attempts, summary.highest_fence, summary.floor),
            (1, Some(high.fence()), Some(high.fence()))
        );
        scene.start().sign(&high).unwrap();
    }
}

/// As after a restore: the memory of the lost cluster stays that cluster's, and says nothing of the new one's epochs.
#[test]
fn of_another_cluster_is_named_and_gives_no_epoch() {
    let mut scene = Scene::new(1);
    let lost = scene.ledger.pay("w", "p", &scene.coins);
    let theirs = other(&scene, "theirs.db", &of_cluster("lost"), &[&lost]);
    memory::accept(&theirs, &of_cluster("lost"), 3, "alice").unwrap();
    let before = fs::read(&theirs).unwrap();
    let error = memory::merge(&scene.file(), &owner(), &theirs, &owner(), "alice").unwrap_err().to_string();
    assert!(error.contains("theirs.db") && error.contains("belongs to signer hot of cluster lost"), "{error}");
    assert!(!scene.file().exists(), "nothing is made of it");

    memory::merge(&scene.file(), &owner(), &theirs, &of_cluster("lost"), "alice").unwrap();
    assert_eq!((look(&scene.file()).attempts, look(&scene.file()).epoch), (1, 0));
    assert_eq!(fs::read(&theirs).unwrap(), before);
    assert!(Memory::open(&theirs, of_cluster("lost")).is_ok());
}

#[test]
fn of_another_signer_or_network_is_refused() {
    let scene = Scene::new(1);
    let cold = Owner { signer: "cold".to_owned(), ..owner() };
    let theirs = other(&scene, "theirs.db", &cold, &[]);
    let signet = Owner { network: bitcoin::Network::Signet, ..owner() };
    for stranger in [cold, signet] {
        let error = memory::merge(&scene.file(), &owner(), &theirs, &stranger, "alice").unwrap_err().to_string();
        assert!(error.contains("theirs.db") && error.contains("can only be its own"), "{error}");
    }
    assert!(!scene.file().exists());
}

#[test]
fn the_memory_itself_is_refused_under_whatever_name() {
    let scene = Scene::new(1);
    drop(scene.start());
    let [soft, hard] = ["soft.db", "hard.db"].map(|name| beside(&scene, name));
    symlink(scene.file(), &soft).unwrap();
    fs::hard_link(scene.file(), &hard).unwrap();
    for same in [scene.file(), soft, hard] {
        let error = memory::merge(&scene.file(), &owner(), &same, &owner(), "alice").unwrap_err().to_string();
        assert!(error.contains("is the memory itself"), "{error}");
    }
    assert!(look(&scene.file()).audit.is_empty());
}

#[test]
fn what_is_damaged_or_not_there_is_not_merged_and_nothing_is_made() {
    let mut scene = Scene::new(1);
    let missing = beside(&scene, "missing.db");
    memory::merge(&scene.file(), &owner(), &missing, &owner(), "alice").unwrap_err();
    let permit = scene.ledger.pay("w", "p", &scene.coins);
    let theirs = other(&scene, "theirs.db", &owner(), &[&permit]);
    let edit = rusqlite::Connection::open(&theirs).unwrap();
    edit.execute_batch("UPDATE attempts SET fence = 1").unwrap();
    drop(edit);
    let error = memory::merge(&scene.file(), &owner(), &theirs, &owner(), "alice").unwrap_err().to_string();
    assert!(error.contains("theirs.db") && error.contains("is damaged"), "{error}");
    assert!(!scene.file().exists() && !missing.exists());
}

/// The node that is asked for its memory goes on signing; the one that takes it in does not.
#[test]
fn the_other_one_may_be_in_use_and_the_memory_may_not() {
    let mut scene = Scene::new(2);
    let theirs = beside(&scene, "theirs.db");
    let in_use = Memory::open(&theirs, owner()).unwrap();
    in_use.check_and_record(&scene.ledger.pay("w", "p", &scene.coins[..1])).unwrap();
    let log = fs::metadata(beside(&scene, "theirs.db-wal")).unwrap();
    assert!(log.len() > 0, "what is not in the file itself is merged too");
    let signer = scene.start();
    let refused = memory::merge(&scene.file(), &owner(), &theirs, &owner(), "alice");
    assert_eq!(refused, Err(SignerError::MemoryInUse { path: scene.file() }));
    drop(signer);
    let merged = memory::merge(&scene.file(), &owner(), &theirs, &owner(), "alice").unwrap();
    assert_eq!(merged, Merged { added: 1, known: 0 });
    in_use.check_and_record(&scene.ledger.pay("w", "q", &scene.coins[1..])).unwrap();
}

/// safety 30: what a log must have reached is the higher one of both. A freeze is of the node that it happened on.
#[test]
fn a_freeze_stays_where_it_is_and_the_log_must_reach_what_both_demand() {
    let mut scene = Scene::new(3);
    let mut old = scene.ledger.clone();
    old.grow(3);
    scene.ledger.grow(10);
    let signed = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let late = old.pay("w", "q", &scene.coins[1..2]);
    let frozen = other(&scene, "frozen.db", &owner(), &[&signed]);
    Memory::open(&frozen, owner()).unwrap().check_and_record(&late).unwrap_err();
    assert_eq!(look(&frozen).frozen, Some(late.position()));

    memory::merge(&scene.file(), &owner(), &frozen, &owner(), "alice").unwrap();
    let ours = look(&scene.file());
    assert_eq!((ours.frozen, ours.floor), (None, Some(signed.fence())));
    assert_eq!(verdict(&scene.file(), &late), Some("frozen"), "a log that is behind freezes this one as well");

    let empty = other(&scene, "empty.db", &owner(), &[]);
    memory::merge(&frozen, &owner(), &empty, &owner(), "alice").unwrap();
    assert_eq!(look(&frozen).frozen, Some(late.position()), "it is not lifted by that");

    memory::unfreeze(&frozen, &owner(), "alice").unwrap();
    let fresh = beside(&scene, "fresh.db");
    memory::merge(&fresh, &owner(), &frozen, &owner(), "alice").unwrap();
    let fresh = look(&fresh);
    assert_eq!(
        (fresh.highest_fence, fresh.floor),
        (Some(signed.fence()), Some(late.position())),
        "an operator's word counts"
    );
}
