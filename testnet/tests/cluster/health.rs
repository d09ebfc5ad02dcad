//! The health port of every node, asked as a load balancer, Prometheus and a person would.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use onespend_testnet::cluster::Addresses;
use onespend_testnet::health::{self, Answer};
use onespend_testnet::oracle::endpoints::{ELECTION_TIMEOUT, PrimaryWatch, longest_overlap};
use onespend_testnet::programs;

use crate::health_watch::Watches;
use crate::scene::{NODES, Scene, eventually, need};

const ASK: Duration = Duration::from_secs(2);
/// So many rounds in a row must be exactly right before a phase counts as seen.
const STEADY_ROUNDS: usize = 10;

/// What a node is, and so what it has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Leader,
    Replica,
    Dead,
}

/// Each path, what a leader says, and what a replica says; `Some` is a 503 with this reason.
const PICTURE: [(&str, Option<&str>, Option<&str>); 11] = [
    ("/livez", None, None),
    ("/startupz", None, None),
    ("/readyz", None, None),
    ("/readyz?bitcoind=1", None, None),
    ("/leader", None, Some("NOT_LEADER")),
    ("/primary", None, Some("NOT_LEADER")),
    ("/read-write", None, Some("NOT_LEADER")),
    ("/replica", Some("IS_LEADER"), None),
    ("/read-only", None, None),
    ("/bitcoind", None, None),
    ("/metrics", None, None),
];

fn get(node: Addresses, path: &str) -> Option<Answer> {
    health::get(node.health, path, ASK).ok()
}

/// Role and term as `/status` has them.
fn role(node: Addresses) -> Option<(String, u64)> {
    let status = get(node, "/status")?.json();
    Some((status["role"].as_str()?.to_owned(), status["term"].as_u64()?))
}

/// Whether a node plays its part on every path; if not, what differs. What nobody may ever say fails at once: a yes
/// that its role forbids, a no without a reason, a yes with one, and anything but yes or no.
fn plays(node: Addresses, part: Part) -> Result<(), String> {
    if part == Part::Dead {
        let answered = PICTURE.iter().find(|(path, _, _)| get(node, path).is_some());
        return need(answered.is_none(), || format!("a dead node answers {answered:?}"));
    }
    let before = role(node);
    let mut differs = Vec::new();
    let mut lies = Vec::new();
    for (path, as_leader, as_replica) in PICTURE {
        let expected = if part == Part::Leader { as_leader } else { as_replica };
        let Some(answer) = get(node, path) else {
            differs.push(format!("{path}: no answer"));
            continue;
        };
        let reason = well_formed(path, &answer);
        if reason.as_deref() != expected {
            differs.push(format!("{path}: {reason:?} instead of {expected:?}"));
        }
        let forbidden = match before.as_ref().map(|(role, _)| role.as_str()) {
            Some("leader") => as_leader,
            Some(_) => as_replica,
            None => None,
        };
        if reason.is_none() && forbidden.is_some() {
            lies.push(format!("{path}: 200 from {before:?}"));
        }
    }
    let after = role(node);
    assert!(before != after || lies.is_empty(), "{lies:?}");
    let role_fits = after.as_ref().is_some_and(|(role, _)| (role == "leader") == (part == Part::Leader));
    need(before == after && role_fits && differs.is_empty(), || format!("{part:?} is {before:?}: {differs:?}"))
}

/// The reason of a 503; `None` of a 200.
fn well_formed(path: &str, answer: &Answer) -> Option<String> {
    let body = answer.json();
    match answer.status {
        200 if path == "/metrics" => None,
        200 => {
            assert!(body["reason"].is_null(), "{path}: 200 with a reason: {body}");
            assert!(body["role"].is_string() && body["term"].is_u64(), "{path}: {body}");
            None
        }
        503 => {
            let reason = body["reason"].as_str().unwrap_or_default();
            assert!(!reason.is_empty(), "{path}: 503 without a reason: {body}");
            for field in ["role", "term", "leader", "applied_lag", "bitcoind"] {
                assert!(body.get(field).is_some(), "{path}: 503 without {field}: {body}");
            }
            Some(reason.to_owned())
        }
        other => panic!("{path}: {other}: {}", answer.body),
    }
}

/// One look at all nodes. Who leads, if everybody plays the part that follows from it; while nobody leads, the survivors
/// are asked all the same, and [`plays`] fails on a lie.
fn round(scene: &Scene, dead: Option<usize>) -> Result<usize, String> {
    let leads = |index: &usize| get(scene.addresses(*index), "/primary").is_some_and(|answer| answer.is_ok());
    let leader = (0..NODES).find(leads);
    let play = |index| {
        let part = match Some(index) {
            this if this == dead => Part::Dead,
            this if this == leader => Part::Leader,
            _ => Part::Replica,
        };
        plays(scene.addresses(index), part).err().map(|why| format!("node {}: {why}", index + 1))
    };
    let differs: Vec<String> = (0..NODES).filter_map(play).collect();
    need(differs.is_empty(), || differs.join("; "))?;
    leader.ok_or_else(|| "nobody leads".to_owned())
}

/// Waits until one node leads and every node has played its part for some rounds in a row.
async fn settled_leader(scene: &Scene, dead: Option<usize>, what: &str) -> usize {
    let mut streak = (0, None);
    eventually(what, async || {
        let seen = round(scene, dead);
        let before = streak.1.filter(|leader| seen.as_ref() == Ok(leader));
        streak = (if before.is_some() { streak.0 + 1 } else { 1 }, seen.clone().ok());
        let leader = seen?;
        need(streak.0 >= STEADY_ROUNDS, || format!("{} rounds", streak.0)).map(|()| leader)
    })
    .await
}

/// Prometheus's own opinion of what the nodes say, and that the leader, and nobody else, counts itself as leader and as
/// primary.
async fn metrics_are_good(scene: &Scene, leader: usize, dead: Option<usize>) {
    let running: Vec<usize> = (0..NODES).filter(|index| Some(*index) != dead).collect();
    for index in &running {
        let said = promtool_says(&get(scene.addresses(*index), "/metrics").unwrap().body);
        assert_eq!(said, "", "node {}", index + 1);
    }
    for wanted in ["onespend_raft_is_leader 1", "onespend_primary 1"] {
        eventually("the metrics say who leads and takes spends", async || {
            let counts_itself = |index: &&usize| {
                let text = get(scene.addresses(**index), "/metrics").unwrap().body;
                text.lines().any(|line| line == wanted)
            };
            let leaders: Vec<usize> = running.iter().filter(counts_itself).copied().collect();
            need(leaders == [leader], || format!("{leaders:?} say {wanted}, {leader} leads"))
        })
        .await;
    }
}

/// Empty when it has nothing to complain about.
fn promtool_says(metrics: &str) -> String {
    let mut check = Command::new(programs::in_path("promtool").unwrap())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if output.status.success() { said } else { format!("{}: {said}", output.status) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_the_truth_before_during_and_after_a_failover() {
    let mut scene = Scene::start("health");
    let watch = PrimaryWatch::start(scene.cluster.nodes().iter().map(|node| node.addresses().health));
    let first = settled_leader(&scene, None, "before the failover").await;
    metrics_are_good(&scene, first, None).await;
    let watches = Watches::start(&scene);
    watches.follow(first, None, "before the failover").await;

    scene.node(first).kill().unwrap();
    // While nobody leads, the survivors are asked all the time; `plays` fails at once on a lie.
    let second = settled_leader(&scene, Some(first), "after the failover").await;
    assert_ne!(first, second);
    watches.follow(second, Some(first), "after the failover").await;
    assert!(watches.told(second, "primary").len() >= 2, "it was not always primary");
    metrics_are_good(&scene, second, Some(first)).await;

    probe_often(&scene, first);
    scene.node(first).restart().unwrap();
    let third = settled_leader(&scene, None, "after the dead node came back").await;
    metrics_are_good(&scene, third, None).await;
    watches.follow(third, Some(first), "after the dead node came back").await;

    bitcoind_is_seen_to_go_and_come(&mut scene, first).await;
    one_at_a_time(&watch, first, second);
    scene.finish();
}

/// From its next start on, a node notices within seconds that its bitcoind is gone.
fn probe_often(scene: &Scene, index: usize) {
    let file = scene.cluster.nodes()[index].config_file();
    let text = fs::read_to_string(&file).unwrap();
    let often = text.replace("min_peers = 0\n", "min_peers = 0\npoll_ms = 100\ntimeout_ms = 1000\n");
    assert_ne!(text, often);
    fs::write(&file, often).unwrap();
}

async fn bitcoind_is_seen_to_go_and_come(scene: &mut Scene, index: usize) {
    let node = scene.addresses(index);
    scene.cluster.bitcoind(index).unwrap().kill().unwrap();
    eventually("the loss of a bitcoind shows", async || {
        let gone = get(node, "/bitcoind").unwrap();
        let reason = well_formed("/bitcoind", &gone);
        let why = gone.json()["bitcoind"]["reason"].clone();
        need(reason.as_deref() == Some("BITCOIND_NOT_IN_SYNC") && why.is_string(), || gone.body)
    })
    .await;
    let strict = get(node, "/readyz?bitcoind=1").unwrap();
    assert_eq!(well_formed("/readyz?bitcoind=1", &strict).as_deref(), Some("BITCOIND_NOT_IN_SYNC"));
    eventually("a replica stays one, a leader is no primary", async || plays_without_bitcoind(node)).await;
    scene.cluster.bitcoind(index).unwrap().restart().unwrap();
    eventually("the return of a bitcoind shows", async || {
        let back = get(node, "/bitcoind").unwrap();
        need(well_formed("/bitcoind", &back).is_none(), || back.body)
    })
    .await;
}

fn plays_without_bitcoind(node: Addresses) -> Result<(), String> {
    let (role, _) = role(node).ok_or("no status")?;
    let good = if role == "leader" { "/leader" } else { "/replica" };
    for path in [good, "/readyz", "/livez", "/read-only"] {
        need(get(node, path).is_some_and(|answer| answer.is_ok()), || format!("{path} is not 200"))?;
    }
    need(get(node, "/primary").is_some_and(|answer| answer.status == 503), || "/primary is not 503".to_owned())
}

fn one_at_a_time(watch: &PrimaryWatch, first: usize, second: usize) {
    let reigns = watch.reigns();
    for node in [first, second] {
        assert!(reigns.iter().any(|reign| reign.node == node), "the watch never saw node {} reign", node + 1);
    }
    if let Some((overlap, one, other)) = longest_overlap(&reigns) {
        assert!(overlap <= ELECTION_TIMEOUT, "two primaries for {overlap:?}: {one:?} and {other:?}");
    }
}
