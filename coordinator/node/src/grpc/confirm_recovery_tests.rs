//! Whose signers accept the epoch that an operator confirms.
#![allow(clippy::unwrap_used)]

use onespend_adapters::chain::fake::FakeChain;
use onespend_adapters::signer::Signer;
use onespend_adapters::store::memory::MemoryLog;
use onespend_core::ids::CallerId;
use onespend_policies::{Action, Policy, Resource, Role, RoleTable, Subject};
use tempfile::TempDir;

use super::*;
use crate::leader::broadcast;
use crate::leader::sign::Signing;
use crate::specimen::{self, Careful};

/// The rpcs of a node whose one signer is this.
fn node(replica: Arc<Replica>, signer: &Arc<Careful>) -> Arc<Api> {
    let mut api = specimen::api(Arc::clone(&replica), FakeChain::new());
    let (outbox, _inbox) = broadcast::queue();
    let signing = Signing::new(replica, vec![signer.clone()], outbox, Arc::default());
    Arc::get_mut(&mut api).unwrap().signing = Arc::new(signing);
    api
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
async fn confirmed(api: &Arc<Api>) -> v1::ConfirmRecoveryResponse {
    let note = "payouts were asked".to_owned();
    let message = v1::ConfirmRecoveryRequest { request_id: "c-1".to_owned(), note, i_have_checked: true };
    confirm_recovery(Arc::clone(api), call(), message).await.unwrap()
}

fn epoch(answer: &v1::ConfirmRecoveryResponse) -> u32 {
    answer.recovery.as_ref().unwrap().epoch
}

/// safety 8, 30: those of the node that leads, at once, also where the caller has to ask again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_signers_of_the_leader_accept_what_is_confirmed_on_the_operators_word() {
    let (folder, signer) = (TempDir::new().unwrap(), Arc::new(Careful::default()));
    let api = node(specimen::leader(&folder).await, &signer);
    specimen::recover(&api.replica).await;
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
    let (replica, log) = specimen::over(&folder, MemoryLog::default()).await;
    let before = node(specimen::found(replica, specimen::tip()).await, &Arc::new(Careful::default()));
    specimen::recover(&before.replica).await;
    assert_eq!(confirmed(&before).await.accepted_signers, ["careful"]);
    before.replica.raft().stop().await.unwrap();

    let signer = Arc::new(Careful::default());
    let (replica, _log) = specimen::over(&folder, log.crash()).await;
    specimen::leads(&replica).await;
    let after = node(replica, &signer);
    let answer = confirmed(&after).await;
    assert_eq!((epoch(&answer), answer.node_id), (1, 1), "it has the answer");
    assert!(answer.accepted_signers.is_empty(), "{answer:?}");
    assert_eq!((signer.told(), after.signing.unaccepted().len()), (vec![], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_whose_memory_cannot_be_written_is_not_among_those_that_accepted() {
    let (folder, signer) = (TempDir::new().unwrap(), Arc::new(Careful::broken()));
    let api = node(specimen::leader(&folder).await, &signer);
    specimen::recover(&api.replica).await;
    let answer = confirmed(&api).await;
    assert_eq!((epoch(&answer), answer.accepted_signers), (1, vec![]));
    assert_eq!(api.signing.unaccepted().len(), 1);
}

/// safety 8, 30: or a memory would take this log for one that it has accepted before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_epoch_is_above_all_that_a_signer_of_the_leader_has_accepted() {
    let (folder, signer) = (TempDir::new().unwrap(), Arc::new(Careful::default()));
    signer.accept_epoch(4, "operator/bob").unwrap();
    let api = node(specimen::leader(&folder).await, &signer);
    specimen::recover(&api.replica).await;
    assert_eq!(epoch(&confirmed(&api).await), 5);
}
