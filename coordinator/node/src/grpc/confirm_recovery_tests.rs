//! Whose signers accept the epoch that an operator confirms.
#![allow(clippy::unwrap_used, clippy::panic)]

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use onespend_adapters::chain::fake::FakeChain;
use onespend_adapters::signer::{Signer, SignerError};
use onespend_adapters::store::memory::MemoryLog;
use onespend_core::command::{BlockRef, RegisterWallet};
use onespend_core::ids::{CallerId, Height};
use onespend_core::signing::SigningPermit;
use onespend_core::utxo::Claim;
use onespend_core::wallet::WalletDescriptor;
use onespend_policies::{Action, Policy, Resource, Role, RoleTable, Subject};
use tempfile::TempDir;

use super::*;
use crate::agreement::{MISMATCH, UNDECIDED};
use crate::alarms::Alarms;
use crate::leader::broadcast;
use crate::leader::sign::Signing;
use crate::specimen::{self, Careful, Coin, TIP};

/// A chain, and its tip.
fn chain() -> (FakeChain, BlockRef) {
    let chain = FakeChain::new();
    let hash = *chain.mine(TIP, &ScriptBuf::new()).last().unwrap();
    (chain, BlockRef { height: Height(TIP), hash })
}

/// The rpcs of a leader whose log begins at the tip of a chain, and whose one signer is this; and the chain.
async fn leader(folder: &TempDir, signer: &Arc<Careful>) -> (Arc<Api>, FakeChain) {
    let (chain, tip) = chain();
    let api = node(specimen::leader_at(folder, tip).await, chain.clone(), signer);
    specimen::recover(&api.replica).await;
    (api, chain)
}

/// The rpcs of a node whose bitcoind and one signer are these.
fn node(replica: Arc<Replica>, chain: FakeChain, signer: &Arc<Careful>) -> Arc<Api> {
    signed_by(specimen::api(replica, chain), signer.clone())
}

/// The same rpcs with this one signer.
fn signed_by(mut api: Arc<Api>, signer: Arc<dyn Signer>) -> Arc<Api> {
    let (outbox, _inbox) = broadcast::queue();
    let signing = Signing::new(Arc::clone(&api.replica), vec![signer], outbox, Arc::default());
    Arc::get_mut(&mut api).unwrap().signing = Arc::new(signing);
    api
}

/// A signer that is asked what it remembers just when the nodes' states are found to differ.
struct Meanwhile(Arc<Alarms>);

impl Signer for Meanwhile {
    fn name(&self) -> &'static str {
        "meanwhile"
    }

    fn holds(&self, _: &WalletDescriptor) -> bool {
        true
    }

    fn sign(&self, _: &SigningPermit) -> Result<Transaction, SignerError> {
        Err(SignerError::Unavailable { signer: self.name().to_owned(), why: "it is not asked here".to_owned() })
    }

    fn spenders(&self, _: &[OutPoint]) -> Result<Vec<(OutPoint, Txid)>, SignerError> {
        self.0.raise(UNDECIDED, "on purpose");
        Ok(Vec::new())
    }
}

fn call() -> Call {
    let subject = Subject { caller: onespend_policies::CallerId("operator/alice"), role: Role::Operator };
    Call {
        caller: CallerId::parse("operator/alice").unwrap(),
        authorized: RoleTable.authorize(&subject, Action::ConfirmRecovery, &Resource::Cluster).unwrap(),
        digest: [0; 32],
        deadline: specimen::soon(),
    }
}

/// The same request each time.
async fn confirm(api: &Arc<Api>) -> Result<v1::ConfirmRecoveryResponse, Status> {
    let note = "payouts were asked".to_owned();
    let message = v1::ConfirmRecoveryRequest { request_id: "c-1".to_owned(), note, i_have_checked: true };
    confirm_recovery(Arc::clone(api), call(), message).await
}

async fn confirmed(api: &Arc<Api>) -> v1::ConfirmRecoveryResponse {
    confirm(api).await.unwrap()
}

fn epoch(answer: &v1::ConfirmRecoveryResponse) -> u32 {
    answer.recovery.as_ref().unwrap().epoch
}

/// safety 8, 30: those of the node that leads, at once, also where the caller has to ask again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_signers_of_the_leader_accept_what_is_confirmed_on_the_operators_word() {
    let (folder, signer) = (TempDir::new().unwrap(), Arc::new(Careful::default()));
    let (api, _chain) = leader(&folder, &signer).await;
    for tries in 1..=2 {
        let answer = confirmed(&api).await;
        assert_eq!((epoch(&answer), answer.node_id), (1, 1));
        assert_eq!(answer.accepted_signers, ["careful"]);
        assert_eq!(signer.told(), vec![(1, "operator/alice".to_owned()); tries]);
    }
    assert_eq!(api.signing.unaccepted(), []);
}

/// safety 8: of the signers of the node that leads by then, nobody has said anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_is_answered_in_a_later_term_has_no_signer_accept_anything() {
    let folder = TempDir::new().unwrap();
    let ((chain, tip), (replica, log)) = (chain(), specimen::over(&folder, MemoryLog::default()).await);
    let before = node(specimen::found(replica, tip).await, chain.clone(), &Arc::new(Careful::default()));
    specimen::recover(&before.replica).await;
    assert_eq!(confirmed(&before).await.accepted_signers, ["careful"]);
    before.replica.raft().stop().await.unwrap();

    let signer = Arc::new(Careful::default());
    let (replica, _log) = specimen::over(&folder, log.crash()).await;
    specimen::leads(&replica).await;
    let after = node(replica, chain, &signer);
    let answer = confirmed(&after).await;
    assert_eq!((epoch(&answer), answer.node_id), (1, 1), "it has the answer");
    assert!(answer.accepted_signers.is_empty(), "{answer:?}");
    assert_eq!((signer.told(), after.signing.unaccepted().len()), (vec![], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_whose_memory_cannot_be_written_is_not_among_those_that_accepted() {
    let (folder, signer) = (TempDir::new().unwrap(), Arc::new(Careful::broken()));
    let (api, _chain) = leader(&folder, &signer).await;
    let answer = confirmed(&api).await;
    assert_eq!((epoch(&answer), answer.accepted_signers), (1, vec![]));
    assert_eq!(api.signing.unaccepted().len(), 1);
}

/// safety 8, 30: or a memory would take this log for one that it has accepted before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_epoch_is_above_all_that_a_signer_of_the_leader_has_accepted() {
    let (folder, signer) = (TempDir::new().unwrap(), Arc::new(Careful::default()));
    signer.accept_epoch(4, "operator/bob").unwrap();
    let (api, _chain) = leader(&folder, &signer).await;
    assert_eq!(epoch(&confirmed(&api).await), 5);
}

/// safety 8, 30: copied folders were confirmed as epoch 1, and put back again while the memories stayed; another node leads.
#[test]
fn the_new_epoch_is_above_all_that_a_signer_of_another_node_has_accepted() {
    let report = |signer_epoch| Report { signer_epoch, ..Report::default() };
    assert_eq!(epoch_above(0, &[]), 1, "nobody answers");
    assert_eq!(epoch_above(0, &[report(1), report(0)]), 2);
    assert_eq!(epoch_above(4, &[report(1)]), 5);
}

/// safety 30: the node with the right memory was given the lead after the state had been compared where another led.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_signers_of_the_leader_remember_as_spent_is_held_back_before_the_word_is_taken() {
    let (folder, signer) = (TempDir::new().unwrap(), Arc::new(Careful::default()));
    let (api, _chain) = leader(&folder, &signer).await;
    let basis = api.replica.read(State::tip).unwrap();
    let Command::RegisterWallet(made) = specimen::register("w", &[Coin::of(100_000); 2]) else { panic!("no wallet") };
    let register = Command::RegisterWallet(RegisterWallet { basis, ..made });
    api.replica.propose(None, register, specimen::soon()).await.unwrap();
    signer.remember(specimen::coin(1), Txid::hash(b"lost"));
    assert_eq!(epoch(&confirmed(&api).await), 1);
    let claims =
        [0, 1].map(|number| api.replica.read(|state| state.utxo(&specimen::coin(number)).unwrap().claim.clone()));
    assert_eq!(claims, [Claim::Free, Claim::Quarantined]);
}

/// safety 30: though it was compared before. The refusal is this node's own, so the same request is taken later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_confirmed_while_the_state_cannot_be_compared_once_more() {
    let (folder, signer) = (TempDir::new().unwrap(), Arc::new(Careful::default()));
    let (api, chain) = leader(&folder, &signer).await;
    let previous = api.replica.read(State::tip).unwrap().hash;
    let hash = chain.mine(1, &ScriptBuf::new())[0];
    let refused = confirm(&api).await.unwrap_err();
    assert!(status::is_for(&refused, v1::ErrorReason::RecoveryRefused), "{refused}");
    assert!(refused.message().contains("not at the log's tip"), "{refused}");
    assert!(api.replica.read(|state| state.recovery().is_some()));
    assert_eq!(signer.told(), []);

    let block = BlockRef { height: Height(TIP + 1), hash };
    let (received, spent) = (vec![], vec![]);
    let connect = Command::ConnectBlock { block, previous, received, spent, wallets: 0, followed: None };
    api.replica.propose(None, connect, specimen::soon()).await.unwrap();
    assert_eq!(epoch(&confirmed(&api).await), 1);
}

/// safety 30, 31: what a wrong state lacks is missing in its comparison, by which the recovery of all would end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_confirmed_while_the_state_itself_is_in_doubt() {
    let (folder, signer) = (TempDir::new().unwrap(), Arc::new(Careful::default()));
    let (api, _chain) = leader(&folder, &signer).await;
    for doubt in [UNDECIDED, MISMATCH] {
        api.alarms.raise(doubt, "on purpose");
        let refused = confirm(&api).await.unwrap_err();
        assert!(status::is_for(&refused, v1::ErrorReason::NotServing), "the outcome is open: {refused}");
        assert!(refused.message().contains(doubt), "{refused}");
        api.alarms.clear(doubt);
    }
    assert!(api.replica.read(|state| state.recovery().is_some()));
    assert_eq!(signer.told(), []);
    assert_eq!(epoch(&confirmed(&api).await), 1, "the same request, once that is over");
}

/// safety 30, 31.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_confirmed_if_states_are_found_to_differ_while_it_is_compared() {
    let folder = TempDir::new().unwrap();
    let (chain, tip) = chain();
    let api = specimen::api(specimen::leader_at(&folder, tip).await, chain);
    let alarms = Arc::clone(&api.alarms);
    let api = signed_by(api, Arc::new(Meanwhile(alarms)));
    specimen::recover(&api.replica).await;
    let refused = confirm(&api).await.unwrap_err();
    assert!(status::is_for(&refused, v1::ErrorReason::NotServing), "{refused}");
    assert!(api.alarms.stands(UNDECIDED) && api.replica.read(|state| state.recovery().is_some()));
}
