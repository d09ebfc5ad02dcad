//! What the harness itself asks the nodes, past the relays: state hashes all the time, and lists for the judges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use onespend_proto::v1::cluster_service_client::ClusterServiceClient;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use onespend_proto::v1::{
    GetStatusRequest, GetWalletRequest, ListPaymentsRequest, ListReservationsRequest, PaymentState, ReservationState,
};
use tonic::Status;
use tonic::transport::Channel;

use super::calls::{named, payment_seen};
use crate::cluster::{Cluster, Credentials};
use crate::grpc;
use crate::history::PaymentSeen;
use crate::hot::WALLET;
use crate::oracle::hashes::HashSeen;

const PACE: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_millis(50);
const PAGE: i32 = 1_000;

/// Ways to every node for an operator.
#[derive(Clone, Debug)]
pub struct Nodes {
    data: Vec<Channel>,
    control: Vec<Channel>,
    hashes: Arc<Mutex<Vec<HashSeen>>>,
}

impl Nodes {
    /// To all nodes of a cluster. Needs a runtime around it.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let addresses = cluster.nodes().iter().map(crate::cluster::Node::addresses);
        let (data, control): (Vec<SocketAddr>, Vec<SocketAddr>) =
            addresses.map(|address| (address.data, address.control)).unzip();
        let open = |addresses: Vec<SocketAddr>, credentials: &Credentials| {
            addresses.into_iter().map(|address| grpc::channel(address, credentials)).collect::<Result<Vec<_>>>()
        };
        let (data, control) = (open(data, cluster.operator())?, open(control, cluster.operator())?);
        Ok(Self { data, control, hashes: Arc::default() })
    }

    /// Every hash that a node told of until now.
    pub fn hashes(&self) -> Vec<HashSeen> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks a node for its hash, for ever.
    pub async fn follow_hashes(self, node: usize) {
        let Some(channel) = self.control.get(node).cloned() else { return };
        let mut client = ClusterServiceClient::new(channel);
        let mut last = None;
        loop {
            // One that is down or frozen tells nothing.
            if let Ok(status) = grpc::bounded(client.get_status(GetStatusRequest {})).await
                && let Some(told) = status.into_inner().state_hash
            {
                let seen = HashSeen { node, index: told.index, hash: told.hash.to_vec() };
                if last.as_ref() != Some(&seen) {
                    last = Some(seen.clone());
                    self.hashes.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// The log index that each node has applied; `None` for one that does not answer.
    pub async fn applied(&self) -> Vec<Option<u64>> {
        let mut all = Vec::new();
        for channel in &self.control {
            let mut client = ClusterServiceClient::new(channel.clone());
            let status = grpc::bounded(client.get_status(GetStatusRequest {})).await;
            all.push(status.ok().map(|status| status.into_inner().applied_index));
        }
        all
    }

    /// The alarms that each node shows; `None` for one that does not answer.
    pub async fn alarms(&self) -> Vec<Option<Vec<String>>> {
        let mut all = Vec::new();
        for channel in &self.control {
            let mut client = ClusterServiceClient::new(channel.clone());
            let status = grpc::bounded(client.get_status(GetStatusRequest {})).await;
            all.push(status.ok().map(|status| status.into_inner().alarms));
        }
        all
    }

    /// All payments of the wallet, from a linearizable read.
    ///
    /// # Errors
    /// No node answers within `patience`.
    pub async fn payments(&self, patience: Duration) -> Result<Vec<PaymentSeen>> {
        self.by_any(patience, |channel| list_payments(channel, Vec::new())).await.context("ListPayments")
    }

    /// The payments of which an attempt waits for its signature, from a linearizable read.
    ///
    /// # Errors
    /// No node answers within `patience`.
    pub async fn signing(&self, patience: Duration) -> Result<Vec<PaymentSeen>> {
        let states = vec![PaymentState::Signing.into()];
        self.by_any(patience, |channel| list_payments(channel, states.clone())).await.context("ListPayments")
    }

    /// All active reservations with their coins, from a linearizable read.
    ///
    /// # Errors
    /// No node answers within `patience`.
    pub async fn active(&self, patience: Duration) -> Result<BTreeMap<String, BTreeSet<String>>> {
        self.by_any(patience, list_active).await.context("ListReservations")
    }

    /// Why the wallet is frozen, from a linearizable read; empty when it is not.
    ///
    /// # Errors
    /// No node answers within `patience`.
    pub async fn frozen_note(&self, patience: Duration) -> Result<String> {
        self.by_any(patience, frozen_note).await.context("GetWallet")
    }

    async fn by_any<T, F>(&self, patience: Duration, list: impl Fn(Channel) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + patience;
        for channel in self.data.iter().cycle() {
            match grpc::bounded(list(channel.clone())).await {
                Ok(found) => return Ok(found),
                Err(status) if Instant::now() >= deadline => bail!("{:?}: {}", status.code(), status.message()),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        bail!("there are no nodes")
    }
}

async fn frozen_note(channel: Channel) -> Result<String, Status> {
    let request = GetWalletRequest { wallet_id: WALLET.to_owned(), consistency: None };
    let answer = WalletServiceClient::new(channel).get_wallet(request).await?.into_inner();
    Ok(answer.wallet.unwrap_or_default().frozen_note)
}

/// Payments in one of these states; all if there are none.
async fn list_payments(channel: Channel, states: Vec<i32>) -> Result<Vec<PaymentSeen>, Status> {
    let mut client = PaymentServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListPaymentsRequest {
            wallet_id: WALLET.to_owned(),
            states: states.clone(),
            page_size: PAGE,
            page_token,
            ..ListPaymentsRequest::default()
        };
        let answer = client.list_payments(request).await?.into_inner();
        all.extend(answer.payments.iter().map(payment_seen));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

async fn list_active(channel: Channel) -> Result<BTreeMap<String, BTreeSet<String>>, Status> {
    let mut client = ReservationServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let (mut all, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = ListReservationsRequest {
            wallet_id: WALLET.to_owned(),
            states: vec![ReservationState::Active.into()],
            page_size: PAGE,
            page_token,
            ..ListReservationsRequest::default()
        };
        let answer = client.list_reservations(request).await?.into_inner();
        for reservation in answer.reservations {
            let coins = reservation.utxos.iter().filter_map(|utxo| utxo.outpoint.as_ref()).map(named).collect();
            all.insert(reservation.reservation_id, coins);
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}
