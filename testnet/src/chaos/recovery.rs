//! After the faults: how long until the cluster works again, until all that was begun is settled, and until all nodes have
//! come to the same state.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::reserve_utxos_request::{Expiration, What};
use onespend_proto::v1::{ReleaseReservationRequest, ReserveUtxosRequest, Selection};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

use super::nodes::Nodes;
use super::stage::Stage;
use crate::cluster::{Cluster, Node};
use crate::grpc;
use crate::health;
use crate::history::PaymentSeen;
use crate::hot::WALLET;
use crate::oracle::hashes::{self, HashSeen};

/// How long is waited for a cluster that does not heal.
const HEAL_PATIENCE: Duration = Duration::from_mins(1);
/// And for payments that do not settle.
const SETTLE_PATIENCE: Duration = Duration::from_mins(3);
/// Blocks come faster when only depth is missing.
const SETTLE_PACE: Duration = Duration::from_millis(400);
const LIST_PATIENCE: Duration = Duration::from_secs(30);
const HEALTH_TIMEOUT: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(20);
const AMOUNT_SAT: i64 = 10_000;
/// A node notes its state's hash at every index that is a multiple of this.
const HASH_EVERY: u64 = 128;

/// From `calm`, when faults had ended and all processes ran, until a write by each node's route is acknowledged and exactly
/// one node is primary; `None` if that does not happen in time.
///
/// # Errors
/// A certificate cannot be read.
pub fn heal(cluster: &Cluster, runtime: &Runtime, calm: Instant) -> Result<Option<Duration>> {
    let deadline = calm + HEAL_PATIENCE;
    let _inside = runtime.enter();
    for (number, node) in cluster.nodes().iter().enumerate() {
        let channel = grpc::channel(node.advertised(), cluster.client())?;
        let mut tries = 0_u32;
        while runtime.block_on(grpc::bounded(write(&channel, &format!("heal-{number}-{tries}")))).is_err() {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tries += 1;
            thread::sleep(POLL);
        }
    }
    loop {
        let addresses: Vec<SocketAddr> = cluster.nodes().iter().map(|node: &Node| node.addresses().health).collect();
        let yes = addresses.iter().filter(|address| health::status(**address, "/primary", HEALTH_TIMEOUT) == 200);
        if yes.count() == 1 {
            return Ok(Some(calm.elapsed()));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// A reservation, given back at once.
///
/// # Errors
/// What the service or the way to it said.
pub async fn write(channel: &Channel, request_id: &str) -> Result<(), Status> {
    let mut client = ReservationServiceClient::new(channel.clone());
    let request = reservation(request_id.to_owned());
    let reservation = client.reserve_utxos(request).await?.into_inner().reservation.unwrap_or_default();
    let release = ReleaseReservationRequest {
        request_id: format!("{request_id}-back"),
        reservation_id: reservation.reservation_id,
        fence: reservation.fence,
    };
    client.release_reservation(release).await.map(drop)
}

/// What is asked for to see whether coins are granted: any, for a second.
pub fn reservation(request_id: String) -> ReserveUtxosRequest {
    let ttl = prost_types::Duration { seconds: 1, nanos: 0 };
    ReserveUtxosRequest {
        request_id,
        wallet_id: WALLET.to_owned(),
        what: Some(What::Selection(Selection { target_sat: AMOUNT_SAT, feerate_sat_vb: 1.0, ..Selection::default() })),
        expiration: Some(Expiration::Ttl(ttl)),
        ..ReserveUtxosRequest::default()
    }
}

/// Mines until every payment has come to its end, and returns all of them; also those that did not, after a while.
///
/// # Errors
/// The payments cannot be listed.
pub fn settle(
    stage: &mut Stage,
    nodes: &Nodes,
    runtime: &Runtime,
    tell: &mut dyn FnMut(usize, usize),
) -> Result<Vec<PaymentSeen>> {
    stage.blocks().set_pace(SETTLE_PACE);
    let deadline = Instant::now() + SETTLE_PATIENCE;
    loop {
        let payments = runtime.block_on(nodes.payments(LIST_PATIENCE)).context("after the faults ended")?;
        let open = payments.iter().filter(|payment| is_open(payment)).count();
        tell(payments.len() - open, payments.len());
        if open == 0 || Instant::now() >= deadline {
            return Ok(payments);
        }
        thread::sleep(SETTLE_PACE);
    }
}

/// Whether a payment may still go on.
pub fn is_open(payment: &PaymentSeen) -> bool {
    !matches!(payment.state.as_str(), "SETTLED" | "CANCELLED" | "DEAD")
}

/// Drives the log over the next index at which nodes note a hash of their state, and waits until all of them have told
/// of one from there on. Says whether they did.
///
/// # Errors
/// A certificate cannot be read.
pub fn compare_hashes(cluster: &Cluster, nodes: &Nodes, runtime: &Runtime) -> Result<bool> {
    let _inside = runtime.enter();
    let channel = grpc::channel(cluster.primary_address(), cluster.client())?;
    let applied = || runtime.block_on(nodes.applied()).into_iter().flatten().max().unwrap_or(0);
    let target = (applied() / HASH_EVERY + 1) * HASH_EVERY;
    let deadline = Instant::now() + LIST_PATIENCE;
    let mut tries = 0_u32;
    while Instant::now() < deadline {
        let told: Vec<HashSeen> = nodes.hashes().into_iter().filter(|seen| seen.index >= target).collect();
        if hashes::compared(&told, cluster.nodes().len()) > 0 {
            return Ok(true);
        }
        if applied() < target {
            let _another_one_follows = runtime.block_on(grpc::bounded(write(&channel, &format!("hash-{tries}"))));
            tries += 1;
        } else {
            thread::sleep(POLL);
        }
    }
    Ok(false)
}

/// Waits until all nodes have applied the same entries, as far as that can be seen.
///
/// # Errors
/// They have not for long; what each had applied at last.
pub fn catch_up(nodes: &Nodes, runtime: &Runtime) -> Result<(), Vec<Option<u64>>> {
    let deadline = Instant::now() + LIST_PATIENCE;
    loop {
        let applied = runtime.block_on(nodes.applied());
        if is_same(&applied) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(applied);
        }
        thread::sleep(POLL);
    }
}

/// Whether all nodes answered, and with the same index.
fn is_same(applied: &[Option<u64>]) -> bool {
    applied.iter().all(|index| index.is_some() && Some(index) == applied.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_lags_or_does_not_answer_has_not_caught_up() {
        assert!(is_same(&[Some(7), Some(7), Some(7)]));
        assert!(!is_same(&[Some(7), Some(6), Some(7)]));
        assert!(!is_same(&[Some(7), Some(7), None]) && !is_same(&[None, None, None]));
    }
}
