//! One screen that tells the truth also when some nodes do not answer or disagree.
#![allow(clippy::unwrap_used)]

use super::*;

fn member(id: u64) -> v1::Member {
    v1::Member {
        node_id: id,
        control_address: format!("10.0.0.{id}:7801"),
        data_address: format!("10.0.0.{id}:7800"),
        voter: true,
        ..Default::default()
    }
}

fn answer(id: u64, role: v1::NodeRole, hash: u8) -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        cluster_id: "demo".to_owned(),
        network: "regtest".to_owned(),
        finality_depth: 6,
        node_id: id,
        role: role.into(),
        term: 7,
        leader_id: 1,
        members: (1..=3).map(member).collect(),
        committed_index: 100,
        applied_index: 100 - id,
        state_hash: Some(v1::StateHash { index: 90, hash: vec![hash; 32].into() }),
        payments: vec![v1::PaymentCount { state: v1::PaymentState::Settled.into(), count: 200 }],
        version: "0.1.0".to_owned(),
        uptime: Some(prost_types::Duration { seconds: 7_500, nanos: 0 }),
        quorum_age: (role == v1::NodeRole::Leader).then_some(prost_types::Duration { seconds: 0, nanos: 12_000_000 }),
        feature_level: 1,
        known_feature_level: 1,
        warnings: if id == 2 { vec!["bitcoind is behind".to_owned()] } else { Vec::new() },
        ..Default::default()
    }
}

fn asked(answers: Vec<Result<v1::GetStatusResponse, String>>) -> Cluster {
    Cluster::new((1..).map(|id: u64| format!("10.0.0.{id}:7801")).zip(answers).collect())
}

#[test]
fn every_node_has_its_line() {
    let leader = answer(1, v1::NodeRole::Leader, 1);
    let cluster = asked(vec![Ok(leader), Ok(answer(2, v1::NodeRole::Replica, 1)), Err("no route".to_owned())]);
    let text = cluster.text();
    assert!(text.contains("node 1, term 7, quorum 12 ms ago"), "{text}");
    assert!(text.contains("200 settled") && text.contains("demo, regtest, settled after 6 blocks"), "{text}");
    let line =
        |start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("1 ").contains("leader") && line("1 ").contains("2 h 5 min"), "{text}");
    // Two entries behind what the leader has committed.
    assert_eq!(line("2 ").split_whitespace().collect::<Vec<_>>()[..5], ["2", "replica", "7", "98", "2"]);
    assert!(line("3 ").contains("no answer") && text.contains("no answer from 10.0.0.3:7801: no route"), "{text}");
    assert!(text.contains("warning: node 2: bitcoind is behind") && !text.contains("alarm"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn the_leader_is_shown_with_its_age_and_a_pair_of_voters_with_a_warning() {
    let age = Some(prost_types::Duration { seconds: 7_500, nanos: 0 });
    let leader = v1::GetStatusResponse { leader_age: age, ..answer(1, v1::NodeRole::Leader, 1) };
    let text = asked(vec![Ok(leader.clone())]).text();
    assert!(text.contains("node 1, term 7, for 2 h 5 min, quorum 12 ms ago"), "{text}");
    assert!(!text.contains("two voters"), "{text}");
    let pair = v1::GetStatusResponse { members: vec![member(1), member(2)], ..leader };
    let text = asked(vec![Ok(pair)]).text();
    assert!(text.contains("warning: with two voters"), "{text}");
}

#[test]
fn a_leader_that_does_not_answer_is_shown_as_what_the_others_last_knew() {
    let dead = asked(vec![Err("no route".to_owned()), Ok(answer(2, v1::NodeRole::Replica, 1))]);
    let text = dead.text();
    assert!(text.contains("node 1, term 7, as others last knew; it does not say so itself"), "{text}");
}

#[test]
fn a_feature_level_that_could_be_higher_names_the_nodes_that_wait_for_a_later_version() {
    let knows = |id, level| {
        let role = if id == 1 { v1::NodeRole::Leader } else { v1::NodeRole::Replica };
        Ok(v1::GetStatusResponse { known_feature_level: level, ..answer(id, role, 1) })
    };
    let line = |cluster: &Cluster| {
        let text = cluster.text();
        text.lines().find(|line| line.starts_with("feature level")).unwrap_or_default().to_owned()
    };
    let upgraded = asked(vec![knows(1, 2), knows(2, 1), knows(3, 1)]);
    assert!(line(&upgraded).ends_with("1, until a later version runs on node 2, node 3"), "{}", line(&upgraded));
    assert!(upgraded.text().lines().all(|line| line.chars().count() <= 100), "{}", upgraded.text());
    let row = upgraded.text().lines().find(|line| line.trim_start().starts_with("1 ")).unwrap_or_default().to_owned();
    assert!(row.split_whitespace().rev().take(2).eq(["0.1.0", "2"]), "{row}");
    let silent = asked(vec![knows(1, 2), knows(2, 2), Err("no route".to_owned())]);
    assert!(line(&silent).contains("1, and rises once every member"), "{}", line(&silent));
    assert!(line(&asked(vec![knows(1, 1), knows(2, 1)])).ends_with("  1"));
}

#[test]
fn nodes_that_differ_in_their_state_are_an_alarm() {
    let cluster = asked(vec![Ok(answer(1, v1::NodeRole::Leader, 1)), Ok(answer(2, v1::NodeRole::Replica, 2))]);
    assert!(cluster.text().contains("alarm: nodes 1 and 2 differ in their state at index 90"), "{}", cluster.text());
}

#[test]
fn json_has_the_names_of_the_api() {
    let cluster = asked(vec![Ok(answer(1, v1::NodeRole::Leader, 1)), Err("no route".to_owned())]);
    let json = serde_json::to_value(&cluster).unwrap();
    assert_eq!(json["leader_id"], 1);
    assert_eq!(json["feature_level"], 1);
    assert_eq!(json["nodes"][0]["status"]["known_feature_level"], 1);
    assert_eq!(json["nodes"][0]["status"]["role"], "leader");
    assert_eq!(json["nodes"][0]["status"]["payments"]["settled"], 200);
    assert_eq!(json["nodes"][0]["status"]["uptime_ms"], 7_500_000);
    assert_eq!(json["nodes"][0]["status"]["members"][2]["matched_index"], serde_json::Value::Null);
    assert_eq!(json["nodes"][1]["error"], "no route");
}

#[test]
fn a_cluster_without_a_leader_says_so() {
    let mut alone = answer(3, v1::NodeRole::Candidate, 1);
    alone.leader_id = 0;
    let cluster = asked(vec![Ok(alone)]);
    assert!(cluster.text().contains("none: no writes"), "{}", cluster.text());
    assert_eq!(serde_json::to_value(&cluster).unwrap()["leader_id"], serde_json::Value::Null);
}

#[test]
fn a_node_that_runs_on_after_its_removal_is_shown_as_such() {
    let mut leader = answer(1, v1::NodeRole::Leader, 1);
    leader.members.retain(|member| member.node_id != 2);
    let joining = v1::GetStatusResponse { members: Vec::new(), ..answer(3, v1::NodeRole::Learner, 1) };
    let removed = answer(2, v1::NodeRole::Replica, 1);
    let cluster = asked(vec![Ok(leader), Ok(removed.clone()), Ok(joining)]);
    let roles: Vec<&str> = cluster.nodes.iter().filter_map(|node| Some(node.status.as_ref()?.role)).collect();
    assert_eq!(roles, ["leader", "removed", "learner"]);
    assert!(cluster.text().contains("warning: node 2 was removed and still runs"), "{}", cluster.text());
    // Without a leader nobody can say.
    let alone = asked(vec![Ok(removed)]);
    assert_eq!(alone.nodes[0].status.as_ref().unwrap().role, "replica");
}
