//! Passing writes on to the leader: the same call on its control port, with this node's certificate and the
//! caller's name beside it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use onespend_proto::CALLER_METADATA_KEY;
use onespend_proto::v1::chain_service_client::ChainServiceClient;
use onespend_proto::v1::cluster_service_client::ClusterServiceClient;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::caller::Caller;
use super::status;
use crate::dial;
use crate::raft::LeaderHint;
use crate::telemetry;

/// Longest wait for a connection to the leader, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often an idle connection is probed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A connection whose probe is not answered in this time is given up.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections to the nodes that lead or led, by address; made when first needed and kept.
pub(crate) struct Forward {
    tls: ClientTlsConfig,
    max_message_bytes: usize,
    channels: Mutex<BTreeMap<String, Channel>>,
}

/// The leader's services.
pub(crate) struct LeaderClients {
    pub(crate) wallet: WalletServiceClient<Channel>,
    pub(crate) reservation: ReservationServiceClient<Channel>,
    pub(crate) payment: PaymentServiceClient<Channel>,
    pub(crate) chain: ChainServiceClient<Channel>,
    pub(crate) cluster: ClusterServiceClient<Channel>,
}

impl Forward {
    /// No connection is made yet.
    pub(crate) fn new(tls: ClientTlsConfig, max_message_bytes: usize) -> Self {
        Self { tls, max_message_bytes, channels: Mutex::default() }
    }

    /// Clients of the leader's control port.
    ///
    /// # Errors
    /// `NOT_LEADER` with the hint, when the address is no address.
    pub(crate) fn to(&self, leader: &LeaderHint) -> Result<LeaderClients, Status> {
        let channel = self.channel(&leader.addresses.control).ok_or_else(|| status::not_leader(Some(leader)))?;
        let limit = self.max_message_bytes;
        Ok(LeaderClients {
            wallet: WalletServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            reservation: ReservationServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            payment: PaymentServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            chain: ChainServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            cluster: ClusterServiceClient::new(channel).max_decoding_message_size(limit),
        })
    }

    fn channel(&self, address: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}")).ok()?;
        let endpoint = endpoint
            .tls_config(self.tls.clone())
            .ok()?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = dial::lazily(&endpoint);
        channels.insert(address.to_owned(), channel.clone());
        Some(channel)
    }

    /// The request as this node sends it: the caller's name, the trace, and what is left of the deadline.
    pub(crate) fn dress<Req>(request: Request<Req>, caller: &Caller, deadline: Instant) -> Request<Req> {
        let mut dressed = Request::new(request.into_inner());
        // A caller id is printable ASCII, so it always is a metadata value.
        if let Ok(name) = MetadataValue::try_from(caller.id.as_str()) {
            dressed.metadata_mut().insert(CALLER_METADATA_KEY, name);
        }
        telemetry::inject(dressed.metadata_mut());
        dressed.set_timeout(deadline.saturating_duration_since(Instant::now()));
        dressed
    }
}

/// The leader's own answer passes through; a broken connection is an unknown outcome (safety 27).
pub(crate) fn answer(error: Status) -> Status {
    let spoken = !error.details().is_empty();
    match error.code() {
        // Out of range: the answer is larger than this node reads. The request has been decided.
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unknown
        | Code::Internal
        | Code::OutOfRange
            if !spoken =>
        {
            status::unknown("the leader could not be reached, or its answer was lost")
        }
        _ => error,
    }
}
