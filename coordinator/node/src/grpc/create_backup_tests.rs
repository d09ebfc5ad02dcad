#![allow(clippy::unwrap_used)]

use onespend_adapters::chain::fake::FakeChain;
use onespend_core::ids::CallerId;
use onespend_policies::{Action, Policy, Resource, Role, RoleTable, Subject};
use tokio_stream::StreamExt;

use super::*;
use crate::specimen;

fn call() -> Call {
    let subject = Subject { caller: onespend_policies::CallerId("operator/alice"), role: Role::Operator };
    Call {
        caller: CallerId::parse("operator/alice").unwrap(),
        authorized: RoleTable.authorize(&subject, Action::CreateBackup, &Resource::Cluster).unwrap(),
        digest: [0; 32],
        deadline: specimen::soon(),
    }
}

fn message() -> v1::CreateBackupRequest {
    v1::CreateBackupRequest { request_id: "b-1".to_owned() }
}

#[tokio::test]
async fn one_backup_is_made_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let api = specimen::api(specimen::waiting(&folder).await, FakeChain::new());
    let turn = api.backups.turn().unwrap();
    let refused = create_backup(&api, &call(), &message()).err().unwrap();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    drop(turn);
    drop(create_backup(&api, &call(), &message()).unwrap());
    assert_eq!(
        create_backup(&api, &call(), &v1::CreateBackupRequest::default()).err().unwrap().code(),
        tonic::Code::InvalidArgument
    );
}

/// The store of this node is in memory: its copy is no database.
#[tokio::test]
async fn a_copy_that_is_not_what_it_should_be_is_not_given_away_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let api = specimen::api(specimen::waiting(&folder).await, FakeChain::new());
    let mut parts = create_backup(&api, &call(), &message()).unwrap();
    let first = parts.next().await.unwrap();
    assert_eq!(first.unwrap_err().code(), tonic::Code::DataLoss);
    assert!(parts.next().await.is_none());
    // The turn is given back, and the copy is gone.
    api.backups.turn().unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with("copy-")));
}
