//! A node whose state is not what the others have: it finds out by itself, and serves no more.

use std::time::Duration;

use onespend_proto::client::ClientError;
use onespend_proto::{reason, v1};
use onespend_testnet::health;
use onespend_testnet::hot::WALLET;

use crate::membership::{NEW, absent};
use crate::scene::{NODES, PATIENCE, Scene, eventually, fresh_id, need, payment, release, reserve};

const ALARM: &str = "STATE_HASH_MISMATCH";
/// The alarm of one against one.
const UNDECIDED: &str = "STATE_HASH_UNDECIDED";
/// A leader that reads blocks has the next one in the log by then: it looks for one every two seconds.
const LONGER_THAN_A_BLOCK: Duration = Duration::from_secs(5);
/// The number of the table in which reservations that have ended are remembered.
const ENDED: i64 = 4;

/// safety 31: the disk of a node loses a row between two runs; nothing else is wrong with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_state_differs_finds_out_hands_over_and_answers_nothing() {
    let mut scene = Scene::with_coins("divergence", 6).await;
    let client = scene.client();
    let held = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
    let kept = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
    let ended = client.release_reservation(release(&held)).await.unwrap().applied_index;
    let victim = scene.primary();
    let absent = Scene::others(victim)[0];
    for index in 0..NODES {
        has_applied(&scene, index, ended).await;
    }
    scene.node(absent).stop().unwrap();
    scene.node(victim).stop().unwrap();
    lose_row(&scene, victim);
    scene.node(victim).restart().unwrap();
    leads_while_nobody_can_know_better(&scene, victim, absent).await;
    let order = scene.order("p1");
    takes_no_spends(&mut scene, &order, &kept).await;
    scene.node(absent).restart().unwrap();

    // Nobody drives the log on for that.
    let id = victim as u64 + 1;
    let operator = scene.operator();
    let control = |index: usize| scene.addresses(index).control.to_string();
    eventually("the node finds out, and another one leads", async || {
        let status = operator.get_status_of(&control(victim)).await.map_err(|error| error.to_string())?;
        need(status.alarms.len() == 1 && status.alarms[0].starts_with(ALARM), || format!("{:?}", status.alarms))?;
        need(status.role() == v1::NodeRole::Replica && status.leader_id != id, || format!("{status:?}"))
    })
    .await;
    for other in Scene::others(victim) {
        eventually("the others have no alarm", async || {
            let status = operator.get_status_of(&control(other)).await.map_err(|error| error.to_string())?;
            need(status.alarms.is_empty(), || format!("node {}: {:?}", other + 1, status.alarms))
        })
        .await;
    }
    serves_nothing(&scene, victim).await;

    // The others go on, and what was refused under its lead is asked for again.
    let survivors = scene.client_of(&Scene::others(victim));
    survivors.create_payment(order).await.unwrap();
    assert_eq!(payment(&survivors, "p1").await.attempts.len(), 1);
    scene.node(victim).stop().unwrap();
    scene.settle_with(&survivors).await;
    scene.finish();
}

/// It comes back beside one other node. Both say that they differ, and the one that is wrong leads.
async fn leads_while_nobody_can_know_better(scene: &Scene, victim: usize, absent: usize) {
    let operator = scene.operator();
    for index in Scene::others(absent) {
        let address = scene.addresses(index).control.to_string();
        eventually("one against one", async || {
            let status = operator.get_status_of(&address).await.map_err(|error| error.to_string())?;
            need(status.alarms.len() == 1 && status.alarms[0].starts_with(UNDECIDED), || format!("{:?}", status.alarms))
        })
        .await;
    }
    eventually("the node leads again", async || {
        let request = v1::TransferLeadershipRequest { request_id: fresh_id(), node_id: victim as u64 + 1 };
        operator.transfer_leadership(request).await.map_err(|error| error.to_string())
    })
    .await;
    eventually("it leads, and is not primary", async || {
        let ask = |path| health::get(scene.addresses(victim).health, path, PATIENCE).map_err(|error| error.to_string());
        let (leader, primary) = (ask("/leader")?, ask("/primary")?);
        let alarm = primary.status == 503 && primary.json()["reason"] == "ALARM";
        need(leader.status == 200 && alarm, || format!("{leader:?} {primary:?}"))
    })
    .await;
}

/// Whichever state is right, nothing is granted, and no block is read. What gives coins back, and what is asked, go on.
async fn takes_no_spends(scene: &mut Scene, order: &v1::CreatePaymentRequest, kept: &v1::Reservation) {
    let client = scene.client();
    // What the leader knows of earlier tries may be wrong, so it does not say that there was none.
    let hasty = client.with_deadline(Duration::from_secs(1));
    refuses_nothing_for_certain(async || hasty.create_payment(order.clone()).await.map(|_| ())).await;
    refuses_nothing_for_certain(async || hasty.reserve_utxos(reserve(10_000)).await.map(|_| ())).await;
    let refused = scene.operator().add_learner(absent(NEW)).await.unwrap_err();
    assert!(refused.is(reason::ALARM), "a node that comes in would decide for the leader: {refused}");
    client.release_reservation(release(kept)).await.unwrap();
    let height = async || {
        let tip = client.get_tip(v1::GetTipRequest::default()).await.map_err(|error| error.to_string())?.tip;
        tip.map(|tip| tip.height).ok_or_else(|| "there is no tip".to_owned())
    };
    let before = height().await.unwrap();
    scene.mine(1);
    tokio::time::sleep(LONGER_THAN_A_BLOCK).await;
    assert_eq!(height().await.unwrap(), before, "what the leader's state lacks would be missing in the block");
}

/// The last try within the caller's deadline may have ended otherwise, so it is asked until one names the alarm.
async fn refuses_nothing_for_certain(ask: impl AsyncFn() -> Result<(), ClientError>) {
    eventually("the alarm is named", async || {
        let open = ask().await.unwrap_err();
        assert!(open.may_be_applied(), "{open}");
        need(open.to_string().contains(UNDECIDED), || open.to_string())
    })
    .await;
}

async fn has_applied(scene: &Scene, index: usize, entry: u64) {
    let operator = scene.operator();
    let address = scene.addresses(index).control.to_string();
    eventually("the entry is applied", async || {
        let status = operator.get_status_of(&address).await.map_err(|error| error.to_string())?;
        need(status.applied_index >= entry, || format!("{}", status.applied_index))
    })
    .await;
}

/// Takes one row out of a stopped node's state: every other row has its checksum, and so has the marker.
fn lose_row(scene: &Scene, index: usize) {
    let path = scene.cluster.nodes()[index].data_folder().join("state.db");
    let db = rusqlite::Connection::open(path).unwrap();
    let lost = db.execute("DELETE FROM state WHERE tbl = ?1", [ENDED]).unwrap();
    assert!(lost >= 1, "there was no such row");
    db.close().unwrap();
}

/// Neither by its health port nor by answers, however stale a caller would take them.
async fn serves_nothing(scene: &Scene, index: usize) {
    for path in ["/readyz", "/primary", "/leader", "/replica", "/read-only"] {
        eventually("the health port says no", async || {
            let answer =
                health::get(scene.addresses(index).health, path, PATIENCE).map_err(|error| error.to_string())?;
            need(answer.status == 503, || format!("{path}: {answer:?}"))
        })
        .await;
    }
    let mut wallets = v1::wallet_service_client::WalletServiceClient::new(scene.direct(index));
    let level = v1::read_consistency::Level::BoundedStaleness(v1::BoundedStaleness { max_lag_ms: 3_600_000 });
    let consistency = Some(v1::ReadConsistency { level: Some(level) });
    let refused = wallets.get_wallet(v1::GetWalletRequest { wallet_id: WALLET.to_owned(), consistency }).await;
    let refused = refused.expect_err("a state that most others contradict is shown to nobody");
    assert!(refused.message().contains(ALARM), "{refused:?}");
    assert_eq!(scene.cluster.nodes().len(), NODES);
}
