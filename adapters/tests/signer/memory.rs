//! The signer's memory: what it refuses, what it allows, and that it is on the disk before a signature is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bitcoin::OutPoint;
use onespend_adapters::signer::memory::{self, Memory, Owner, Refusal};
use onespend_adapters::signer::software::SoftwareSigner;
use onespend_adapters::signer::{Signer, SignerError};
use onespend_core::ids::{AttemptNo, Fence};
use onespend_core::signing::SigningPermit;
use tempfile::TempDir;

use crate::contract::{self, Subject};
use crate::ledger::{Ledger, NETWORK, account};
use crate::software::from_file;

const CLUSTER: &str = "test";
/// Names a memory for the child of `what_was_recorded_outlives_a_crash`.
const CRASHES_WITH: &str = "ONESPEND_TEST_MEMORY_OF_A_CRASH";

pub fn owner() -> Owner {
    Owner { cluster_id: CLUSTER.to_owned(), network: NETWORK, signer: "hot".to_owned() }
}

/// One signer's files, and a wallet with coins.
pub struct Scene {
    folder: TempDir,
    pub ledger: Ledger,
    pub coins: Vec<OutPoint>,
}

impl Scene {
    pub fn new(coins: u32) -> Self {
        let mut ledger = Ledger::start();
        let coins = ledger.register("w", &account("wpkh", 1).public, "hot", coins);
        Self { folder: tempfile::tempdir().unwrap(), ledger, coins }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("signer-hot.db")
    }

    /// Starts the signer; it must be dropped before the next one starts.
    pub fn start(&self) -> SoftwareSigner {
        let keys = from_file(self.folder.path(), &[&account("wpkh", 1).private]);
        keys.with_memory(&self.file(), CLUSTER, NETWORK).unwrap()
    }
}

/// Why a permit is not signed.
#[track_caller]
pub fn refusal(signer: &SoftwareSigner, permit: &SigningPermit) -> Refusal {
    let error = signer.sign(permit).unwrap_err();
    assert!(!error.retry() && !error.is_unknown(), "{error}");
    match error {
        SignerError::Remembered { signer, refusal } if signer == "hot" => *refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keeps_the_contract_with_a_memory() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = vec![account("wpkh", 1), account("tr", 2)];
    let lines = accounts.iter().map(|account| account.private.clone()).collect::<Vec<_>>();
    let (path, made) = (folder.path().to_owned(), AtomicU32::new(0));
    let make = move || {
        let file = path.join(format!("{}.db", made.fetch_add(1, Ordering::Relaxed)));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        from_file(&path, &lines).with_memory(&file, CLUSTER, NETWORK).unwrap()
    };
    contract::check(&Subject::new(make, accounts));
}

/// Safety 14: the same bytes again, whatever came in between, and nothing is written for it.
#[test]
fn signs_a_recorded_attempt_again_and_writes_nothing() {
    let mut scene = Scene::new(2);
    let (first, second) =
        (scene.ledger.pay("w", "p", &scene.coins[..1]), scene.ledger.pay("w", "q", &scene.coins[1..]));
    let signer = scene.start();
    let signed = signer.sign(&first).unwrap();
    signer.sign(&second).unwrap();
    let before = memory::inspect(&scene.file(), &owner()).unwrap();
    assert_eq!(signer.sign(&first).unwrap(), signed);
    drop(signer);
    let asked_again = scene.ledger.again(&first, "p");
    assert_eq!(scene.start().sign(&asked_again).unwrap(), signed, "after a restart too");
    assert_eq!(memory::inspect(&scene.file(), &owner()).unwrap(), before);
    assert_eq!((before.attempts, before.outpoints, before.highest_fence), (2, 2, Some(second.fence())));
}

/// Safety 4, 6: two histories give one coin to two payments; the second is not signed, also after a restart.
#[test]
fn refuses_a_second_payment_for_a_coin() {
    let mut scene = Scene::new(2);
    let mut other = scene.ledger.clone();
    let signed = scene.ledger.pay("w", "p", &scene.coins);
    let late = other.pay("w", "q", &scene.coins[1..]);
    scene.start().sign(&signed).unwrap();
    let signer = scene.start();
    let refused = refusal(&signer, &late);
    assert_eq!(refused, Refusal::SecondPayment { outpoint: scene.coins[1], earlier: vec![signed.key().clone()] });
    assert!(refused.to_string().contains("w/p"), "{refused}");
    // A log that does not know the first payment proves nothing of it.
    assert_eq!(refusal(&signer, &other.again(&late, "p")), refused);
    signer.sign(&signed).unwrap();
}

/// Safety 6: what is signed for a coin may be followed by another payment once it is dead, and proven so.
#[test]
fn a_coin_whose_payment_is_proven_dead_goes_to_another_one() {
    let mut scene = Scene::new(2);
    let signer = scene.start();
    let first = scene.ledger.pay("w", "p", &scene.coins);
    signer.sign(&first).unwrap();
    scene.ledger.spend_elsewhere(scene.coins[0]);
    let second = scene.ledger.pay("w", "q", &scene.coins[1..]);
    let expected = Refusal::SecondPayment { outpoint: scene.coins[1], earlier: vec![first.key().clone()] };
    assert_eq!(refusal(&signer, &second), expected, "the permit brings no proof");
    assert_eq!(refusal(&signer, &scene.ledger.again(&second, "other")), expected, "nor does that of another payment");
    let proven = scene.ledger.again(&second, "p");
    assert_eq!(proven.dead().iter().collect::<Vec<_>>(), [&first.txid()]);
    signer.sign(&proven).unwrap();
    signer.sign(&second).unwrap();
}

/// A dead attempt of the payment is no proof for another one, which the log does not know and the signer has signed.
#[test]
fn the_death_of_another_attempt_proves_nothing() {
    let mut scene = Scene::new(2);
    let mut other = scene.ledger.clone();
    let signer = scene.start();
    signer.sign(&other.pay("w", "p", &scene.coins[1..])).unwrap();
    scene.ledger.pay("w", "p", &scene.coins);
    scene.ledger.spend_elsewhere(scene.coins[0]);
    let second = scene.ledger.pay("w", "q", &scene.coins[1..]);
    let proven = scene.ledger.again(&second, "p");
    assert_eq!(proven.dead().len(), 1);
    assert!(matches!(refusal(&signer, &proven), Refusal::SecondPayment { .. }));
}

/// Safety 11.
#[test]
fn refuses_another_transaction_under_the_same_number() {
    let mut scene = Scene::new(2);
    let mut other = scene.ledger.clone();
    let signed = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let late = other.pay("w", "p", &scene.coins[1..]);
    let signer = scene.start();
    signer.sign(&signed).unwrap();
    let (key, attempt) = (signed.key().clone(), AttemptNo(1));
    let expected = Refusal::OtherTransaction { key, attempt, recorded: signed.txid(), asked: late.txid() };
    assert_eq!(refusal(&signer, &late), expected);
}

/// Safety 8: the log lacks the first attempt, as after a backup was put back, and asks for a further one with other coins.
#[test]
fn refuses_an_attempt_that_could_confirm_beside_an_earlier_one() {
    let mut scene = Scene::new(3);
    let mut other = scene.ledger.clone();
    let signed = scene.ledger.pay("w", "p", &scene.coins[..1]);
    other.pay("w", "p", &scene.coins[1..2]);
    other.spend_elsewhere(scene.coins[1]);
    let further = other.pay("w", "p", &scene.coins[2..]);
    assert_eq!((signed.attempt(), further.attempt()), (AttemptNo(1), AttemptNo(2)));
    scene.start().sign(&signed).unwrap();
    let signer = scene.start();
    let (key, earlier) = (signed.key().clone(), AttemptNo(1));
    let expected = Refusal::NoSharedCoin { key, attempt: further.attempt(), earlier, recorded: signed.txid() };
    assert_eq!(refusal(&signer, &further), expected);
    let proven = other.again(&further, "p");
    assert_eq!(proven.dead().len(), 1);
    assert_eq!(refusal(&signer, &proven), expected, "another attempt that died proves nothing");
}

/// Safety 9: a further attempt with a new anchor follows dead ones, once that is proven.
#[test]
fn a_new_anchor_is_signed_for_once_the_earlier_attempts_are_proven_dead() {
    let mut scene = Scene::new(2);
    let signer = scene.start();
    let first = scene.ledger.pay("w", "p", &scene.coins[..1]);
    signer.sign(&first).unwrap();
    scene.ledger.spend_elsewhere(scene.coins[0]);
    let second = scene.ledger.pay("w", "p", &scene.coins[1..]);
    assert!(matches!(refusal(&signer, &second), Refusal::NoSharedCoin { .. }), "the permit brings no proof");
    signer.sign(&scene.ledger.again(&second, "p")).unwrap();
}

/// Two histories of one payment in which its third attempt, and its second, spend the same coin.
fn third_and_second_attempt(scene: &mut Scene) -> (SigningPermit, SigningPermit) {
    scene.ledger.pay("w", "p", &scene.coins[..1]);
    scene.ledger.spend_elsewhere(scene.coins[0]);
    let mut other = scene.ledger.clone();
    let second = other.pay("w", "p", &scene.coins[2..]);
    scene.ledger.pay("w", "p", &scene.coins[1..2]);
    scene.ledger.spend_elsewhere(scene.coins[1]);
    let third = scene.ledger.pay("w", "p", &scene.coins[2..]);
    assert!(third.fence() > second.fence() && third.attempt() > second.attempt());
    (third, second)
}

/// Safety 12.
#[test]
fn refuses_a_lower_fence_for_a_coin() {
    let mut scene = Scene::new(3);
    let (third, second) = third_and_second_attempt(&mut scene);
    let signer = scene.start();
    signer.sign(&third).unwrap();
    let expected = Refusal::LowerFence { outpoint: scene.coins[2], recorded: third.fence(), asked: second.fence() };
    assert_eq!(refusal(&signer, &second), expected);
}

/// Safety 12: a later attempt of the same payment holds up the one before it until it is proven dead, and no longer.
#[test]
fn an_attempt_is_signed_below_a_dead_later_one_of_its_payment() {
    let mut scene = Scene::new(2);
    let first = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let second = scene.ledger.bump_with(&first, &scene.coins[1..], 9_000);
    let signer = scene.start();
    signer.sign(&second).unwrap();
    let held_up = Refusal::LowerFence { outpoint: scene.coins[0], recorded: second.fence(), asked: first.fence() };
    assert_eq!(refusal(&signer, &scene.ledger.again(&first, "p")), held_up, "it lives");
    scene.ledger.spend_elsewhere(scene.coins[1]);
    assert_eq!(refusal(&signer, &scene.ledger.again(&first, "other")), held_up, "the permit brings no proof");
    let proven = scene.ledger.again(&first, "p");
    assert_eq!(proven.dead().iter().collect::<Vec<_>>(), [&second.txid()]);
    let signed = signer.sign(&proven).unwrap();
    assert_eq!(signer.highest_fence(), Some(second.fence()), "what was signed is not forgotten");
    drop(signer);
    let signer = scene.start();
    assert_eq!((signer.highest_fence(), signer.sign(&proven).unwrap()), (Some(second.fence()), signed));
}

/// Safety 11, 12: the death of an attempt that the log knows under a number says nothing of what was signed under it.
#[test]
fn the_death_of_another_later_attempt_lets_nothing_pass_below_it() {
    let mut scene = Scene::new(3);
    let first = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let signed = scene.ledger.clone().bump_with(&first, &scene.coins[2..], 9_000);
    let signer = scene.start();
    signer.sign(&signed).unwrap();
    let second = scene.ledger.bump_with(&first, &scene.coins[1..2], 9_000);
    scene.ledger.spend_elsewhere(scene.coins[1]);
    let proven = scene.ledger.again(&first, "p");
    assert_eq!(proven.dead().iter().collect::<Vec<_>>(), [&second.txid()]);
    let expected = Refusal::LowerFence { outpoint: scene.coins[0], recorded: signed.fence(), asked: first.fence() };
    assert_eq!(refusal(&signer, &proven), expected);
}

/// Safety 12, 14: what was signed before a higher fence came is still signed again.
#[test]
fn signs_a_recorded_attempt_again_below_a_higher_fence() {
    let mut scene = Scene::new(3);
    let (third, second) = third_and_second_attempt(&mut scene);
    let signer = scene.start();
    let signed = signer.sign(&second).unwrap();
    signer.sign(&third).unwrap();
    assert_eq!(signer.sign(&second).unwrap(), signed);
}

/// The same attempt under a higher fence, as after a recovery: signed, and from then on under that fence only.
#[test]
fn the_same_transaction_under_a_higher_fence_raises_it() {
    let mut scene = Scene::new(1);
    let mut later = scene.ledger.clone();
    later.grow(3);
    let (low, high) = (scene.ledger.pay("w", "p", &scene.coins), later.pay("w", "p", &scene.coins));
    assert_eq!(low.txid(), high.txid());
    let signer = scene.start();
    let signed = signer.sign(&low).unwrap();
    assert_eq!(signer.sign(&high).unwrap(), signed);
    assert_eq!(signer.highest_fence(), Some(high.fence()));
    let expected = Refusal::LowerFence { outpoint: scene.coins[0], recorded: high.fence(), asked: low.fence() };
    assert_eq!(refusal(&signer, &low), expected);
    drop(signer);
    assert_eq!(scene.start().highest_fence(), Some(high.fence()), "and the digest is right");
}

/// Safety 12, 30: the log of yesterday against the memory of today.
#[test]
fn freezes_when_the_log_is_behind_and_stays_so() {
    let mut scene = Scene::new(3);
    let mut old = scene.ledger.clone();
    scene.ledger.grow(10);
    let signed = scene.ledger.pay("w", "p", &scene.coins[..1]);
    scene.start().sign(&signed).unwrap();
    let late = old.pay("w", "q", &scene.coins[1..2]);
    let signer = scene.start();
    assert_eq!(signer.frozen(), None);
    let frozen = refusal(&signer, &late);
    assert_eq!(
        frozen,
        Refusal::Frozen { signer: "hot".to_owned(), position: late.position(), recorded: signed.fence() }
    );
    let told = signer.frozen().unwrap();
    for part in [&late.position().spelled(), &signed.fence().spelled(), "onespend signer unfreeze", "--name hot"] {
        assert!(told.contains(part), "{told}");
    }
    let right = scene.ledger.pay("w", "r", &scene.coins[2..]);
    assert_eq!(refusal(&signer, &right), frozen, "also what the memory has nothing against");
    assert_eq!(refusal(&signer, &signed), frozen, "also what was signed before");
    drop(signer);
    let signer = scene.start();
    assert_eq!(signer.frozen(), Some(told));
    assert_eq!(refusal(&signer, &right), frozen, "also after a restart");
}

#[test]
fn an_operator_unfreezes_it_and_the_other_rules_stay() {
    let mut scene = Scene::new(3);
    let mut older = scene.ledger.clone();
    let mut old = scene.ledger.clone();
    old.grow(3);
    scene.ledger.grow(10);
    let signed = scene.ledger.pay("w", "p", &scene.coins[..1]);
    scene.start().sign(&signed).unwrap();
    assert_eq!(memory::unfreeze(&scene.file(), &owner(), "alice").unwrap(), None, "it is not frozen");
    let late = old.pay("w", "q", &scene.coins[1..2]);
    refusal(&scene.start(), &late);

    assert_eq!(memory::inspect(&scene.file(), &owner()).unwrap().frozen, Some(late.position()));
    assert_eq!(memory::unfreeze(&scene.file(), &owner(), "alice").unwrap(), Some(late.position()));
    let summary = memory::inspect(&scene.file(), &owner()).unwrap();
    assert_eq!((summary.frozen, summary.floor), (None, Some(late.position())));
    let events: Vec<(&str, &str, Fence, Fence)> =
        summary.audit.iter().map(|row| (row.what.as_str(), row.who.as_str(), row.position, row.recorded)).collect();
    let numbers = (late.position(), signed.fence());
    assert_eq!(events, [("frozen", "signer hot", numbers.0, numbers.1), ("unfrozen", "alice", numbers.0, numbers.1)]);
    assert!(summary.audit[0].at_ms <= summary.audit[1].at_ms && summary.audit[0].at_ms > 0);

    let signer = scene.start();
    assert_eq!(signer.frozen(), None);
    signer.sign(&late).unwrap();
    let spent = old.pay("w", "r", &scene.coins[..1]);
    assert!(matches!(refusal(&signer, &spent), Refusal::SecondPayment { .. }), "what was signed is not forgotten");
    drop(signer);
    let before = older.pay("w", "s", &scene.coins[2..]);
    assert!(matches!(refusal(&scene.start(), &before), Refusal::Frozen { .. }), "an even older log freezes it again");
}

/// Safety 30: what a log that was put back is compared with.
#[test]
fn tells_which_transactions_it_signed_a_coin_away_by_and_no_others() {
    let mut scene = Scene::new(3);
    let paid = scene.ledger.pay("w", "p", &scene.coins[..2]);
    let signer = scene.start();
    assert_eq!(signer.spenders(&scene.coins).unwrap(), []);
    signer.sign(&paid).unwrap();
    let raised = scene.ledger.bump(&paid, 9_000);
    signer.sign(&raised).unwrap();
    drop(signer);

    let signer = scene.start();
    let mut told = signer.spenders(&[scene.coins[2], scene.coins[1]]).unwrap();
    told.sort_unstable();
    let mut expected = [paid.txid(), raised.txid()].map(|txid| (scene.coins[1], txid));
    expected.sort_unstable();
    assert_eq!(told, expected);
    let forgetful = from_file(scene.folder.path(), &[&account("wpkh", 1).private]);
    assert_eq!(forgetful.spenders(&scene.coins).unwrap(), [], "without a memory");
}

/// Permits of one process may arrive in another order than they were made in; that is no older log.
#[test]
fn a_permit_that_waited_does_not_freeze() {
    let mut scene = Scene::new(2);
    let early = scene.ledger.pay("w", "p", &scene.coins[..1]);
    let later = scene.ledger.pay("w", "q", &scene.coins[1..]);
    assert!(early.position() < later.fence());
    let signer = scene.start();
    signer.sign(&later).unwrap();
    signer.sign(&early).unwrap();
    assert_eq!(signer.frozen(), None);
}

#[test]
fn records_nothing_for_what_other_guards_refuse() {
    let mut scene = Scene::new(1);
    let foreign = scene.ledger.register("x", &account("wpkh", 9).public, "hot", 1);
    let permit = scene.ledger.pay("x", "p", &foreign);
    let signer = scene.start();
    assert!(matches!(signer.sign(&permit), Err(SignerError::WrongKey { .. })));
    assert_eq!((signer.highest_fence(), memory::inspect(&scene.file(), &owner()).unwrap().attempts), (None, 0));
}

/// A history in which one payment gets the coin; each payment has one of its own.
fn rivals(scene: &Scene, number: usize) -> Vec<SigningPermit> {
    (0..number).map(|at| scene.ledger.clone().pay("w", &format!("p{at}"), &scene.coins)).collect()
}

/// Safety 4 at the signer: check and record are one step.
#[test]
fn of_payments_that_race_for_a_coin_exactly_one_is_signed() {
    for _ in 0..20 {
        let scene = Scene::new(1);
        let (signer, permits) = (scene.start(), rivals(&scene, 16));
        let (line, signed) = (Barrier::new(permits.len()), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for permit in &permits {
                scope.spawn(|| {
                    line.wait();
                    match signer.sign(permit) {
                        Ok(_) => drop(signed.fetch_add(1, Ordering::Relaxed)),
                        Err(SignerError::Remembered { refusal, .. }) => {
                            assert!(matches!(*refusal, Refusal::SecondPayment { .. }), "{refusal}");
                        }
                        Err(other) => panic!("{other}"),
                    }
                });
            }
        });
        assert_eq!(signed.into_inner(), 1);
    }
}

/// Runs itself again: the child records and dies before it signs, as a crash would have it.
#[test]
fn what_was_recorded_outlives_a_crash() {
    let scene = Scene::new(1);
    let permits = rivals(&scene, 2);
    if let Some(file) = std::env::var_os(CRASHES_WITH) {
        Memory::open(Path::new(&file), owner()).unwrap().check_and_record(&permits[0]).unwrap();
        std::process::abort();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::what_was_recorded_outlives_a_crash"])
        .env(CRASHES_WITH, scene.file())
        .output()
        .unwrap();
    assert!(!child.status.success());
    assert!(fs::metadata(scene.file()).is_ok(), "{}", String::from_utf8_lossy(&child.stderr));
    let signer = scene.start();
    assert!(matches!(refusal(&signer, &permits[1]), Refusal::SecondPayment { .. }));
    signer.sign(&permits[0]).unwrap();
}

/// Not part of the suite: `cargo test --release --test signer -- --ignored --nocapture cost`.
#[test]
#[ignore = "measures the disk"]
fn the_cost_of_a_signature_with_and_without_a_memory() {
    const SIGNATURES: u32 = 500;
    let mut scene = Scene::new(SIGNATURES);
    let coins = scene.coins.clone();
    let permits: Vec<SigningPermit> =
        coins.iter().enumerate().map(|(at, coin)| scene.ledger.pay("w", &format!("p{at}"), &[*coin])).collect();
    let plain = from_file(scene.folder.path(), &[&account("wpkh", 1).private]);
    let remembering = scene.start();
    for (what, signer) in [("without", &plain), ("with", &remembering), ("again with", &remembering)] {
        let begun = Instant::now();
        for permit in &permits {
            signer.sign(permit).unwrap();
        }
        eprintln!("{what} a memory: {:?} per signature", begun.elapsed() / SIGNATURES);
    }
    drop(remembering);
    let begun = Instant::now();
    assert_eq!(scene.start().highest_fence(), Some(permits[permits.len() - 1].fence()));
    eprintln!("opening {SIGNATURES} attempts: {:?}", begun.elapsed());
}
