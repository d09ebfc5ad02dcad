//! What is on the nodes' disks, and what is not any more: snapshots without a log, yesterday's folder, none at all.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use onespend_proto::reason;
use onespend_proto::v1::{self, PaymentState};
use onespend_testnet::cluster::SIGNER;
use onespend_testnet::health;
use onespend_testnet::process::Process;
use rusqlite::{Connection, OpenFlags};

use crate::draft::{FEE_SAT, ask_to_sign, release};
use crate::scene::{NODES, PATIENCE, POLL, Scene, Stage, eventually, fresh_id, need};

const TTL: Duration = Duration::from_mins(10);
/// Entries that make several snapshots, and more than a node purges at once (512).
const ENTRIES: u64 = 1_100;
/// More than any election takes.
const SEVERAL_ELECTIONS: Duration = Duration::from_secs(3);
const ASK: Duration = Duration::from_secs(5);
/// The alarm of a node whose signer has not been told that it knows what was signed before.
const NOT_ACCEPTED: &str = "SIGNER_NOT_ACCEPTED";
/// What the system is told by a node that would not start again either.
const FOR_GOOD: i32 = 2;

/// The oldest entry in the log of a data folder, past the node, which may be running.
pub fn oldest_entry(data_dir: &Path) -> u64 {
    let log = Connection::open_with_flags(data_dir.join("raft.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    log.busy_timeout(PATIENCE).unwrap();
    let oldest: Option<i64> = log.query_row("SELECT min(idx) FROM entry", [], |row| row.get(0)).unwrap();
    oldest.map_or(u64::MAX, i64::cast_unsigned)
}

/// Drives the log on by so many entries at least.
async fn drive(scene: &Scene, entries: u64) {
    let mut first = None;
    loop {
        let held = scene.reserve(1, TTL).await;
        release(&scene.client, &held).await;
        if held.fence - *first.get_or_insert(held.fence) >= entries {
            return;
        }
    }
}

/// safety 13, 14, 25: snapshot and log purge with an intent pending, then a new node leads. That node was down when the
/// intent was committed: it knows it from a snapshot alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_that_only_a_snapshot_carries_is_signed_by_the_node_that_leads_next() {
    let keys = &[("ONESPEND_RAFT__SNAPSHOT_EVERY_ENTRIES", "100"), ("ONESPEND_RAFT__KEEP_LOG_ENTRIES", "0")];
    let mut scene = Scene::start(Stage { name: "purged", coins: 6, faulty: true, keys, ..Stage::default() }).await;
    let leader = scene.primary();
    let [away, other] = Scene::others(leader)[..] else { panic!("three nodes") };
    scene.node(away).kill().unwrap();
    for index in [leader, other] {
        scene.fault(index, |now| now.sign_held = true);
    }
    let used = scene.reserve(2, TTL).await;
    let request = scene.sign_request("pending", &used, FEE_SAT).await;
    let answer = ask_to_sign(&scene.client, &request);
    let intent = scene.intent("pending").await;
    let fence = intent.attempts[0].fence;
    drive(&scene, ENTRIES).await;
    for index in [leader, other] {
        let folder = scene.cluster.nodes()[index].data_folder();
        eventually("the log is purged", async || need(oldest_entry(&folder) > fence, String::new)).await;
    }

    scene.node(away).restart().unwrap();
    let behind = scene.status(leader).await.applied_index;
    eventually("the node catches up", async || {
        let status = scene.status(away).await;
        need(status.applied_index >= behind && status.snapshot_index > fence, || format!("{status:?}"))
    })
    .await;
    // Nobody had the intent's entry any more to send; what the node's own log held is purged behind the snapshot.
    let folder = scene.cluster.nodes()[away].data_folder();
    eventually("its log is purged", async || need(oldest_entry(&folder) > fence, String::new)).await;
    scene.hand_over(away, "/primary").await;
    scene.node(leader).kill().unwrap();
    let signed = scene.reaches("pending", PaymentState::Broadcast).await;
    assert_eq!((&signed.txid, signed.attempts.len()), (&intent.txid, 1));
    let lines = scene.signed_by(away, "pending");
    assert_eq!(lines.iter().map(|line| (&line.txid, line.fence)).collect::<Vec<_>>(), [(&intent.txid, fence)]);
    for index in [leader, other] {
        assert_eq!(scene.signed_by(index, "pending"), [], "nobody else has signed it");
        scene.fault(index, |now| now.sign_held = false);
    }
    scene.node(leader).restart().unwrap();
    if let Ok(answered) = answer.await.unwrap() {
        assert_eq!((answered.payment.unwrap().txid, answered.attempt_number), (intent.txid, 1));
    }
    let again = scene.client.sign_psbt(request).await.unwrap();
    assert_eq!((again.attempt_number, again.payment.unwrap().txid), (1, signed.txid), "the retry");
    scene.settle_and_judge(&["pending"]).await;
    scene.finish().await;
}

/// safety 8, 12, 30: yesterday's data folder against today's signer. Every node is put back to a copy that nobody
/// marked, and each node's signer has signed since: the first that leads notices, nothing is permitted, and none signs
/// again. When an operator has confirmed too soon, the signer that signed a payment is asked for it again, and refuses;
/// and those of the other nodes, which know nothing of it, sign nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn yesterdays_data_folders_make_todays_signers_refuse() {
    let mut scene = Scene::start(Stage { name: "yesterday", coins: 8, ..Stage::default() }).await;
    stop_all(&mut scene);
    for index in 0..NODES {
        remember_outside(&scene, index);
        copy(&scene, index, "data", "yesterday");
        scene.node(index).restart().unwrap();
    }
    scene.primary();
    drive(&scene, ENTRIES).await;
    // Today every node's signer signs something.
    let mut today = Vec::new();
    for index in 0..NODES {
        scene.hand_over(index, "/primary").await;
        let payment = scene.pay(&format!("today-{index}"), 2.0).await;
        scene.in_every_mempool(&payment.txid, None).await;
        assert_eq!(scene.signed_by(index, &payment.payment_id).len(), 1);
        today.push(payment);
    }

    stop_all(&mut scene);
    let before = signatures(&scene);
    for index in 0..NODES {
        fs::remove_dir_all(scene.cluster.nodes()[index].data_folder()).unwrap();
        copy(&scene, index, "yesterday", "data");
        scene.node(index).restart().unwrap();
    }
    let leader = scene.primary();
    warns_of(&scene, leader, "RECOVERY_MODE").await;
    // The caller missed the answers and orders again what this log has never heard of.
    let order = v1::CreatePaymentRequest { request_id: String::new(), ..scene.order("today-0", 2.0) };
    let refused = scene.client_of(&[leader]).create_payment(order).await.unwrap_err();
    assert!(refused.is(reason::RECOVERY_MODE), "{refused}");
    // Every other node that leads would grant and sign it, had all forgotten what was signed today.
    for index in Scene::others(leader) {
        scene.hand_over(index, "/leader").await;
        warns_of(&scene, index, "RECOVERY_MODE").await;
    }
    assert_eq!(before, signatures(&scene), "no signer has signed anything");

    scene.hand_over(0, "/leader").await;
    confirm(&scene, 0).await;
    what_was_lost_is_not_signed_again(&mut scene, 0, &today[0]).await;
    nor_where_the_signer_does_not_know_of_it(&scene, 0).await;
    assert_eq!(before, signatures(&scene), "nor when it was asked");
    // What was signed today is mined: the chain has each payment once, whatever the log says.
    scene.mine(6);
    scene.judge_chain(&["today-0", "today-1", "today-2"]);
    scene.finish().await;
}

/// safety 8, 11: a payment that is lost is ordered again, and then bumped, where its signer leads. Its name is free in
/// this log and its old coin is nobody's, so both are granted, with another coin. The attempt has a number that the
/// signer has signed; the bump has one that it has never seen, and coins that it has never signed for, and only what it
/// remembers of the payment as a whole speaks against it.
async fn what_was_lost_is_not_signed_again(scene: &mut Scene, signed_by: usize, lost: &v1::Payment) {
    let payment_id = lost.payment_id.as_str();
    scene.hand_over(signed_by, "/primary").await;
    let (before, _) = refusals(scene, signed_by).unwrap();
    let again = scene.pay(payment_id, 2.0).await;
    assert_eq!((again.state(), again.attempts.len()), (PaymentState::Signing, 1), "{again:?}");
    let old = &lost.attempts[0].inputs;
    assert!(!again.attempts[0].inputs.iter().any(|coin| old.contains(coin)), "both could confirm: {again:?}");
    eventually("the signer refuses", async || {
        let (all, _) = refusals(scene, signed_by)?;
        need(all > before, || format!("{all} refusals"))
    })
    .await;

    let (_, before) = refusals(scene, signed_by).unwrap();
    let bumped = scene.bump(payment_id, 9.0).await.unwrap().payment.unwrap();
    assert_eq!((bumped.state(), bumped.attempts.len()), (PaymentState::Signing, 2), "{bumped:?}");
    eventually("the signer refuses the bump", async || {
        let (_, others) = refusals(scene, signed_by)?;
        need(others > before, || format!("{others} refusals for other rules"))
    })
    .await;
    assert_eq!(scene.signed_by(signed_by, payment_id).len(), 1, "what it signed today");
}

/// safety 8, 30: the payment waits still, and another node leads, whose signer remembers payments of its own only.
/// Nobody has said of that signer that it knows what it must: it is not asked, and the node gives the lead back.
async fn nor_where_the_signer_does_not_know_of_it(scene: &Scene, accepted: usize) {
    let others = Scene::others(accepted);
    for index in &others {
        warns_of(scene, *index, NOT_ACCEPTED).await;
    }
    let port = scene.cluster.nodes()[others[0]].addresses().health;
    let given = || health::hand_overs(port, "signer", ASK).map_err(|error| error.to_string());
    let before = given().unwrap();
    scene.hand_over(others[0], "/leader").await;
    eventually("the lead is given back", async || {
        let now = given()?;
        need(now > before && scene.says(accepted, "/primary"), || format!("given {now} times"))
    })
    .await;
}

/// How often the memory of a node's signer has refused: in all, and for other rules than that a number is one
/// transaction.
fn refusals(scene: &Scene, index: usize) -> Result<(u64, u64), String> {
    let address = scene.cluster.nodes()[index].addresses().health;
    let by_rule = health::memory_refusals(address, ASK).map_err(|error| error.to_string())?;
    let all: u64 = by_rule.values().sum();
    Ok((all, all - by_rule.get("other_transaction").copied().unwrap_or(0)))
}

/// How much each node's signer has signed.
fn signatures(scene: &Scene) -> Vec<usize> {
    (0..NODES).map(|index| scene.signatures(index).len()).collect()
}

/// An operator's word, once the state was compared with the mempools. It is of the signer of this node, which leads.
async fn confirm(scene: &Scene, leads: usize) {
    // What was taken, though its answer was lost, is answered under its id alone; and so is a refusal, for ever.
    let mut request_id = fresh_id();
    let answer = eventually("the operator's word is taken", async || {
        let request = v1::ConfirmRecoveryRequest {
            request_id: request_id.clone(),
            note: "this test knows what was paid today".to_owned(),
            i_have_checked: true,
        };
        let answer = scene.operator.confirm_recovery(request).await;
        if answer.as_ref().is_err_and(|error| error.is(reason::RECOVERY_REFUSED)) {
            request_id = fresh_id();
        }
        answer.map_err(|error| error.to_string())
    })
    .await;
    let node_id = scene.cluster.nodes()[leads].id();
    assert_eq!((answer.node_id, answer.accepted_signers), (node_id, vec![SIGNER.to_owned()]));
}

/// Waits until a node has an alarm, so that it takes no spends.
async fn warns_of(scene: &Scene, index: usize, code: &str) {
    eventually(code, async || {
        let alarms = scene.status(index).await.alarms;
        need(alarms.iter().any(|alarm| alarm.contains(code)), || format!("{alarms:?}"))?;
        need(!scene.says(index, "/primary"), || "it is primary".to_owned())
    })
    .await;
}

fn stop_all(scene: &mut Scene) {
    for index in 0..NODES {
        scene.node(index).stop().unwrap();
    }
}

/// The signer's memory goes where the operator's guide wants it: outside the data folder.
fn remember_outside(scene: &Scene, index: usize) {
    let node = &scene.cluster.nodes()[index];
    let (file, data_dir) = (node.config_file(), node.data_folder());
    let config = fs::read_to_string(&file).unwrap();
    assert!(config.trim_end().lines().last().unwrap().starts_with("audit_log"), "the signer's section is the last");
    let memory = data_dir.with_file_name("memory.db");
    fs::write(file, format!("{config}memory = '{}'\n", memory.display())).unwrap();
}

fn copy(scene: &Scene, index: usize, from: &str, to: &str) {
    let data_dir = scene.cluster.nodes()[index].data_folder();
    let (from, to) = (data_dir.with_file_name(from), data_dir.with_file_name(to));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// safety 29: wiped node under its old id refused. It has forgotten what it acknowledged, so its vote must not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_is_refused_under_its_old_id_and_its_vote_does_not_count() {
    let mut scene = Scene::start(Stage { name: "wiped", coins: 4, ..Stage::default() }).await;
    let leader = scene.primary();
    let wiped = Scene::others(leader)[0];
    // With its disk it is welcome.
    scene.node(wiped).kill().unwrap();
    scene.node(wiped).restart().unwrap();
    let paid = scene.pay("before", 2.0).await;
    eventually("it follows", async || {
        let (theirs, ours) = (scene.status(wiped).await.applied_index, scene.status(leader).await.applied_index);
        need(theirs == ours, || format!("{theirs} of {ours}"))
    })
    .await;

    scene.node(wiped).kill().unwrap();
    fs::remove_dir_all(scene.cluster.nodes()[wiped].data_folder()).unwrap();
    fs::create_dir(scene.cluster.nodes()[wiped].data_folder()).unwrap();
    scene.node(wiped).restart().unwrap();
    let told = ends(&mut scene, wiped, "a node whose disk was lost must come back under a new id");
    assert_eq!(told, Some(FOR_GOOD), "its supervisor leaves it alone");
    scene.pay("without-it", 2.0).await;

    // Two of three are gone now, so nobody may lead, however often the wiped one comes.
    let leader = scene.primary();
    scene.node(leader).kill().unwrap();
    let until = Instant::now() + SEVERAL_ELECTIONS;
    while Instant::now() < until {
        if !scene.node(wiped).is_running() {
            scene.node(wiped).kill().unwrap();
            scene.node(wiped).restart().unwrap();
        }
        for index in Scene::others(leader) {
            assert!(!scene.says(index, "/leader"), "node {} leads by a vote that does not count", index + 1);
        }
        tokio::time::sleep(POLL).await;
    }
    let told = ends(&mut scene, wiped, "a node whose disk was lost must come back under a new id");
    assert_eq!(told, Some(FOR_GOOD), "also where nobody leads");
    scene.node(wiped).kill().unwrap();
    scene.node(leader).restart().unwrap();
    let remaining = Scene::others(wiped);
    scene.primary_among(&remaining).await;
    scene.client = scene.client_of(&remaining);
    assert_eq!(scene.payment("before").await.txid, paid.txid);
    scene.settle_and_judge(&["before", "without-it"]).await;
    scene.finish().await;
}

/// Waits until a node has ended by itself, with an error, for this reason; its exit code.
pub fn ends(scene: &mut Scene, index: usize, why: &str) -> Option<i32> {
    let node = scene.node(index);
    let status = node.process().map(|process: &mut Process| process.wait(PATIENCE).unwrap()).unwrap();
    assert!(!status.success(), "{status}");
    let told = node.log_tail();
    assert!(told.contains(why), "{told}");
    status.code()
}
