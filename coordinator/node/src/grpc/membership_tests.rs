//! Who is let in, and what speaks against it.
#![allow(clippy::unwrap_used)]

use onespend_adapters::chain::fake::FakeChain;
use onespend_core::ids::{CallerId, LogIndex};
use onespend_policies::{Action, Policy, Resource, Role, RoleTable, Subject};
use onespend_proto::v1::ErrorReason;
use tempfile::TempDir;

use super::*;
use crate::grpc::details::is_for;
use crate::specimen;

/// A node that never answers.
const NEW: u64 = 4;

fn call(action: Action) -> Call {
    let subject = Subject { caller: onespend_policies::CallerId("operator/alice"), role: Role::Operator };
    Call {
        caller: CallerId::parse("operator/alice").unwrap(),
        authorized: RoleTable.authorize(&subject, action, &Resource::Cluster).unwrap(),
        digest: [0; 32],
        deadline: specimen::soon(),
    }
}

async fn add(api: &Arc<Api>) -> Result<v1::AddLearnerResponse, Status> {
    let message = v1::AddLearnerRequest {
        request_id: "m-1".to_owned(),
        node_id: NEW,
        control_address: "127.0.0.1:1".to_owned(),
        data_address: "127.0.0.1:2".to_owned(),
    };
    add_learner(Arc::clone(api), call(Action::AddLearner), message).await
}

async fn promote(api: &Arc<Api>) -> Result<v1::PromoteLearnerResponse, Status> {
    let message = v1::PromoteLearnerRequest { request_id: "m-2".to_owned(), node_id: NEW };
    promote_learner(Arc::clone(api), call(Action::PromoteLearner), message).await
}

/// safety 31: it would have the leader's state, right or wrong, and a vote on which state is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_state_is_in_doubt_takes_nobody_in() {
    let folder = TempDir::new().unwrap();
    let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
    for doubt in [UNDECIDED, MISMATCH] {
        api.alarms.raise(doubt, "on purpose");
        let refused = add(&api).await.unwrap_err();
        assert!(is_for(&refused, ErrorReason::Alarm) && refused.message().contains(doubt), "{refused:?}");
        assert!(is_for(&promote(&api).await.unwrap_err(), ErrorReason::Alarm));
        api.alarms.clear(doubt);
    }
    assert_eq!(api.replica.status().members.len(), 1);
    let members = add(&api).await.unwrap().members;
    assert!(members.iter().any(|member| member.node_id == NEW && !member.voter), "{members:?}");
    assert!(is_for(&promote(&api).await.unwrap_err(), ErrorReason::MembershipRefused), "it answers nobody");
}

/// safety 31: neither one that most others contradict, nor one of which only the leader knows that it differs.
#[test]
fn a_learner_whose_state_differs_gets_no_vote() {
    let at = |index, byte| HashAt { index: LogIndex(index), hash: [byte; 32] };
    let ours = [at(300, 1), at(256, 1), at(128, 1)];
    let says = |alarms: &[&str], hashes: Vec<HashAt>| {
        let alarms = alarms.iter().map(|code| (*code).to_owned()).collect();
        objection(&ours, &Report { hashes, alarms, ..Report::default() })
    };
    assert_eq!(says(&[], vec![at(301, 2), at(256, 1)]), None, "it is elsewhere, and agreed");
    assert_eq!(says(&["DISK_LOW"], vec![]), None);
    for doubt in [MISMATCH, UNDECIDED] {
        assert!(says(&["DISK_LOW", doubt], vec![at(300, 1)]).is_some_and(|why| why.contains(doubt)));
    }
    assert!(says(&[], vec![at(301, 2), at(256, 2)]).is_some_and(|why| why.contains("index 256")));
}

#[test]
fn what_keeps_a_new_voter_from_leading_is_told() {
    let fit = Report { in_sync_height: Some(7), ..Report::default() };
    assert_eq!(warnings(&fit), [""; 0]);
    let drained = Report { abstains: true, unfit: Some("it stops".to_owned()), ..fit.clone() };
    assert!(warnings(&drained)[0].starts_with("it is drained, or stops") && warnings(&drained).len() == 1);
    let unfit = Report { unfit: Some("DISK_LOW".to_owned()), in_sync_height: None, ..fit };
    let told = warnings(&unfit);
    assert!(told[0].ends_with("DISK_LOW") && told[1].starts_with("its bitcoind") && told.len() == 2, "{told:?}");
}

/// Only the leader knows what speaks against it, and the caller has to be sent there.
#[tokio::test]
async fn a_node_that_does_not_lead_says_so_first() {
    let folder = TempDir::new().unwrap();
    let api = specimen::api(specimen::waiting(&folder).await, FakeChain::new());
    api.alarms.raise(UNDECIDED, "on purpose");
    assert!(is_for(&add(&api).await.unwrap_err(), ErrorReason::NotLeader));
}
