//! The way to a real signer with a memory, over the log of one node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::sync::mpsc;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, ScriptBuf, Txid, WPubkeyHash};
use onespend_adapters::signer::software::SoftwareSigner;
use onespend_adapters::store::sqlite::RestoredMark;
use onespend_core::command::{BlockRef, CreatePayment, Recipient, RegisterWallet, Replace, Spent};
use onespend_core::ids::{Height, PaymentId};
use onespend_core::payment::AttemptEnd;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::agreement::UNDECIDED;
use crate::config::MAX_SIGNERS;
use crate::leader::broadcast;
use crate::restored;
use crate::specimen::{
    Careful, Coin, TIP, coin, confirm, leader, private_descriptor, recover, register, request, soon, tip, wallet,
};

const FIRST: AttemptNo = AttemptNo(1);
const SECOND: AttemptNo = AttemptNo(2);
/// Coins of the wallet "w".
const COINS: usize = 3;

/// A leader with a wallet of three coins, and a signer that remembers.
async fn signing(folder: &TempDir) -> (Arc<Replica>, Arc<Signing>) {
    signing_beside(folder, vec![]).await
}

/// The same with more signers on the node.
async fn signing_beside(folder: &TempDir, more: Vec<Arc<dyn Signer>>) -> (Arc<Replica>, Arc<Signing>) {
    let replica = leader(folder).await;
    propose(&replica, None, register("w", &[Coin::of(100_000); COINS])).await;
    let keys = folder.path().join("hot.xprv");
    fs::write(&keys, private_descriptor("w")).unwrap();
    fs::set_permissions(&keys, Permissions::from_mode(0o600)).unwrap();
    let signer = SoftwareSigner::from_file("hot", &keys, Network::Regtest).unwrap();
    let signer = signer.with_memory(&folder.path().join("signer.db"), "test", Network::Regtest).unwrap();
    let mut signers = more;
    signers.push(Arc::new(signer));
    let (outbox, _inbox) = broadcast::queue();
    let signing = Signing::new(Arc::clone(&replica), signers, outbox, Arc::new(Alarms::default()));
    (replica, Arc::new(signing))
}

async fn propose(replica: &Replica, name: Option<&str>, command: Command) {
    let applied = replica.propose(name.map(request), command, soon()).await.unwrap();
    assert!(!matches!(applied.outcome, Outcome::Rejected(_)), "{:?}", applied.outcome);
}

fn key(name: &str) -> PaymentKey {
    PaymentKey { wallet: wallet("w"), payment: PaymentId::parse(name).unwrap() }
}

async fn pay(replica: &Replica, name: &str, coins: &[u32], amount_sat: u64) {
    pay_as(replica, key(name), coins, amount_sat).await;
}

async fn pay_as(replica: &Replica, key: PaymentKey, coins: &[u32], amount_sat: u64) {
    let name = key.payment.to_string();
    propose(replica, Some(name.as_str()), order(key, coins, amount_sat)).await;
}

fn order(key: PaymentKey, coins: &[u32], amount_sat: u64) -> Command {
    let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(key.payment.as_str().as_bytes()));
    let recipients = vec![Recipient { script, amount_sat }];
    let outpoints = coins.iter().map(|number| coin(*number)).collect();
    Command::CreatePayment(CreatePayment { key, recipients, outpoints, fee_sat: 1_000 })
}

/// Connects as many blocks as "w" takes for final; the first one spends these coins by a transaction that is not ours.
async fn spend_outside(replica: &Replica, coins: &[u32]) {
    let depth = replica.read(|state| state.wallet(&wallet("w")).unwrap().limits.finality_depth);
    let mut previous = tip().hash;
    for above in 1..=depth {
        let hash = BlockHash::hash(&above.to_be_bytes());
        let stolen = |number: &u32| Spent { outpoint: coin(*number), txid: Txid::hash(b"somebody else") };
        let spent = if above == 1 { coins.iter().map(stolen).collect() } else { vec![] };
        let block = BlockRef { height: Height(TIP + above), hash };
        let received = vec![];
        let connect = Command::ConnectBlock { block, previous, received, spent, wallets: 1, followed: None };
        propose(replica, None, connect).await;
        previous = hash;
    }
}

fn is_signed(replica: &Replica, name: &str) -> bool {
    is_attempt_signed(replica, name, FIRST)
}

fn is_attempt_signed(replica: &Replica, name: &str, attempt: AttemptNo) -> bool {
    replica.read(|state| state.payment(&key(name)).unwrap().attempt(attempt).unwrap().signed.is_some())
}

/// safety 6: a coin that was signed away for a payment which is dead is given to another one, with the proof that the
/// signer asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_remembers_another_payment_is_shown_that_it_is_dead() {
    let folder = TempDir::new().unwrap();
    let (replica, signing) = signing(&folder).await;
    pay(&replica, "first", &[0, 1], 150_000).await;
    signing.sign(&key("first"), FIRST, soon()).await;
    assert!(is_signed(&replica, "first"));
    spend_outside(&replica, &[0]).await;
    let end = replica.read(|state| state.payment(&key("first")).unwrap().attempt(FIRST).unwrap().end.clone());
    assert!(matches!(end, Some(AttemptEnd::Dead(_))), "{end:?}");

    pay(&replica, "second", &[1], 50_000).await;
    let asked = signing.call("hot", || signing.permit(&key("second"), FIRST, &[])).await.unwrap();
    assert_eq!(wants_proof(&asked), Some(vec![key("first")]), "without a proof it refuses: {asked:?}");
    assert!(!is_signed(&replica, "second"));
    signing.sign(&key("second"), FIRST, soon()).await;
    assert!(is_signed(&replica, "second"));
    assert_eq!(signing.alarms.current(), []);
}

/// safety 6, 9: the payment was signed with another coin before, and its new coin for another payment. Both are dead, and the
/// signer wants to see both before it signs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_is_ordered_again_with_a_coin_of_another_dead_one_is_signed() {
    let folder = TempDir::new().unwrap();
    let (replica, signing) = signing(&folder).await;
    for (name, coins, amount_sat) in [("p", &[0][..], 50_000), ("q", &[1, 2][..], 150_000)] {
        pay(&replica, name, coins, amount_sat).await;
        signing.sign(&key(name), FIRST, soon()).await;
        assert!(is_signed(&replica, name));
    }
    spend_outside(&replica, &[0, 1]).await;
    propose(&replica, Some("again"), order(key("p"), &[2], 50_000)).await;
    let asked = signing.call("hot", || signing.permit(&key("p"), SECOND, &[])).await.unwrap();
    assert_eq!(wants_proof(&asked), Some(vec![key("q")]), "of its own it knows already: {asked:?}");
    signing.sign(&key("p"), SECOND, soon()).await;
    assert!(is_attempt_signed(&replica, "p", SECOND));
    assert_eq!(signing.alarms.current(), []);
}

/// safety 30: the leader's duty finds an intent of the backup before recovery mode has begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_marked_signs_nothing_from_the_start() {
    let folder = TempDir::new().unwrap();
    let (replica, signing) = signing(&folder).await;
    pay(&replica, "before", &[0], 50_000).await;
    let mark = RestoredMark::of(folder.path());
    restored::resume(&signing.alarms, &mark);
    assert_eq!(signing.alarms.current(), [], "no mark, no alarm");
    fs::write(folder.path().join("RESTORED"), "").unwrap();
    restored::resume(&signing.alarms, &mark);
    signing.sign(&key("before"), FIRST, soon()).await;
    assert!(!is_signed(&replica, "before"));

    // The node leads, so the cluster is in recovery mode soon; the mark and its alarm go, and still nothing is signed.
    let stop = CancellationToken::new();
    let looking = restored::run(Arc::clone(&replica), mark.clone(), Arc::clone(&signing.alarms), stop);
    tokio::time::timeout(Duration::from_mins(1), looking).await.expect("the mark stays");
    assert!(!mark.is_set());
    assert_eq!(signing.alarms.current(), []);
    assert!(replica.read(|state| state.recovery().is_some()));
    signing.sign(&key("before"), FIRST, soon()).await;
    assert!(!is_signed(&replica, "before"));
}

/// safety 31: what is ordered already waits until it is known which of two states is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_as_many_contradict_as_share_has_nothing_signed() {
    let folder = TempDir::new().unwrap();
    let (replica, signing) = signing(&folder).await;
    pay(&replica, "waits", &[0], 50_000).await;
    signing.alarms.raise(UNDECIDED, "on purpose");
    signing.sign(&key("waits"), FIRST, soon()).await;
    assert!(!is_signed(&replica, "waits"));
    signing.alarms.clear(UNDECIDED);
    signing.sign(&key("waits"), FIRST, soon()).await;
    assert!(is_signed(&replica, "waits"));
}

/// safety 6: what cannot be proved dead stays refused, however often it is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_remembers_a_payment_which_the_log_has_lost_refuses_for_good() {
    let folder = TempDir::new().unwrap();
    let (replica, signing) = signing(&folder).await;
    pay(&replica, "first", &[0, 1], 150_000).await;
    signing.sign(&key("first"), FIRST, soon()).await;
    drop(signing);
    // Another log, with the same signer: the coin is free in it.
    let other = TempDir::new().unwrap();
    for file in ["hot.xprv", "signer.db"] {
        fs::copy(folder.path().join(file), other.path().join(file)).unwrap();
        fs::set_permissions(other.path().join(file), Permissions::from_mode(0o600)).unwrap();
    }
    let (replica, signing) = self::signing(&other).await;
    pay(&replica, "second", &[1], 50_000).await;
    for _ in 0..2 {
        signing.sign(&key("second"), FIRST, soon()).await;
        assert!(!is_signed(&replica, "second"), "a second payment was signed for a coin");
    }
}

/// safety 12: a memory would refuse the older one, once a second. One that may confirm alone again is asked for again, and is
/// signed: the memory is shown that the newer one is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_not_asked_for_while_a_newer_one_of_its_payment_is_signed_and_may_confirm() {
    let folder = TempDir::new().unwrap();
    let (replica, signing) = signing(&folder).await;
    pay(&replica, "p", &[0], 50_000).await;
    let more = Replace { key: key("p"), previous: FIRST, more: vec![coin(1)], fee_sat: 5_000 };
    propose(&replica, Some("bump"), Command::BumpFee(more)).await;
    assert_eq!(replica.read(waiting), [(key("p"), vec![FIRST, SECOND])]);
    signing.sign(&key("p"), SECOND, soon()).await;
    assert_eq!(replica.read(waiting), []);

    spend_outside(&replica, &[1]).await;
    assert_eq!(replica.read(waiting), [(key("p"), vec![FIRST])], "the newer one is dead");
    signing.sign(&key("p"), FIRST, soon()).await;
    assert!(is_signed(&replica, "p"));
    assert_eq!(replica.read(waiting), []);
    assert_eq!(signing.alarms.current(), []);
}

/// A signer that hangs until the other end of its gate is dropped, and how often it was called.
struct Stuck {
    calls: watch::Sender<usize>,
    gate: Mutex<mpsc::Receiver<()>>,
}

impl Signer for Stuck {
    fn name(&self) -> &'static str {
        "stuck"
    }

    fn holds(&self, _: &WalletDescriptor) -> bool {
        true
    }

    fn sign(&self, _: &SigningPermit) -> Result<Transaction, SignerError> {
        self.calls.send_modify(|calls| *calls += 1);
        let _closed = self.gate.lock().unwrap().recv();
        Err(SignerError::Unavailable { signer: "stuck".to_owned(), why: "it hung".to_owned() })
    }
}

/// A payment of a wallet that this signer signs for.
async fn order_from(replica: &Replica, signer: &str) -> PaymentKey {
    let Command::RegisterWallet(made) = register("v", &[Coin::of(100_000); COINS + 1]) else { panic!("no wallet") };
    // The coins before are those of the other wallet.
    let found = made.found[COINS..].to_vec();
    let made = RegisterWallet { signer: SignerRef::Named(signer.to_owned()), found, ..made };
    propose(replica, None, Command::RegisterWallet(made)).await;
    let key = PaymentKey { wallet: wallet("v"), payment: PaymentId::parse("waits").unwrap() };
    pay_as(replica, key.clone(), &[3], 50_000).await;
    key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_hangs_on_all_its_places_keeps_no_other_from_signing() {
    let folder = TempDir::new().unwrap();
    let (calls, mut called) = watch::channel(0);
    let (open, gate) = mpsc::channel();
    let stuck = Arc::new(Stuck { calls, gate: Mutex::new(gate) });
    let (replica, signing) = signing_beside(&folder, vec![stuck]).await;
    let waits = order_from(&replica, "stuck").await;
    let ask = || {
        let (signing, waits) = (Arc::clone(&signing), waits.clone());
        tokio::spawn(async move { signing.call("stuck", || signing.permit(&waits, FIRST, &[])).await })
    };
    let asked: Vec<_> = (0..=MAX_OF_SIGNER).map(|_| ask()).collect();
    let hung = called.wait_for(|calls| *calls == MAX_OF_SIGNER);
    tokio::time::timeout_at(soon().into(), hung).await.expect("it has fewer places").unwrap();

    pay(&replica, "free", &[0], 50_000).await;
    signing.sign(&key("free"), FIRST, soon()).await;
    assert!(is_signed(&replica, "free"));
    assert_eq!(*called.borrow(), MAX_OF_SIGNER, "a call more than it has places");
    drop(open);
    for call in asked {
        call.await.unwrap().unwrap().unwrap_err();
    }
    assert_eq!(*called.borrow(), MAX_OF_SIGNER + 1);
}

/// safety 31: a signer that hangs on all its places may hold up the next one for minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_permitted_no_more_when_a_place_comes_free_is_not_signed() {
    let folder = TempDir::new().unwrap();
    let (replica, signing) = signing(&folder).await;
    pay(&replica, "waits", &[0], 50_000).await;
    let all = u32::try_from(MAX_OF_SIGNER).unwrap();
    let taken = signing.signers["hot"].places.acquire_many(all).await.unwrap();
    let waits = key("waits");
    let mut asked = pin!(signing.sign_once(&waits, FIRST));
    tokio::time::timeout(Duration::from_millis(50), asked.as_mut()).await.expect_err("it waits for a place");
    signing.alarms.raise(UNDECIDED, "on purpose");
    drop(taken);
    asked.await;
    assert!(!is_signed(&replica, "waits"));
    signing.alarms.clear(UNDECIDED);
    signing.sign(&waits, FIRST, soon()).await;
    assert!(is_signed(&replica, "waits"));
}

/// safety 8: not even to be refused. What was signed before the epoch of the log, its memory may not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_has_not_accepted_the_log_is_never_asked() {
    let folder = TempDir::new().unwrap();
    let careful = Arc::new(Careful::default());
    let (replica, signing) = signing_beside(&folder, vec![careful.clone()]).await;
    recover(&replica).await;
    confirm(&replica, 1).await;
    let waits = order_from(&replica, "careful").await;
    pay(&replica, "of-hot", &[0], 50_000).await;
    for (payment, signer) in [(&waits, "careful"), (&key("of-hot"), "hot")] {
        signing.sign(payment, FIRST, soon()).await;
        assert!(signing.permit(payment, FIRST, &[]).is_none(), "{signer}");
    }
    assert_eq!(careful.asked(), 0);
    let lacking: Vec<_> = signing.unaccepted().iter().map(|lacks| (lacks.signer.clone(), lacks.accepted)).collect();
    assert_eq!(lacking, [("careful".to_owned(), 0), ("hot".to_owned(), 0)]);

    assert_eq!(signing.accept(1, "operator/alice"), ["careful", "hot"]);
    assert_eq!(signing.unaccepted(), []);
    signing.sign(&waits, FIRST, soon()).await;
    assert_eq!(careful.asked(), 1);
    signing.sign(&key("of-hot"), FIRST, soon()).await;
    assert!(is_signed(&replica, "of-hot"));
}

/// safety 8: what an operator has to say of a memory, no proof about payments replaces.
#[test]
fn a_refusal_for_the_epoch_wants_no_proof() {
    let refusal = Box::new(Refusal::EpochNotAccepted { signer: "hot".to_owned(), epoch: 1, accepted: 0 });
    assert_eq!(wants_proof(&Err(SignerError::Remembered { signer: "hot".to_owned(), refusal })), None);
}

#[test]
fn all_signers_together_leave_threads_for_other_work() {
    assert_eq!((places(1), places(MAX_SIGNERS)), (MAX_OF_SIGNER, 4));
    assert!((0..=MAX_SIGNERS).all(|signers| places(signers) > 0 && places(signers) * signers <= MAX_AT_ONCE));
}

#[test]
fn what_came_since_the_last_round_is_left_to_its_request_but_not_by_a_new_leader() {
    let found = |attempts: &[u32]| vec![(key("p"), attempts.iter().copied().map(AttemptNo).collect())];
    let mut rounds = Rounds::default();
    assert_eq!(rounds.due(found(&[1, 2])), found(&[1, 2]));
    assert_eq!(rounds.due(found(&[2, 3])), found(&[2]));
    assert_eq!(rounds.due(found(&[2, 3])), found(&[2, 3]));
    // One whose request has gone is found by the round after the next.
    assert_eq!(rounds.due(found(&[])), found(&[]));
    assert_eq!(rounds.due(found(&[4])), found(&[]));
    assert_eq!(rounds.due(found(&[4])), found(&[4]));
}
