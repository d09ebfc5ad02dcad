//! A node whose state is not what the others have: it finds out by itself, and serves no more.

use onespend_proto::v1;
use onespend_testnet::health;
use onespend_testnet::hot::WALLET;

use crate::scene::{NODES, PATIENCE, Scene, eventually, fresh_id, need, payment, release, reserve};

const ALARM: &str = "STATE_HASH_MISMATCH";
/// A node notes its state's hash at every index that is a multiple of this.
const HASH_EVERY: u64 = 128;
/// The number of the table in which reservations that have ended are remembered.
const ENDED: i64 = 4;

/// safety 31: the disk of a node loses a row between two runs; nothing else is wrong with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_state_differs_finds_out_hands_over_and_answers_nothing() {
    let mut scene = Scene::with_coins("divergence", 6).await;
    let client = scene.client();
    let held = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
    let ended = client.release_reservation(release(&held)).await.unwrap().applied_index;
    let victim = scene.primary();
    has_applied(&scene, victim, ended).await;
    scene.node(victim).stop().unwrap();
    lose_row(&scene, victim);
    scene.node(victim).restart().unwrap();

    // It comes back, is believed, and leads: until the next comparison nobody can know better.
    let id = victim as u64 + 1;
    eventually("the node leads again", async || {
        let request = v1::TransferLeadershipRequest { request_id: fresh_id(), node_id: id };
        scene.operator().transfer_leadership(request).await.map_err(|error| error.to_string())
    })
    .await;
    let order = scene.order("p1");
    client.create_payment(order).await.unwrap();
    beyond_a_hash(&scene).await;

    let operator = scene.operator();
    let control = |index: usize| scene.addresses(index).control.to_string();
    eventually("the node finds out, and another one leads", async || {
        let status = operator.get_status_of(&control(victim)).await.map_err(|error| error.to_string())?;
        need(status.alarms.len() == 1 && status.alarms[0].starts_with(ALARM), || format!("{:?}", status.alarms))?;
        need(status.role() == v1::NodeRole::Replica && status.leader_id != id, || format!("{status:?}"))
    })
    .await;
    for other in Scene::others(victim) {
        let status = operator.get_status_of(&control(other)).await.unwrap();
        assert_eq!(status.alarms, Vec::<String>::new(), "node {}", other + 1);
    }
    serves_nothing(&scene, victim).await;

    // The others go on, and what was paid under its lead is paid.
    let survivors = scene.client_of(&Scene::others(victim));
    assert_eq!(payment(&survivors, "p1").await.attempts.len(), 1);
    let order = scene.order("p2");
    survivors.create_payment(order).await.unwrap();
    scene.node(victim).stop().unwrap();
    scene.settle_with(&survivors).await;
    scene.finish();
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

/// Drives the log on beyond the next index at which hashes are noted.
async fn beyond_a_hash(scene: &Scene) {
    let client = scene.client();
    let first = scene.operator().get_status(v1::GetStatusRequest {}).await.unwrap().last_log_index;
    let wanted = (first / HASH_EVERY + 1) * HASH_EVERY;
    let mut at = first;
    while at < wanted {
        let held = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
        at = client.release_reservation(release(&held)).await.unwrap().applied_index;
    }
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
