//! bitcoind stands by while coins are reserved: it is asked for blocks, and for nothing that a reservation waits for.

use std::time::Instant;

use onespend_proto::v1;
use onespend_proto::v1::reserve_utxos_request::What;
use onespend_testnet::cluster::Cluster;

use crate::scene::{NODES, Scene, fresh_id, release, reserve};

/// Each is a selection, its renewal and its release, and the same coins by name.
const ROUNDS: usize = 20;

fn every_bitcoind(cluster: &mut Cluster, act: impl Fn(&mut onespend_testnet::bitcoind::Bitcoind)) {
    (0..NODES).for_each(|index| act(cluster.bitcoind(index).unwrap()));
}

/// A stopped process answers no RPC, so whatever is granted while all are stopped was granted without one. What a node
/// saw of the chain before is good for some seconds; after that it rightly refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reservations_are_granted_without_a_word_from_any_bitcoind() {
    let mut scene = Scene::with_coins("bystander", 10).await;
    scene.primary();
    let client = scene.client();
    // Connections are made before.
    let first = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
    client.release_reservation(release(&first)).await.unwrap();

    every_bitcoind(&mut scene.cluster, |bitcoind| bitcoind.freeze().unwrap());
    let began = Instant::now();
    for round in 0..ROUNDS {
        let seen = || format!("round {round}, {:?} after the bitcoinds were stopped", began.elapsed());
        let chosen = client.reserve_utxos(reserve(10_000)).await.unwrap_or_else(|error| panic!("{}: {error}", seen()));
        let chosen = chosen.reservation.unwrap();
        let renewal = v1::RenewReservationRequest {
            request_id: fresh_id(),
            reservation_id: chosen.reservation_id.clone(),
            fence: chosen.fence,
            ..Default::default()
        };
        client.renew_reservation(renewal).await.unwrap_or_else(|error| panic!("{}: {error}", seen()));
        client.release_reservation(release(&chosen)).await.unwrap_or_else(|error| panic!("{}: {error}", seen()));
        let outpoints = chosen.utxos.iter().filter_map(|utxo| utxo.outpoint.clone()).collect();
        let what = Some(What::Outpoints(v1::OutpointList { outpoints }));
        let named = v1::ReserveUtxosRequest { what, ..reserve(10_000) };
        let named = client.reserve_utxos(named).await.unwrap_or_else(|error| panic!("{}: {error}", seen()));
        client.release_reservation(release(&named.reservation.unwrap())).await.unwrap();
    }
    every_bitcoind(&mut scene.cluster, |bitcoind| bitcoind.thaw().unwrap());
    scene.finish();
}
