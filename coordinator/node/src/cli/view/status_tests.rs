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

/// A node whose paths answer so; empty is yes.
fn health([primary, replica, ready]: [&str; 3], failing_checks: Vec<v1::FailingCheck>) -> v1::NodeHealth {
    let answer = |reason: &str| Some(v1::HealthAnswer { ok: reason.is_empty(), reason: reason.to_owned() });
    v1::NodeHealth { primary: answer(primary), replica: answer(replica), ready: answer(ready), failing_checks }
}

fn failing(name: &str, purpose: v1::CheckPurpose, value: &str) -> v1::FailingCheck {
    v1::FailingCheck { name: name.to_owned(), purpose: purpose.into(), value: value.to_owned() }
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
    assert!(
        text.contains("200 settled") && text.contains("demo, regtest, new wallets settle after 6 blocks"),
        "{text}"
    );
    let line =
        |start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("1 ").contains("leader") && line("1 ").contains("2 h 5 min"), "{text}");
    // Two entries behind what the leader has committed.
    assert_eq!(line("2 ").split_whitespace().collect::<Vec<_>>()[..5], ["2", "replica", "7", "98", "2"]);
    assert!(line("3 ").contains("no answer") && text.contains("no answer from 10.0.0.3:7801: no route"), "{text}");
    assert!(text.contains("warning: node 2: bitcoind is behind") && !text.contains("alarm"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

/// The leader is fine but for one check, and a check that only reports has much to say; the second node is a replica like
/// any other; the third is being drained.
fn unfit() -> Cluster {
    let checks = vec![
        failing("fsync-latency", v1::CheckPurpose::Primary, "1503 ms"),
        failing("proxy", v1::CheckPurpose::Report, &"tcp connect error: connection refused ".repeat(8)),
    ];
    let nodes = [
        (v1::NodeRole::Leader, health(["CHECK_FAILED", "IS_LEADER", ""], checks)),
        (v1::NodeRole::Replica, health(["NOT_LEADER", "", ""], vec![])),
        (v1::NodeRole::Replica, health(["DRAINING"; 3], vec![])),
    ];
    let bitcoind = || v1::BitcoindView {
        state: v1::BitcoindState::InSync.into(),
        tip: Some(v1::BlockRef { height: 812_345, hash: "0".repeat(64), time: None }),
        peers: 8,
        ..Default::default()
    };
    let shown = (1..).zip(nodes).map(|(id, (role, health))| {
        let draining = health.ready.as_ref().is_some_and(|ready| ready.reason == "DRAINING");
        let (bitcoind, health) = (Some(bitcoind()), Some(health));
        Ok(v1::GetStatusResponse { bitcoind, draining, health, ..answer(id, role, 1) })
    });
    asked(shown.collect())
}

#[test]
fn a_leader_that_balancers_are_told_to_leave_is_no_healthy_one() {
    let text = unfit().text();
    let word = |node: &str| {
        let row = text.lines().find(|line| line.trim_start().starts_with(node)).unwrap_or_default().to_owned();
        ["primary", "replica", "ready", "no"]
            .into_iter()
            .find(|word| row.split_whitespace().skip(2).any(|it| it == *word))
    };
    assert_eq!([word("1 "), word("2 "), word("3 ")], [Some("ready"), Some("replica"), Some("no")], "{text}");
    let told = "health: node 1: /primary CHECK_FAILED, /replica IS_LEADER, /readyz 200";
    assert!(text.lines().any(|line| line == told), "{text}");
    let told = "health: node 3: /primary DRAINING, /replica DRAINING, /readyz DRAINING";
    assert!(text.lines().any(|line| line == told) && !text.contains("health: node 2"), "{text}");
    let row = |name: &str| {
        let row = text.lines().find(|line| line.contains(name)).unwrap_or_default();
        row.split_whitespace().take(5).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("fsync-latency"), "1 fsync-latency primary 1503 ms", "{text}");
    assert_eq!(row("proxy"), "1 proxy report tcp connect", "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn json_says_what_each_path_answers_and_which_checks_fail() {
    let json = serde_json::to_value(unfit()).unwrap();
    let of = |node: usize| &json["nodes"][node]["status"]["health"];
    assert_eq!(of(0)["primary"], serde_json::json!({ "ok": false, "reason": "CHECK_FAILED" }));
    assert_eq!(of(0)["ready"], serde_json::json!({ "ok": true, "reason": null }));
    let first = serde_json::json!({ "name": "fsync-latency", "purpose": "primary", "value": "1503 ms" });
    assert_eq!(of(0)["failing_checks"][0], first);
    assert_eq!(of(0)["failing_checks"][1]["purpose"], "report");
    assert_eq!((&of(1)["replica"]["ok"], &of(1)["failing_checks"]), (&true.into(), &serde_json::json!([])));
}

/// While versions are mixed.
#[test]
fn a_node_of_an_earlier_version_says_nothing_of_its_health() {
    let cluster = asked(vec![Ok(answer(1, v1::NodeRole::Leader, 1))]);
    let text = cluster.text();
    assert!(text.contains("HEALTH") && !text.contains("health:") && !text.contains("FAILING"), "{text}");
    let json = serde_json::to_value(&cluster).unwrap();
    assert_eq!(json["nodes"][0]["status"]["health"], serde_json::Value::Null);
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
fn too_few_voters_are_told_first_but_not_where_a_leader_is_heard() {
    let alone = |told: [&str; 3]| {
        let health = Some(health(told, vec![]));
        let survivor = v1::GetStatusResponse { health, ..answer(2, v1::NodeRole::Replica, 1) };
        asked(vec![Err("no route".to_owned()), Ok(survivor), Err("no route".to_owned())])
    };
    let lost = alone(["NOT_LEADER", "NO_LEADER", "NO_LEADER"]);
    let first = "NO QUORUM: 1 of 3 voters answer, nothing can be reserved or paid";
    assert_eq!(lost.text().lines().next(), Some(first));
    let told = serde_json::json!({ "voters": 3, "answering": 1, "lost": true, "leaderless": false });
    assert_eq!(serde_json::to_value(&lost).unwrap()["quorum"], told);
    // The others are out of reach from here only.
    for told in [["NOT_LEADER", "", ""], ["NOT_LEADER", "CHECK_FAILED", "CHECK_FAILED"]] {
        let text = alone(told).text();
        assert!(text.starts_with("cluster") && !text.contains("QUORUM"), "{text}");
    }
}

#[test]
fn a_leader_whose_followers_do_not_answer_has_a_quorum_as_long_as_one_acknowledges_it() {
    let five = |seconds| {
        let quorum_age = Some(prost_types::Duration { seconds, nanos: 0 });
        let (members, health) = ((1..=5).map(member).collect::<Vec<_>>(), Some(health(["NOT_LEADER", "", ""], vec![])));
        let leader = answer(1, v1::NodeRole::Leader, 1);
        let leader = v1::GetStatusResponse { quorum_age, members: members.clone(), ..leader };
        // It hears that leader, who knows better.
        let replica = v1::GetStatusResponse { health, members, ..answer(2, v1::NodeRole::Replica, 1) };
        let cluster = asked(vec![Ok(leader), Ok(replica), Err("no route".to_owned())]);
        cluster.complaint().map(|lack| format!("{}: {}", lack.what, lack.why))
    };
    assert_eq!(five(1), None);
    let lost = "no quorum: 2 of 5 voters answer, nothing can be reserved or paid";
    assert_eq!(five(60).as_deref(), Some(lost));
}

#[test]
fn enough_voters_of_which_none_leads_or_hears_a_leader_are_told_first() {
    let votes = |id, told: [&str; 3]| {
        let health = Some(health(told, vec![]));
        Ok(v1::GetStatusResponse { health, leader_id: 0, ..answer(id, v1::NodeRole::Candidate, 1) })
    };
    let hears_none = ["NOT_LEADER", "NO_LEADER", "NO_LEADER"];
    let leaderless = asked(vec![Err("no route".to_owned()), votes(2, hears_none), votes(3, hears_none)]);
    let first = "NO LEADER: 2 of 3 voters answer and none leads a quorum, nothing can be reserved or paid";
    let text = leaderless.text();
    assert_eq!(text.lines().next(), Some(first));
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let told = serde_json::json!({ "voters": 3, "answering": 2, "lost": false, "leaderless": true });
    assert_eq!(serde_json::to_value(&leaderless).unwrap()["quorum"], told);
    // One of them hears a leader that only does not answer here.
    let led = asked(vec![Err("no route".to_owned()), votes(2, hears_none), votes(3, ["NOT_LEADER", "", ""])]);
    assert_eq!(led.complaint(), None);
}

/// All answer, and do not hear each other: the old leader says of itself that it leads.
#[test]
fn a_leader_that_no_quorum_acknowledges_leads_nobody() {
    let of = |seconds| {
        let quorum_age = Some(prost_types::Duration { seconds, nanos: 0 });
        let leader = v1::GetStatusResponse { quorum_age, ..answer(1, v1::NodeRole::Leader, 1) };
        let replicas = [2, 3].map(|id| Ok(answer(id, v1::NodeRole::Candidate, 1)));
        asked([Ok(leader)].into_iter().chain(replicas).collect()).complaint().map(|lack| lack.what)
    };
    assert_eq!((of(1), of(60)), (None, Some("no leader")));
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
fn frozen_wallets_have_a_line_that_says_how_to_find_them() {
    let of = |frozen_wallets| {
        asked(vec![Ok(v1::GetStatusResponse { frozen_wallets, ..answer(1, v1::NodeRole::Leader, 1) })])
    };
    assert!(!of(0).text().contains("frozen"), "{}", of(0).text());
    for (count, told) in [(1, "frozen: 1 wallet;"), (2, "frozen: 2 wallets;")] {
        let text = of(count).text();
        assert!(text.lines().any(|line| line.starts_with(told) && line.contains("onespend wallet list")), "{text}");
        let json = serde_json::to_value(of(count)).unwrap();
        assert_eq!(json["nodes"][0]["status"]["frozen_wallets"], count);
    }
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
