//! Who is let in while the leader's own state is in doubt.
#![allow(clippy::unwrap_used)]

use onespend_adapters::chain::fake::FakeChain;
use onespend_core::ids::CallerId;
use onespend_policies::{Action, Policy, Resource, Role, RoleTable, Subject};
use onespend_proto::v1::ErrorReason;
use tempfile::TempDir;

use super::*;
use crate::agreement::{MISMATCH, UNDECIDED};
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

/// Only the leader knows what speaks against it, and the caller has to be sent there.
#[tokio::test]
async fn a_node_that_does_not_lead_says_so_first() {
    let folder = TempDir::new().unwrap();
    let api = specimen::api(specimen::waiting(&folder).await, FakeChain::new());
    api.alarms.raise(UNDECIDED, "on purpose");
    assert!(is_for(&add(&api).await.unwrap_err(), ErrorReason::NotLeader));
}
