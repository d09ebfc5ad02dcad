//! Connections to the other nodes: opened when first needed, kept, and shared by everything that goes the same way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onespend_proto::peer::v1::raft_service_client::RaftServiceClient;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::types::{Addresses, NodeId};
use crate::dial;

/// Opening a connection, TLS included, takes at most this long.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection that is silent for so long is asked for a sign of life,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// and is given up when that does not come within this time. After a partition that dropped packets silently, this is
/// how long an old connection can stand in the way of a new one.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// What the receiver takes before it has to acknowledge: more than one message of log entries.
const WINDOW_BYTES: u32 = 4 << 20;
/// The largest message between nodes, in either direction: the largest proposal and a message of records before it.
pub(crate) const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// Messages that must not wait for each other go on connections of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Log entries.
    Entries,
    /// Heartbeats, votes and transfers of leadership: small, and late is as bad as never.
    Urgent,
    /// Snapshots.
    Snapshot,
}

pub(crate) type PeerStub = RaftServiceClient<Channel>;

/// All connections of this node to others. Clones share them.
#[derive(Clone)]
pub(crate) struct Channels {
    tls: ClientTlsConfig,
    /// Control addresses by the latest membership.
    places: Arc<Mutex<HashMap<NodeId, String>>>,
    open: Arc<Mutex<HashMap<(NodeId, Lane), Open>>>,
}

struct Open {
    address: String,
    channel: Channel,
}

impl Channels {
    pub(crate) fn new(tls: ClientTlsConfig) -> Self {
        Self { tls, places: Arc::default(), open: Arc::default() }
    }

    /// Where the members are reached from now on.
    pub(crate) fn place<'a>(&self, members: impl Iterator<Item = (&'a NodeId, &'a Addresses)>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        *places = members.map(|(node, at)| (*node, at.control.clone())).collect();
    }

    /// The connection to a node, which was at `at` when it was first asked for. It connects, and connects again after a
    /// failure, when it is used.
    pub(crate) fn to(&self, node: NodeId, at: &Addresses, lane: Lane) -> Result<PeerStub, tonic::transport::Error> {
        let moved = self.places.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned();
        let control = moved.unwrap_or_else(|| at.control.clone());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(&(node, lane))
            && known.address == control
        {
            return Ok(stub(known.channel.clone()));
        }
        let channel = dial::lazily(&self.endpoint(&control)?);
        open.insert((node, lane), Open { address: control, channel: channel.clone() });
        Ok(stub(channel))
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(self.tls.clone())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        Ok(endpoint)
    }
}

fn stub(channel: Channel) -> PeerStub {
    RaftServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
