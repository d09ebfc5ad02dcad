//! Handing leadership over on purpose, when not everybody is there to take it.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use onespend_proto::client::{Client, ClientError};
use onespend_proto::{reason, v1};

use crate::scene::{NODES, Scene, eventually, fresh_id, need, release, reserve};

/// Longest time that a caller may wait for one answer around a transfer: an election and something for a busy machine.
const MAX_WAIT: Duration = Duration::from_secs(4);
/// Hand-overs around which agents are asked.
const HAND_OVERS: usize = 8;
/// Far more often than HAProxy asks: what is looked for lasts for milliseconds.
const AGENT_EVERY: Duration = Duration::from_millis(2);
/// For an agent's line.
const AGENT_PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_to_a_node_that_lives_and_writes_go_on() {
    let mut scene = Scene::with_coins("transfer", 10).await;
    let leader = scene.primary();
    // The lowest id: among equals it would be chosen first.
    let [dead, living] = Scene::others(leader)[..] else { panic!("three nodes") };
    same_log_everywhere(&scene).await;
    scene.node(dead).kill().unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn(reserve_and_release(scene.client(), Arc::clone(&stop)));
    let operator = scene.operator();
    let to = |node_id: u64| v1::TransferLeadershipRequest { request_id: fresh_id(), node_id };
    let id = |index: usize| index as u64 + 1;
    let refused = operator.transfer_leadership(to(id(dead))).await.unwrap_err();
    assert!(refused.is(reason::TRANSFER_REFUSED), "{refused}");
    assert_eq!(scene.primary(), leader, "a refused transfer changes nothing");
    // 0 stands for whoever is fittest.
    let handed = operator.transfer_leadership(to(0)).await.unwrap();
    assert_eq!(handed.leader_id, id(living));
    assert_eq!(scene.primary(), living);

    stop.store(true, Ordering::SeqCst);
    let longest = caller.await.unwrap().expect("no caller sees an error");
    assert!(longest < MAX_WAIT, "a caller waited for {longest:?}");
    scene.finish();
}

/// HAProxy cuts the connections of a node whose agent says `down`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_agent_says_down_for_a_change_of_leaders() {
    let mut scene = Scene::start("agents");
    scene.primary();
    for index in 0..NODES {
        // One that has never heard a leader is down.
        eventually("it has met its leader", async || {
            let said = ask(scene.addresses(index).agent);
            need(said.starts_with("up "), || said)
        })
        .await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let listening = (0..NODES).map(|index| listen(scene.addresses(index).agent, Arc::clone(&stop)));
    let listening: Vec<_> = listening.collect();
    let operator = scene.operator();
    for _ in 0..HAND_OVERS {
        eventually("leadership is handed over", async || {
            let request = v1::TransferLeadershipRequest { request_id: fresh_id(), node_id: 0 };
            operator.transfer_leadership(request).await.map_err(|error| error.to_string())
        })
        .await;
        scene.primary();
    }
    stop.store(true, Ordering::SeqCst);
    let said: BTreeSet<String> = listening.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert!(said.contains("up ready\n") && said.contains("up drain # NOT_LEADER\n"), "{said:?}");
    // Other reasons are those of a machine that is too busy to hold a lead.
    for passing in ["NO_LEADER", "APPLIED_LAG", "OWN_TERM_NOT_APPLIED"] {
        assert!(!said.contains(&format!("ready down # {passing}\n")), "{said:?}");
    }
    scene.finish();
}

/// All that an agent says until it is told to stop.
fn listen(agent: SocketAddr, stop: Arc<AtomicBool>) -> thread::JoinHandle<BTreeSet<String>> {
    thread::spawn(move || {
        let mut said = BTreeSet::new();
        while !stop.load(Ordering::SeqCst) {
            said.insert(ask(agent));
            thread::sleep(AGENT_EVERY);
        }
        said
    })
}

fn ask(agent: SocketAddr) -> String {
    let mut socket = TcpStream::connect(agent).unwrap();
    socket.set_read_timeout(Some(AGENT_PATIENCE)).unwrap();
    let mut line = String::new();
    socket.read_to_string(&mut line).unwrap();
    line
}

/// Waits until every node has the whole log: then all are equally fit to lead.
pub async fn same_log_everywhere(scene: &Scene) {
    let operator = scene.operator();
    eventually("equal logs", async || {
        let mut last = Vec::new();
        for index in 0..NODES {
            let status = operator.get_status_of(&scene.addresses(index).control.to_string()).await;
            last.push(status.map_err(|error| error.to_string())?.last_log_index);
        }
        need(last.iter().all(|index| *index == last[0]), || format!("{last:?}"))
    })
    .await;
}

/// Until it is told to stop; the longest time that one call took.
pub async fn reserve_and_release(client: Client, stop: Arc<AtomicBool>) -> Result<Duration, ClientError> {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let reservation = client.reserve_utxos(reserve(10_000)).await?.reservation.unwrap();
        longest = longest.max(asked.elapsed());
        client.release_reservation(release(&reservation)).await?;
    }
    Ok(longest)
}
