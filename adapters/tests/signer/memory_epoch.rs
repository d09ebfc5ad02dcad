//! The accepted epoch: what a signer's memory refuses until somebody has said that it knows enough, and what it then
//! signs although an earlier epoch speaks against it.

use onespend_adapters::signer::memory::{self, Memory, Refusal};
use onespend_adapters::signer::software::SoftwareSigner;
use onespend_adapters::signer::{Signer, SignerError};
use onespend_core::ids::{AttemptNo, Fence, LogIndex};
use onespend_core::signing::SigningPermit;

use crate::ledger::{Ledger, account};
use crate::memory::{Scene, owner, refusal};
use crate::software::from_file;

fn not_accepted(epoch: u32, accepted: u32) -> Refusal {
    Refusal::EpochNotAccepted { signer: "hot".to_owned(), epoch, accepted }
}

/// safety 8, 30: the log was recovered, and what it lost may have been signed elsewhere.
#[test]
fn a_log_of_an_epoch_that_nobody_accepted_is_refused_and_nothing_is_written() {
    let mut scene = Scene::new(2);
    let signer = scene.start();
    assert_eq!(signer.accepted_epoch(), Some(0));
    signer.sign(&scene.ledger.pay("w", "p", &scene.coins[..1])).unwrap();
    let before = memory::inspect(&scene.file(), &owner()).unwrap();
    assert_eq!(before.epoch, 0);

    scene.ledger.recover(2);
    let permit = scene.ledger.pay("w", "q", &scene.coins[1..]);
    let refused = refusal(&signer, &permit);
    assert_eq!((&refused, refused.rule()), (&not_accepted(2, 0), "epoch_not_accepted"));
    assert_eq!(signer.frozen(), None, "another memory can help");
    drop(signer);
    assert_eq!(refusal(&scene.start(), &permit), refused, "also after a restart");
    assert_eq!(memory::inspect(&scene.file(), &owner()).unwrap(), before);
}

#[test]
fn the_refusal_says_what_to_run_and_where() {
    let told = not_accepted(2, 1).to_string();
    for part in [
        "is of epoch 2",
        "accepted up to epoch 1 only",
        "Stop this node",
        "run on that machine: onespend signer copy --config FILE --name hot COPY",
        "onespend signer merge --config FILE --name hot COPY",
        "onespend signer accept --config FILE --name hot --epoch 2 --i-have-checked",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// A node that joined after the recovery: its memory remembers nothing at all.
#[test]
fn a_new_memory_is_accepted_for_the_first_epoch_alone() {
    let mut scene = Scene::new(1);
    scene.ledger.recover(1);
    let permit = scene.ledger.pay("w", "p", &scene.coins);
    assert_eq!(refusal(&scene.start(), &permit), not_accepted(1, 0));
}

/// The epoch of the log counts, and not that of the intent.
#[test]
fn an_intent_of_before_the_recovery_is_refused_too() {
    let mut scene = Scene::new(1);
    let permit = scene.ledger.pay("w", "p", &scene.coins);
    scene.ledger.recover(1);
    let now = scene.ledger.again(&permit, "other");
    assert_eq!((now.fence().epoch(), now.position().epoch()), (0, 1));
    let signer = scene.start();
    assert_eq!(refusal(&signer, &now), not_accepted(1, 0));
    signer.accept_epoch(1, "alice").unwrap();
    signer.sign(&now).unwrap();
}

#[test]
fn what_is_accepted_in_use_is_signed_at_once_and_after_a_restart() {
    let mut scene = Scene::new(3);
    let signed = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let signer = scene.start();
    signer.sign(&signed).unwrap();
    scene.ledger.recover(2);
    let permit = scene.ledger.pay("w", "q", &scene.coins[1..2]);
    refusal(&signer, &permit);
    signer.accept_epoch(2, "alice").unwrap();
    assert_eq!(signer.accepted_epoch(), Some(2));
    signer.sign(&permit).unwrap();
    for epoch in [2, 1, 0] {
        signer.accept_epoch(epoch, "bob").unwrap();
    }
    drop(signer);

    let summary = memory::inspect(&scene.file(), &owner()).unwrap();
    let told: Vec<_> = summary.audit.iter().map(|row| (row.what.as_str(), row.who.as_str(), row.position)).collect();
    assert_eq!(told, [("accepted", "alice", Fence::of(2, LogIndex(0)))], "what changes nothing is not noted");
    assert_eq!((summary.epoch, summary.audit[0].recorded), (2, signed.fence()));
    assert!(summary.audit[0].at_ms > 0);
    let signer = scene.start();
    assert_eq!(signer.accepted_epoch(), Some(2));
    signer.sign(&permit).unwrap();
    scene.ledger.recover(3);
    assert_eq!(refusal(&signer, &scene.ledger.pay("w", "r", &scene.coins[2..])), not_accepted(3, 2));
}

#[test]
fn an_operator_accepts_for_a_memory_that_is_not_in_use() {
    let mut scene = Scene::new(1);
    assert!(memory::accept(&scene.file(), &owner(), 1, "alice").unwrap_err().to_string().contains("is not there"));
    let signer = scene.start();
    let in_use = SignerError::MemoryInUse { path: scene.file() };
    assert_eq!(memory::accept(&scene.file(), &owner(), 1, "alice"), Err(in_use));
    drop(signer);
    let stranger = memory::Owner { cluster_id: "other".to_owned(), ..owner() };
    memory::accept(&scene.file(), &stranger, 1, "alice").unwrap_err();
    memory::accept(&scene.file(), &owner(), 1, "alice").unwrap();
    memory::accept(&scene.file(), &owner(), 1, "bob").unwrap();
    let summary = memory::inspect(&scene.file(), &owner()).unwrap();
    assert_eq!((summary.epoch, summary.audit.len()), (1, 1));
    scene.ledger.recover(1);
    scene.start().sign(&scene.ledger.pay("w", "p", &scene.coins)).unwrap();
}

/// safety 8, 30: the epochs of two clusters have the same numbers, and what was accepted for one says nothing of the other.
#[test]
fn a_memory_that_another_cluster_adopts_keeps_what_it_knows_and_has_accepted_nothing_there() {
    let mut scene = Scene::new(2);
    scene.ledger.recover(2);
    let signer = scene.start();
    signer.accept_epoch(2, "alice").unwrap();
    let signed = scene.ledger.pay("w", "p", &scene.coins[..1]);
    signer.sign(&signed).unwrap();
    drop(signer);
    memory::adopt(&scene.file(), &owner(), "restored", "bob").unwrap();

    let restored = memory::Owner { cluster_id: "restored".to_owned(), ..owner() };
    let summary = memory::inspect(&scene.file(), &restored).unwrap();
    assert_eq!((summary.epoch, summary.attempts, summary.highest_fence), (0, 1, Some(signed.fence())));
    let permit = scene.ledger.pay("w", "q", &scene.coins[1..]);
    let memory = Memory::open(&scene.file(), restored.clone()).unwrap();
    let refused = SignerError::Remembered { signer: "hot".to_owned(), refusal: Box::new(not_accepted(2, 0)) };
    assert_eq!(memory.check_and_record(&permit), Err(refused));
    memory.accept(2, "carol").unwrap();
    memory.check_and_record(&permit).unwrap();
    drop(memory);
    assert_eq!(memory::inspect(&scene.file(), &restored).unwrap().epoch, 2);
}

#[test]
fn an_epoch_that_cannot_be_is_not_accepted() {
    let scene = Scene::new(1);
    let signer = scene.start();
    let above = Fence::MAX_EPOCH + 1;
    let error = signer.accept_epoch(above, "alice").unwrap_err();
    assert_eq!(error, SignerError::NoSuchEpoch { epoch: above });
    assert!(!error.retry() && error.to_string().contains("65536") && error.to_string().contains("65535"), "{error}");
    assert_eq!(signer.accepted_epoch(), Some(0));
    signer.accept_epoch(Fence::MAX_EPOCH, "alice").unwrap();
    assert_eq!(signer.accepted_epoch(), Some(Fence::MAX_EPOCH));
    drop(signer);
    assert_eq!(memory::accept(&scene.file(), &owner(), above, "alice"), Err(error));
}

#[test]
fn a_signer_without_a_memory_has_nothing_to_accept() {
    let mut scene = Scene::new(1);
    let folder = tempfile::tempdir().unwrap();
    let signer = from_file(folder.path(), &[&account("wpkh", 1).private]);
    assert_eq!(signer.accepted_epoch(), None);
    signer.accept_epoch(1, "alice").unwrap();
    scene.ledger.recover(1);
    signer.sign(&scene.ledger.pay("w", "p", &scene.coins)).unwrap();
}

/// A frozen signer, and the log of another epoch: what is told first is what an operator has to do first.
#[test]
fn of_a_frozen_signer_the_epoch_is_told_first_and_the_freeze_stays() {
    let mut scene = Scene::new(3);
    let mut old = scene.ledger.clone();
    scene.ledger.grow(10);
    scene.start().sign(&scene.ledger.pay("w", "p", &scene.coins[..1])).unwrap();
    let signer = scene.start();
    assert!(matches!(refusal(&signer, &old.pay("w", "q", &scene.coins[1..2])), Refusal::Frozen { .. }));
    old.recover(1);
    let permit = old.pay("w", "r", &scene.coins[2..]);
    assert_eq!(refusal(&signer, &permit), not_accepted(1, 0));
    signer.accept_epoch(1, "alice").unwrap();
    assert!(matches!(refusal(&signer, &permit), Refusal::Frozen { .. }));
}

/// A signer that has signed for "p" what the log lacks; that log is recovered to epoch 1, which is accepted.
fn recovered(scene: &mut Scene) -> (SoftwareSigner, SigningPermit, Ledger) {
    let mut log = scene.ledger.clone();
    let lost = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let signer = scene.start();
    signer.sign(&lost).unwrap();
    log.recover(1);
    signer.accept_epoch(1, "alice").unwrap();
    (signer, lost, log)
}

/// safety 6, 10: it pays nobody, and is what a payment ends by that the memory refuses.
#[test]
fn a_cancellation_is_signed_beside_what_an_earlier_epoch_signed_for_its_coin() {
    let mut scene = Scene::new(2);
    let (signer, lost, mut log) = recovered(&mut scene);
    let second = log.pay("w", "q", &scene.coins);
    let refused = Refusal::SecondPayment { outpoint: scene.coins[0], earlier: vec![lost.key().clone()] };
    assert_eq!(refusal(&signer, &second), refused);
    let bump = log.clone().bump(&second, 9_000);
    let cancel = log.cancel(&second, 9_000);
    assert_eq!((second.pays_only_the_wallet(), cancel.pays_only_the_wallet()), (false, true));
    signer.sign(&cancel).unwrap();
    signer.sign(&log.bump(&cancel, 20_000)).unwrap();
    for pays in [&second, &bump] {
        assert!(matches!(refusal(&signer, pays), Refusal::SecondPayment { .. } | Refusal::OtherTransaction { .. }));
    }
}

/// safety 8, 11: the payment was signed with another coin before, and is ordered anew.
#[test]
fn a_cancellation_is_signed_beside_an_attempt_of_an_earlier_epoch_that_shares_no_coin_with_it() {
    let mut scene = Scene::new(2);
    let (signer, lost, mut log) = recovered(&mut scene);
    let anew = log.pay("w", "p", &scene.coins[1..]);
    assert!(matches!(refusal(&signer, &anew), Refusal::OtherTransaction { .. }));
    let bump = log.clone().bump(&anew, 9_000);
    let expected = Refusal::NoSharedCoin {
        key: lost.key().clone(),
        attempt: AttemptNo(2),
        earlier: AttemptNo(1),
        recorded: lost.txid(),
    };
    assert_eq!(refusal(&signer, &bump), expected);
    let cancel = log.cancel(&anew, 9_000);
    assert_eq!(cancel.attempt(), AttemptNo(2));
    signer.sign(&cancel).unwrap();
}

/// safety 11 has no exception: the next attempt has the next number.
#[test]
fn a_cancellation_under_a_number_that_was_signed_is_refused_and_the_next_one_is_not() {
    let mut scene = Scene::new(2);
    let (signer, lost, mut log) = recovered(&mut scene);
    // Before the recovery, and lost as well.
    signer.sign(&scene.ledger.bump(&lost, 9_000)).unwrap();
    let anew = log.pay("w", "p", &scene.coins[1..]);
    let cancel = log.cancel(&anew, 9_000);
    assert!(matches!(refusal(&signer, &cancel), Refusal::OtherTransaction { .. }));
    let next = log.bump(&cancel, 20_000);
    assert_eq!((next.attempt(), next.pays_only_the_wallet()), (AttemptNo(3), true));
    signer.sign(&next).unwrap();
}

/// safety 6: within an epoch no log has lost anything, so a second one that says so is wrong.
#[test]
fn within_one_epoch_a_cancellation_is_refused_like_a_payment() {
    for epoch in [0, 1] {
        let mut scene = Scene::new(1);
        let signer = scene.start();
        if epoch > 0 {
            scene.ledger.recover(epoch);
            signer.accept_epoch(epoch, "alice").unwrap();
        }
        let mut other = scene.ledger.clone();
        signer.sign(&scene.ledger.pay("w", "p", &scene.coins)).unwrap();
        let second = other.pay("w", "q", &scene.coins);
        let cancel = other.cancel(&second, 9_000);
        assert!(matches!(refusal(&signer, &cancel), Refusal::SecondPayment { .. }), "epoch {epoch}");
    }
}

/// Nor is one that was ordered in the epoch of what was signed, however late it is asked for.
#[test]
fn a_cancellation_of_the_same_epoch_is_refused_also_after_the_recovery() {
    let mut scene = Scene::new(1);
    let mut log = scene.ledger.clone();
    let second = log.pay("w", "q", &scene.coins);
    let cancel = log.cancel(&second, 9_000);
    let signer = scene.start();
    signer.sign(&scene.ledger.pay("w", "p", &scene.coins)).unwrap();
    log.recover(1);
    signer.accept_epoch(1, "alice").unwrap();
    let now = log.again(&cancel, "p");
    assert_eq!((now.fence().epoch(), now.position().epoch()), (0, 1));
    assert!(matches!(refusal(&signer, &now), Refusal::SecondPayment { .. }));
    signer.sign(&log.bump(&cancel, 20_000)).unwrap();
}
