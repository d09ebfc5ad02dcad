//! The ways in: every caller's channel to the leader and to a replica.

use anyhow::Result;
use onespend_proto::v1::chain_service_client::ChainServiceClient;
use onespend_proto::v1::cluster_service_client::ClusterServiceClient;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use onespend_testnet::cluster::{Addresses, Credentials};
use onespend_testnet::grpc::channel;
use tonic::transport::Channel;

/// The services of one node, as one caller.
#[derive(Clone)]
pub struct Clients {
    pub wallet: WalletServiceClient<Channel>,
    pub reservation: ReservationServiceClient<Channel>,
    pub payment: PaymentServiceClient<Channel>,
    pub chain: ChainServiceClient<Channel>,
    pub cluster: ClusterServiceClient<Channel>,
}

impl Clients {
    pub fn new(channel: Channel) -> Self {
        Self {
            wallet: WalletServiceClient::new(channel.clone()),
            reservation: ReservationServiceClient::new(channel.clone()),
            payment: PaymentServiceClient::new(channel.clone()),
            chain: ChainServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel),
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// `client/payouts`, the owner of what there is.
    Client,
    /// `client/other`.
    Other,
    /// `operator/alice`.
    Operator,
}

/// One node's data port, as each caller.
pub struct Door {
    /// `leader` or `replica`, for messages.
    pub name: &'static str,
    pub addresses: Addresses,
    client: Clients,
    other: Clients,
    operator: Clients,
}

impl Door {
    pub fn open(name: &'static str, addresses: Addresses, callers: [&Credentials; 3]) -> Result<Self> {
        let clients = |credentials| Ok::<_, anyhow::Error>(Clients::new(channel(addresses.data, credentials)?));
        let [client, other, operator] = callers;
        Ok(Self { name, addresses, client: clients(client)?, other: clients(other)?, operator: clients(operator)? })
    }

    pub fn clients(&self, who: Who) -> Clients {
        match who {
            Who::Client => self.client.clone(),
            Who::Other => self.other.clone(),
            Who::Operator => self.operator.clone(),
        }
    }
}
