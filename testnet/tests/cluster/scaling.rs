//! More voters and fewer again while callers go on, by the command line, as the operations book says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onespend_proto::client::{Client, ClientError};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::scene::{NODES, Scene, eventually};
use crate::transfer::reserve_and_release;

/// How many voters there are in the end.
const MOST: usize = 7;
/// So many of these may be lost.
const BEARABLE: usize = 3;

/// Somebody who reserves and releases all the time.
struct Load {
    stop: Arc<AtomicBool>,
    caller: JoinHandle<Result<std::time::Duration, ClientError>>,
}

impl Load {
    fn by(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = tokio::spawn(reserve_and_release(client, Arc::clone(&stop)));
        Self { stop, caller }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.caller.await.unwrap().expect("no caller sees an error");
    }
}

/// Asks again until it is done.
async fn insist(scene: &Scene, args: &[&str]) {
    eventually(&args.join(" "), async || match scene.cluster.operate(args) {
        Err(error) if args.contains(&"remove") && error.to_string().contains("NODE_UNKNOWN") => Ok(()),
        done => done.map(drop).map_err(|error| error.to_string()),
    })
    .await;
}

/// Starts two nodes, which learn until they have caught up, and then get their votes.
async fn add_two_voters(scene: &mut Scene) {
    let joining = [(); 2].map(|()| scene.cluster.start_joining().unwrap());
    for index in joining {
        let (id, at) = ((index + 1).to_string(), scene.addresses(index));
        let (control, data) = (at.control.to_string(), at.data.to_string());
        insist(scene, &["cluster", "add", &id, "--control-address", &control, "--data-address", &data]).await;
    }
    for index in joining {
        insist(scene, &["cluster", "promote", &(index + 1).to_string()]).await;
    }
}

/// Everybody who is a member has a vote: the ids.
fn voters(scene: &Scene) -> Vec<u64> {
    let listed: Value =
        serde_json::from_str(&scene.cluster.operate(&["cluster", "members", "-o", "json"]).unwrap()).unwrap();
    let members = listed["members"].as_array().unwrap();
    assert!(members.iter().all(|member| member["voter"] == true), "{listed}");
    members.iter().map(|member| member["node_id"].as_u64().unwrap()).collect()
}

fn ids(count: usize) -> Vec<u64> {
    (1..=count as u64).collect()
}

/// safety 29: what seven acknowledge is on the disks of four, and these go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_become_five_and_seven_under_load_bear_the_loss_of_three_and_become_three_again() {
    let mut scene = Scene::with_coins("scaling", 20).await;
    let payments = scene.client();
    payments.create_payment(scene.order("by-three")).await.unwrap();
    let load = Load::by(scene.client());
    for (count, payment_id) in [(5, "by-five"), (MOST, "by-seven")] {
        add_two_voters(&mut scene).await;
        assert_eq!(voters(&scene), ids(count));
        payments.create_payment(scene.order(payment_id)).await.unwrap();
    }
    load.end().await;

    // The leader, and of the others the first, which are no newcomers. The four that are left are a majority only together.
    let leader = scene.primary();
    let (mut lost, mut left): (Vec<usize>, Vec<usize>) = (vec![leader], Vec::new());
    for index in (0..MOST).filter(|index| *index != leader) {
        if lost.len() < BEARABLE { lost.push(index) } else { left.push(index) }
    }
    let load = Load::by(scene.client_of(&(0..MOST).collect::<Vec<_>>()));
    for index in &lost {
        scene.node(*index).kill().unwrap();
    }
    let next = scene.primary();
    assert!(left.contains(&next), "node {}", next + 1);
    let survivors = scene.client_of(&left);
    survivors.create_payment(scene.order("by-four-of-seven")).await.unwrap();
    load.end().await;
    scene.settle_with(&survivors).await;

    for index in lost {
        scene.node(index).restart().unwrap();
    }
    let load = Load::by(scene.client());
    become_three(&mut scene).await;
    load.end().await;
    payments.create_payment(scene.order("by-three-again")).await.unwrap();
    scene.settle_and_judge().await;
    scene.finish();
}

/// The first node takes the lead, and those that came later go.
async fn become_three(scene: &mut Scene) {
    insist(scene, &["cluster", "transfer", "--to", "1"]).await;
    for index in (NODES..MOST).rev() {
        insist(scene, &["cluster", "remove", &(index + 1).to_string()]).await;
        scene.node(index).stop().unwrap();
    }
    assert_eq!(voters(scene), ids(NODES));
}
