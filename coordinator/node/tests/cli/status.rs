//! The cluster in one screen, and handing leadership over.

use onespend_proto::{reason, v1};
use serde_json::Value;
use tonic::Code;

use crate::node::Node;
use crate::run::Cluster;

fn member(id: u64, address: &str) -> v1::Member {
    v1::Member { node_id: id, control_address: address.to_owned(), voter: true, ..Default::default() }
}

fn status(id: u64, members: &[v1::Member]) -> v1::GetStatusResponse {
    let role = if id == 1 { v1::NodeRole::Leader } else { v1::NodeRole::Replica };
    v1::GetStatusResponse {
        cluster_id: "demo".to_owned(),
        network: "regtest".to_owned(),
        node_id: id,
        role: role.into(),
        term: 2,
        leader_id: 1,
        members: members.to_vec(),
        quorum_age: (id == 1).then(prost_types::Duration::default),
        ..Default::default()
    }
}

#[test]
fn members_that_only_a_node_knows_are_asked_too() {
    let cluster = Cluster::start();
    let second = Node::start(&cluster.authority, 2);
    let members = [member(1, cluster.node.address()), member(2, second.address()), member(3, "127.0.0.1:9")];
    cluster.node.answer(status(1, &members));
    second.answer(status(2, &members));
    let json = cluster.run_as("operator/alice", &["status", "-o", "json"]).code(0).json();
    assert_eq!(cluster.node.caller(), "operator/alice");
    let roles: Vec<_> = (0..3).map(|at| json["nodes"][at]["status"]["role"].as_str()).collect();
    assert_eq!(roles, [Some("leader"), Some("replica"), None]);
    assert_eq!(json["nodes"][2]["address"], "127.0.0.1:9");
    assert!(json["nodes"][2]["error"].is_string());
    assert_eq!((json["cluster_id"].as_str(), json["leader_id"].as_u64()), (Some("demo"), Some(1)));
}

#[test]
fn data_ports_alone_show_the_tip_and_every_bitcoind() {
    let cluster = Cluster::start();
    std::fs::write(cluster.authority.file("endpoints"), format!("data = ['{}']", cluster.node.address())).unwrap();
    let shown = cluster.run(&["status"]).code(0);
    assert!(shown.out.contains("height 130") && shown.out.contains("in sync"), "{}", shown.out);
    assert!(shown.out.contains("node unreachable") && shown.out.contains("timed out"), "{}", shown.out);
    let json = cluster.run(&["status", "-o", "json"]).code(0).json();
    assert_eq!(json["nodes"][0]["bitcoind"]["state"], "in_sync");
}

#[test]
fn a_tip_that_no_quorum_confirms_is_unknown_and_exits_4() {
    let cluster = Cluster::start();
    std::fs::write(cluster.authority.file("endpoints"), format!("data = ['{}']", cluster.node.address())).unwrap();
    cluster.node.refuse_only::<v1::GetTipRequest>(Code::Unavailable, reason::NO_QUORUM);
    let status = ["status", "--timeout", "1s"];
    let shown = cluster.run(&status).code(4);
    assert!(shown.out.starts_with("tip  unknown: no quorum: 1 of 2 nodes answer\n"), "{shown:?}");
    assert!(shown.out.contains("in sync") && shown.err.contains("the tip is not known: "), "{shown:?}");
    assert!(shown.err.contains("--max-lag"), "{shown:?}");
    let json = cluster.run(&[&status[..], &["-o", "json"]].concat()).code(4).json();
    assert_eq!((&json["tip"], &json["tip_unknown"]), (&Value::Null, &"no quorum: 1 of 2 nodes answer".into()));

    cluster.node.refuse_only::<v1::GetTipRequest>(Code::FailedPrecondition, reason::CHAIN_NOT_SYNCED);
    let young = cluster.run(&status).code(0);
    assert!(young.out.starts_with("tip  no block yet\n"), "{young:?}");
}

#[test]
fn a_refusal_of_status_is_no_silence() {
    let cluster = Cluster::start();
    cluster.node.refuse(Code::PermissionDenied, reason::ROLE, &[("caller", "client/payouts")], &[]);
    let refused = cluster.run(&["status"]).code(1);
    assert!(refused.err.contains("reason: ROLE"), "{refused:?}");
    assert_eq!(cluster.node.all::<v1::GetNodeViewsRequest>().len(), 1, "the data ports were asked instead");
}

/// The certificate is fine, and of this cluster; it is not an operator's.
#[test]
fn a_client_at_a_control_port_is_told_that_it_needs_an_operator() {
    let cluster = Cluster::start();
    cluster.node.refuse_a_client();
    let refused = cluster.run(&["status"]).code(1);
    assert!(refused.err.contains("status over control ports needs an operator: --as operator/alice"), "{refused:?}");
    assert!(refused.err.contains("a data port (7800"), "whoever meant to pay: {refused:?}");
    assert!(!refused.err.contains("pki issue"), "{refused:?}");
    let refused = cluster.run(&["cluster", "transfer"]).code(1);
    assert!(refused.err.contains("--as operator/alice") && !refused.err.contains("  to: "), "{refused:?}");
    let named = cluster.run(&["cluster", "transfer", "--to", "2"]).code(1);
    assert!(named.err.contains("  to: 2\n"), "{named:?}");
}

#[test]
fn members_are_listed_added_promoted_and_removed() {
    let cluster = Cluster::start();
    let alice = "operator/alice";
    let addresses = ["--control-address", "10.0.0.4:7801", "--data-address", "10.0.0.4:7800"];
    let added = cluster.run_as(alice, &[&["cluster", "add", "4"], &addresses[..]].concat()).code(0);
    assert!(added.out.contains("learner") && added.out.contains("10.0.0.4:7801"), "{added:?}");
    let asked = cluster.node.last::<v1::AddLearnerRequest>();
    assert_eq!((asked.node_id, asked.control_address.as_str()), (4, "10.0.0.4:7801"));
    let json = cluster.run_as(alice, &["cluster", "promote", "4", "-o", "json"]).code(0).json();
    assert_eq!((json["members"][0]["voter"].as_bool(), json["applied_index"].as_u64()), (Some(true), Some(84)));
    assert_eq!(json["warnings"], serde_json::json!(["node 4: its bitcoind is not in sync"]));
    assert_eq!(cluster.node.last::<v1::PromoteLearnerRequest>().node_id, 4);
    cluster.run_as(alice, &["cluster", "remove", "2"]).code(0);
    assert_eq!(cluster.node.last::<v1::RemoveNodeRequest>().node_id, 2);
    cluster.run_as(alice, &["cluster", "members"]).code(0);
    assert!(cluster.run_as(alice, &["cluster", "remove", "0"]).code(2).err.contains("0 is not in"));
}

#[test]
fn nodes_are_drained_undrained_and_moved() {
    let cluster = Cluster::start();
    let alice = "operator/alice";
    let drained = cluster.run_as(alice, &["cluster", "drain", "2"]).code(0);
    assert!(drained.out.starts_with("node 2 is drained") && drained.out.contains("node 1 leads"), "{drained:?}");
    assert_eq!(cluster.node.last::<v1::DrainNodeRequest>().node_id, 2);
    let json = cluster.run_as(alice, &["cluster", "undrain", "2", "-o", "json"]).code(0).json();
    assert_eq!((json["draining"].as_bool(), json["leader_id"].as_u64()), (Some(false), Some(1)));
    assert_eq!(cluster.node.last::<v1::UndrainNodeRequest>().node_id, 2);
    let addresses = ["--control-address", "10.0.0.9:7801", "--data-address", "10.0.0.9:7800"];
    cluster.run_as(alice, &[&["cluster", "move", "4"], &addresses[..]].concat()).code(0);
    let asked = cluster.node.last::<v1::MoveNodeRequest>();
    assert_eq!((asked.node_id, asked.data_address.as_str()), (4, "10.0.0.9:7800"));
}

#[test]
fn past_leaders_are_listed() {
    let cluster = Cluster::start();
    let shown = cluster.run_as("operator/alice", &["cluster", "history"]).code(0);
    assert!(shown.out.contains("2023-11-14T22:13:20Z") && shown.out.contains("1 h"), "{}", shown.out);
    let json = cluster.run_as("operator/alice", &["cluster", "history", "-o", "json"]).code(0).json();
    let terms: Vec<_> = (0..2).map(|at| json["leadership"][at]["term"].as_u64()).collect();
    assert_eq!(terms, [Some(1), Some(2)]);
    assert_eq!(json["leadership"][1]["leader_id"], 1);
}

#[test]
fn a_watched_status_is_shown_again_and_again_and_ends_well_when_it_is_interrupted() {
    let cluster = Cluster::start();
    let mut watch = cluster.begin_as("operator/alice", &["status", "--watch", "1", "-o", "json"]);
    for _ in 0..2 {
        let line = watch.next_line();
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["leader_id"], 1, "{line}");
    }
    assert_eq!(watch.interrupt(), 0);

    let mut watch = cluster.begin_as("operator/alice", &["status", "--watch"]);
    let mut blocks = 0;
    while blocks < 2 {
        blocks += usize::from(watch.next_line().starts_with("cluster"));
    }
    assert_eq!(watch.interrupt(), 0);
    assert!(cluster.run_as("operator/alice", &["status", "--watch", "0"]).code(2).err.contains("0 is not in"));
}

#[test]
fn a_status_without_a_quorum_says_so_first_and_exits_4() {
    let cluster = Cluster::start();
    let members = [member(1, "127.0.0.1:9"), member(2, cluster.node.address()), member(3, "127.0.0.1:9")];
    cluster.node.answer(status(2, &members));
    let shown = cluster.run_as("operator/alice", &["status"]).code(4);
    let first = "NO QUORUM: 1 of 3 voters answer, nothing can be reserved or paid\n";
    assert!(shown.out.starts_with(first) && shown.out.contains("as others last knew"), "{shown:?}");
    assert!(shown.err.contains("no quorum: 1 of 3 voters answer") && shown.err.contains("  remedy: "), "{shown:?}");

    // Who watches goes on to look: the next answer is a leader's.
    cluster.node.answer(status(2, &members));
    let mut watch = cluster.begin_as("operator/alice", &["status", "--watch", "1"]);
    assert!(watch.next_line().starts_with("NO QUORUM: "));
    for _ in 0..2 {
        while !watch.next_line().starts_with("cluster") {}
    }
    assert_eq!(watch.interrupt(), 0);
}

#[test]
fn a_status_without_a_leader_says_so_first_and_exits_4() {
    let cluster = Cluster::start();
    let second = Node::start(&cluster.authority, 2);
    let members = [member(1, cluster.node.address()), member(2, second.address()), member(3, "127.0.0.1:9")];
    let votes = |id| {
        let role = v1::NodeRole::Candidate.into();
        v1::GetStatusResponse { role, leader_id: 0, quorum_age: None, ..status(id, &members) }
    };
    cluster.node.answer(votes(1));
    second.answer(votes(2));
    let shown = cluster.run_as("operator/alice", &["status"]).code(4);
    let first = "NO LEADER: 2 of 3 voters answer and none leads a quorum, nothing can be reserved or paid\n";
    assert!(shown.out.starts_with(first) && shown.out.contains("none: no writes"), "{shown:?}");
    assert!(shown.err.contains("no leader: 2 of 3 voters answer") && shown.err.contains("  remedy: "), "{shown:?}");
}

#[test]
fn max_lag_is_said_to_matter_with_data_ports_only() {
    let help = crate::run::onespend(&["status", "--help"]).code(0).out;
    let told = help.split("--max-lag").nth(1).unwrap_or_default();
    assert!(told.trim_start().starts_with("<TIME>") && told.contains("With data ports alone"), "{help}");
}

#[test]
fn leadership_is_handed_over() {
    let cluster = Cluster::start();
    let done = cluster.run_as("operator/alice", &["cluster", "transfer", "--to", "2"]).code(0);
    assert_eq!(done.out, "node 2 leads\n");
    assert_eq!(cluster.node.last::<v1::TransferLeadershipRequest>().node_id, 2);
    let json = cluster.run_as("operator/alice", &["cluster", "transfer", "-o", "json"]).code(0).json();
    assert_eq!((json["leader_id"].as_u64(), json["term"].as_u64()), (Some(2), Some(3)));
    assert_eq!(cluster.node.last::<v1::TransferLeadershipRequest>().node_id, 0);
}

#[test]
fn a_leader_that_should_not_lead_is_warned_of() {
    let cluster = Cluster::start();
    let warnings = || vec!["it should not lead now: DISK_LOW".to_owned()];
    let handed = || v1::TransferLeadershipResponse { leader_id: 2, applied_index: 81, term: 3, warnings: warnings() };
    let drained = v1::DrainNodeResponse { leader_id: 2, applied_index: 86, term: 3, warnings: warnings() };
    let transfer = ["cluster", "transfer", "--to", "2"];
    let told = "\nwarning: node 2: it should not lead now: DISK_LOW\n";
    cluster.node.answer(handed());
    let shown = cluster.run_as("operator/alice", &transfer).code(0);
    assert!(shown.out.starts_with("node 2 leads") && shown.out.ends_with(told), "{shown:?}");
    cluster.node.answer(drained);
    let shown = cluster.run_as("operator/alice", &["cluster", "drain", "1"]).code(0);
    assert!(shown.out.starts_with("node 1 is drained") && shown.out.ends_with(told), "{shown:?}");
    cluster.node.answer(handed());
    let json = cluster.run_as("operator/alice", &[&transfer[..], &["-o", "json"]].concat()).code(0).json();
    assert_eq!(json["warnings"], serde_json::json!(["node 2: it should not lead now: DISK_LOW"]));
}

/// Without a name the next leader would hand on again.
#[test]
fn a_hand_over_that_has_no_answer_is_repeated_only_where_its_node_is_named() {
    let cluster = Cluster::start();
    cluster.node.refuse_only::<v1::TransferLeadershipRequest>(Code::Unavailable, reason::RESULT_UNKNOWN);
    let transfer = ["cluster", "transfer", "--timeout", "1s"];
    let unnamed = cluster.run_as("operator/alice", &transfer).code(3);
    assert!(unnamed.err.contains("look who leads") && !unnamed.err.contains("  to: "), "{unnamed:?}");
    assert_eq!(cluster.node.all::<v1::TransferLeadershipRequest>().len(), 1);
    let named = cluster.run_as("operator/alice", &[&transfer[..], &["--to", "2"]].concat()).code(3);
    assert!(named.err.contains("--request-id") && named.err.contains("  to: 2\n"), "{named:?}");
    assert!(cluster.node.all::<v1::TransferLeadershipRequest>().len() > 2);
}
