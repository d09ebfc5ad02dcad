//! Who may speak to a node: nodes of its cluster, for themselves, to it.

use onespend::raft::{INSTANCE_METADATA_KEY, RaftConfig, TARGET_METADATA_KEY};
use onespend_proto::CLUSTER_METADATA_KEY;
use onespend_proto::peer::v1::raft_service_client::RaftServiceClient;
use onespend_proto::peer::v1::{Ballot, PreVoteRequest, Vote};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::certificates::Issued;
use crate::cluster::{CLUSTER, Cluster};

fn connect(cluster: &Cluster, to: u64, with: &Issued) -> RaftServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("https://{}", cluster.address(to))).unwrap();
    RaftServiceClient::new(endpoint.tls_config(with.client()).unwrap().connect_lazy())
}

async fn ask(client: &mut RaftServiceClient<Channel>, in_cluster: &str, to: u64, as_node: u64) -> Result<bool, Status> {
    ask_with(client, in_cluster, to, as_node, Some("disk-a")).await
}

async fn ask_with(
    client: &mut RaftServiceClient<Channel>,
    in_cluster: &str,
    to: u64,
    as_node: u64,
    disk: Option<&str>,
) -> Result<bool, Status> {
    let vote = Vote { term: 1_000, node_id: as_node, committed: false };
    let ballot = Ballot { vote: Some(vote), last_log_id: None, leadership_transfer: false };
    let mut request = Request::new(PreVoteRequest { ballot: Some(ballot) });
    request.metadata_mut().insert(CLUSTER_METADATA_KEY, in_cluster.parse().unwrap());
    request.metadata_mut().insert(TARGET_METADATA_KEY, to.into());
    if let Some(disk) = disk {
        request.metadata_mut().insert(INSTANCE_METADATA_KEY, disk.parse().unwrap());
    }
    let answer = client.pre_vote(request).await?.into_inner();
    Ok(answer.result.unwrap().granted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_of_this_cluster_are_heard_and_only_for_themselves() {
    let cluster = Cluster::start(1, RaftConfig::default()).await;
    let two = cluster.authority().issue(CLUSTER, "node/2");
    let mut client = connect(&cluster, 1, &two);

    // As it should be: the question is answered, and the leader keeps its office.
    assert!(!ask(&mut client, CLUSTER, 1, 2).await.unwrap());

    for disk in [None, Some("disk-b")] {
        let refused = ask_with(&mut client, CLUSTER, 1, 2, disk).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("data folder"), "{refused}");
    }
    let other_cluster = ask(&mut client, "other", 1, 2).await.unwrap_err();
    assert_eq!(other_cluster.code(), Code::FailedPrecondition, "{other_cluster}");
    assert!(other_cluster.message().contains("\"other\""), "{other_cluster}");
    let other_node = ask(&mut client, CLUSTER, 3, 2).await.unwrap_err();
    assert_eq!(other_node.code(), Code::FailedPrecondition, "{other_node}");
    let for_another = ask(&mut client, CLUSTER, 1, 3).await.unwrap_err();
    assert_eq!(for_another.code(), Code::PermissionDenied, "{for_another}");

    let twin = cluster.authority().issue(CLUSTER, "node/1");
    let twin = ask(&mut connect(&cluster, 1, &twin), CLUSTER, 1, 1).await.unwrap_err();
    assert_eq!(twin.code(), Code::FailedPrecondition, "{twin}");
    let caller = cluster.authority().issue(CLUSTER, "client/payouts");
    let caller = ask(&mut connect(&cluster, 1, &caller), CLUSTER, 1, 2).await.unwrap_err();
    assert_eq!(caller.code(), Code::PermissionDenied, "{caller}");

    // Another authority's certificate does not get past the handshake.
    let forged = crate::certificates::Authority::new().issue(CLUSTER, "node/2");
    let forged = ask(&mut connect(&cluster, 1, &forged), CLUSTER, 1, 2).await.unwrap_err();
    assert_eq!(forged.code(), Code::Unavailable, "{forged}");
    cluster.end().await;
}
