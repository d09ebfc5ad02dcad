//! A power cut that hits every node: what was acknowledged is there again, and the same everywhere.

use std::collections::BTreeMap;

use onespend_proto::client::Client;
use onespend_proto::v1;
use onespend_testnet::hot::WALLET;

use crate::scene::{NODES, Scene, eventually, fresh_id, need, release, reserve};

const PAYMENTS: usize = 12;
const RESERVATIONS: usize = 6;
/// A node notes its state's hash at every index that is a multiple of this.
const HASH_EVERY: u64 = 128;

/// Everything that callers can list, and requests with the answers that they got.
struct Told {
    payments: Vec<v1::Payment>,
    utxos: Vec<v1::Utxo>,
    reservations: Vec<v1::Reservation>,
    wallet: v1::Wallet,
    balance: v1::Balance,
    tip: v1::BlockRef,
}

struct Asked {
    orders: Vec<(v1::CreatePaymentRequest, v1::Payment)>,
    reservations: Vec<(v1::ReserveUtxosRequest, v1::Reservation)>,
    released: (v1::ReleaseReservationRequest, v1::Reservation),
    address: (v1::NewAddressRequest, String),
}

/// safety 15, 29: all nodes are killed; what was acknowledged is there, and their hashes are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_the_same_after_restart_of_every_node() {
    let mut scene = Scene::with_coins("restart", PAYMENTS + RESERVATIONS + 10).await;
    let client = scene.client();
    let asked = ask(&mut scene, &client).await;
    let txids: Vec<String> = asked.orders.iter().map(|(_, payment)| payment.txid.clone()).collect();
    scene.in_every_mempool(&txids).await;
    scene.mine(2);
    let before = quiet(&client).await;
    let hash_before = next_hash(&scene, &client).await;

    for index in 0..NODES {
        scene.node(index).kill().unwrap();
    }
    for index in 0..NODES {
        scene.node(index).restart().unwrap();
    }
    scene.primary();
    let after = quiet(&client).await;
    same(&before, &after);
    // A lost answer is repeated, whatever happened in between.
    repeat(&client, &asked).await;
    same(&before, &tell(&client).await);
    let hash_after = next_hash(&scene, &client).await;
    assert!(hash_after > hash_before);
    let replay = v1::CreatePaymentRequest { max_fee_sat: 99_999, ..asked.orders[0].0.clone() };
    let reused = client.create_payment(replay).await.unwrap_err();
    assert!(reused.is("REQUEST_ID_REUSED"), "{reused}");

    for (_, reservation) in &asked.reservations {
        client.release_reservation(release(reservation)).await.unwrap();
    }
    scene.settle_and_judge().await;
    scene.finish();
}

async fn ask(scene: &mut Scene, client: &Client) -> Asked {
    let mut orders = Vec::new();
    for order in scene.order_many("restart", PAYMENTS) {
        let answer = client.create_payment(order.clone()).await.unwrap().payment.unwrap();
        orders.push((order, answer));
    }
    let mut reservations = Vec::new();
    for _ in 0..RESERVATIONS {
        let wanted = reserve(50_000);
        let answer = client.reserve_utxos(wanted.clone()).await.unwrap().reservation.unwrap();
        reservations.push((wanted, answer));
    }
    let (_, given_back) = reservations.pop().unwrap();
    let giving_back = release(&given_back);
    let released = client.release_reservation(giving_back.clone()).await.unwrap().reservation.unwrap();
    let wanted = v1::NewAddressRequest { request_id: fresh_id(), wallet_id: WALLET.to_owned(), ..Default::default() };
    let address = client.new_address(wanted.clone()).await.unwrap().address;
    Asked { orders, reservations, released: (giving_back, released), address: (wanted, address) }
}

async fn repeat(client: &Client, asked: &Asked) {
    for (order, answer) in &asked.orders {
        let again = client.create_payment(order.clone()).await.unwrap().payment.unwrap();
        assert_eq!((&again.txid, again.attempts.len()), (&answer.txid, answer.attempts.len()));
        assert_eq!(again.anchor, answer.anchor);
    }
    for (wanted, answer) in &asked.reservations {
        let again = client.reserve_utxos(wanted.clone()).await.unwrap().reservation.unwrap();
        assert_eq!(lasting(&again), lasting(answer));
    }
    let (giving_back, released) = &asked.released;
    let again = client.release_reservation(giving_back.clone()).await.unwrap().reservation.unwrap();
    assert_eq!((&again.reservation_id, again.state), (&released.reservation_id, released.state));
    let (wanted, address) = &asked.address;
    assert_eq!(&client.new_address(wanted.clone()).await.unwrap().address, address);
}

async fn tell(client: &Client) -> Told {
    let wallet_id = WALLET.to_owned();
    let page_size = 1_000;
    let payments = v1::ListPaymentsRequest { wallet_id: wallet_id.clone(), page_size, ..Default::default() };
    let utxos = v1::ListUtxosRequest { wallet_id: wallet_id.clone(), page_size, ..Default::default() };
    let reservations = v1::ListReservationsRequest { page_size, ..Default::default() };
    let balance = v1::GetBalanceRequest { wallet_id: wallet_id.clone(), ..Default::default() };
    let wallet = v1::GetWalletRequest { wallet_id, consistency: None };
    let balance = client.get_balance(balance).await.unwrap();
    Told {
        payments: client.list_payments(payments).await.unwrap().payments,
        utxos: client.list_utxos(utxos).await.unwrap().utxos,
        reservations: client.list_reservations(reservations).await.unwrap().reservations,
        wallet: client.get_wallet(wallet).await.unwrap().wallet.unwrap(),
        balance: balance.balance.unwrap(),
        tip: balance.tip.unwrap(),
    }
}

/// What is told once the mined blocks have been followed and every payment is in one of them.
async fn quiet(client: &Client) -> Told {
    eventually("every payment is in a block", async || {
        let told = tell(client).await;
        let open: Vec<_> =
            told.payments.iter().filter(|one| one.state() != v1::PaymentState::Confirming).cloned().collect();
        let deep = told.payments.iter().flat_map(|one| &one.attempts).all(|attempt| attempt.depth == 2);
        need(open.is_empty() && deep, || format!("{open:?}"))?;
        // Its parts are read one after the other, and some may be from before the last block.
        Ok(tell(client).await)
    })
    .await
}

fn same(before: &Told, after: &Told) {
    assert_eq!(before.payments.len(), PAYMENTS);
    assert_eq!(before.reservations.len(), RESERVATIONS - 1);
    assert_eq!(before.payments, after.payments);
    assert_eq!(before.utxos, after.utxos);
    let lasting_of = |told: &Told| told.reservations.iter().map(lasting).collect::<Vec<_>>();
    assert_eq!(lasting_of(before), lasting_of(after));
    let left = left_ms(before).into_iter().zip(left_ms(after));
    assert!(left.clone().all(|(earlier, later)| 0 < later && later <= earlier), "{:?}", left.collect::<Vec<_>>());
    assert_eq!((&before.wallet, &before.balance, &before.tip), (&after.wallet, &after.balance, &after.tip));
}

/// A reservation but for its coins' depths, which grow with each block, and its times: they are shown on the answering
/// node's clock, and the cluster's stood still meanwhile. What is left of it never grows.
fn lasting(reservation: &v1::Reservation) -> v1::Reservation {
    let mut lasting = v1::Reservation {
        create_time: None,
        expire_time: None,
        max_expire_time: None,
        remaining: None,
        ..reservation.clone()
    };
    for utxo in &mut lasting.utxos {
        utxo.depth = 0;
    }
    lasting
}

fn left_ms(told: &Told) -> Vec<i64> {
    let left = told.reservations.iter().map(|reservation| reservation.remaining.unwrap_or_default());
    left.map(|left| left.seconds * 1_000 + i64::from(left.nanos) / 1_000_000).collect()
}

/// Drives the log on until every node has noted a hash at a further index, and compares them.
async fn next_hash(scene: &Scene, client: &Client) -> u64 {
    let operator = scene.operator();
    let first = operator.get_status(v1::GetStatusRequest {}).await.unwrap().last_log_index;
    let wanted = (first / HASH_EVERY + 1) * HASH_EVERY;
    let mut at = first;
    while at < wanted {
        let reservation = client.reserve_utxos(reserve(10_000)).await.unwrap().reservation.unwrap();
        at = client.release_reservation(release(&reservation)).await.unwrap().applied_index;
    }
    eventually("equal state hashes", async || {
        let mut hashes = BTreeMap::new();
        for index in 0..NODES {
            let status = operator.get_status_of(&scene.addresses(index).control.to_string()).await;
            let status = status.map_err(|error| error.to_string())?;
            assert_eq!(status.alarms, Vec::<String>::new(), "node {}", index + 1);
            hashes.insert(index, status.state_hash.ok_or("no hash yet")?);
        }
        let indexes: Vec<u64> = hashes.values().map(|hash| hash.index).collect();
        need(indexes.iter().all(|index| *index == indexes[0] && *index >= wanted), || format!("{indexes:?}"))?;
        assert!(hashes.values().all(|hash| *hash == hashes[&0]), "{hashes:?}");
        assert_eq!(hashes[&0].hash.len(), 32);
        Ok(indexes[0])
    })
    .await
}
