//! Passing requests on, to the leader or to the node that is meant: the same call on its control port, with this node's
//! certificate and the caller's name beside it.

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
use tonic::{Code, Request, Response, Status};

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

/// Connections to other nodes, by address; made when first needed and kept.
pub(crate) struct Forward {
    tls: ClientTlsConfig,
    max_message_bytes: usize,
    channels: Mutex<BTreeMap<String, Channel>>,
}

/// The services of another node.
pub(crate) struct NodeClients {
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

    /// Has another node answer a request.
    ///
    /// # Errors
    /// What it says, or that its answer was lost; `NOT_LEADER` with the hint, when its address is no address.
    pub(crate) async fn pass<Req, Res, Pass, PassFuture>(
        &self,
        to: &LeaderHint,
        request: Request<Req>,
        caller: &Caller,
        deadline: Instant,
        passed: Passed,
        pass: Pass,
    ) -> Result<Response<Res>, Status>
    where
        Pass: FnOnce(NodeClients, Request<Req>) -> PassFuture,
        PassFuture: Future<Output = Result<Response<Res>, Status>>,
    {
        let clients = self.clients(to)?;
        let answered = pass(clients, dress(request, caller, deadline)).await;
        answered.map_err(|error| answer(error, passed, self.max_message_bytes))
    }

    /// Clients of a node's control port.
    fn clients(&self, to: &LeaderHint) -> Result<NodeClients, Status> {
        let channel = self.channel(&to.addresses.control).ok_or_else(|| status::not_leader(Some(to)))?;
        let limit = self.max_message_bytes;
        Ok(NodeClients {
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
}

/// The request as this node sends it: the caller's name, the trace, and what is left of the deadline.
fn dress<Req>(request: Request<Req>, caller: &Caller, deadline: Instant) -> Request<Req> {
    let mut dressed = Request::new(request.into_inner());
    // A caller id is printable ASCII, so it always is a metadata value.
    if let Ok(name) = MetadataValue::try_from(caller.id.as_str()) {
        dressed.metadata_mut().insert(CALLER_METADATA_KEY, name);
    }
    telemetry::inject(dressed.metadata_mut());
    dressed.set_timeout(deadline.saturating_duration_since(Instant::now()));
    dressed
}

/// What was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// A mutation: without an answer its outcome is unknown (safety 27).
    Write,
    /// A read, which applies nothing.
    Read,
    /// What a node that need not lead is told.
    ToNode,
}

impl Passed {
    /// No answer came. A write is unknown also where no connection was made, so that this try was not sent for certain:
    /// an earlier one may have reached that leader, and a refusal would say of the whole request that it was not applied.
    pub(crate) fn lost(self, why: &str) -> Status {
        match self {
            Self::Write | Self::ToNode => status::unknown(why),
            Self::Read => status::unread(why),
        }
    }

    fn silence(self) -> &'static str {
        match self {
            Self::Write | Self::Read => "the leader could not be reached, or its answer was lost",
            Self::ToNode => "the node could not be reached, or its answer was lost",
        }
    }

    /// The leader has answered, and the answer has more bytes than this node reads. Asking again leads to the same
    /// answer; of a write that is still the way to learn what became of it, at the leader itself.
    fn oversized(self, max_bytes: usize) -> Status {
        match self {
            Self::Write | Self::ToNode => status::unknown(&format!(
                "the leader's answer has more than {max_bytes} bytes (`api.max_message_bytes`), so it was not read here"
            )),
            Self::Read => status::answer_too_large(max_bytes),
        }
    }
}

/// The node's own answer passes through; a broken connection becomes a read or a write without an answer.
fn answer(error: Status, passed: Passed, max_bytes: usize) -> Status {
    if !error.details().is_empty() {
        return error;
    }
    match error.code() {
        // tonic's word for an answer that is larger than this node reads; the service itself never says it.
        Code::OutOfRange => passed.oversized(max_bytes),
        // Resources are also exhausted where HTTP/2 ended the stream.
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unknown
        | Code::Internal
        | Code::ResourceExhausted => passed.lost(passed.silence()),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_core::ids::CallerId;
    use onespend_proto::v1::{self, ErrorReason};

    use super::*;
    use crate::identity::Party;
    use crate::raft::Addresses;

    /// What a caller is told of a leader's answer.
    fn told(error: Status, passed: Passed) -> Status {
        answer(error, passed, 65_536)
    }

    #[test]
    fn an_answer_that_is_too_large_is_no_reason_to_ask_again() {
        let too_large = Status::out_of_range("Error, decoded message length too large: found 70000 bytes");
        let read = told(too_large.clone(), Passed::Read);
        assert_eq!(read.code(), Code::ResourceExhausted);
        assert!(status::is_for(&read, ErrorReason::MessageTooLarge), "{read:?}");
        let write = told(too_large, Passed::Write);
        assert_eq!(write.code(), Code::Unavailable, "it may have been applied");
        assert!(status::is_for(&write, ErrorReason::ResultUnknown), "{write:?}");
    }

    /// safety 27: this try was not sent, and an earlier one may have been.
    #[tokio::test]
    async fn a_write_to_a_leader_that_takes_no_connection_is_unknown() {
        // Bound, so that nobody else gets the port, and never listened at.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let control = silent.local_addr().unwrap().to_string();
        let leader = LeaderHint { node_id: 2, addresses: Addresses { control, ..Addresses::default() }, term: 3 };
        let id = CallerId::parse("client/payouts").unwrap();
        let caller = Caller { id, party: Party::Client("payouts".to_owned()), forwarded: false };
        let forward = Forward::new(ClientTlsConfig::new(), 65_536);
        let deadline = Instant::now() + Duration::from_secs(20);
        let pass = |mut clients: NodeClients, request: Request<v1::CancelPaymentRequest>| async move {
            clients.payment.cancel_payment(request).await
        };
        let request = Request::new(v1::CancelPaymentRequest::default());
        let told = forward.pass(&leader, request, &caller, deadline, Passed::Write, pass).await.unwrap_err();
        assert!(status::is_for(&told, ErrorReason::ResultUnknown), "{told:?}");
        drop(silent);
    }

    /// safety 27.
    #[test]
    fn an_answer_that_was_lost_is_unknown_and_the_leaders_own_word_passes() {
        for code in [Code::Unavailable, Code::Internal, Code::ResourceExhausted, Code::Cancelled] {
            let write = told(Status::new(code, "gone"), Passed::Write);
            assert!(status::is_for(&write, ErrorReason::ResultUnknown), "{code:?}");
            let read = told(Status::new(code, "gone"), Passed::Read);
            assert!(status::is_for(&read, ErrorReason::NoQuorum), "{code:?}");
            let to_node = told(Status::new(code, "gone"), Passed::ToNode);
            assert!(status::is_for(&to_node, ErrorReason::ResultUnknown), "{code:?}");
            assert!(!to_node.message().contains("leader"), "{to_node:?}");
        }
        let spoken = told(status::overloaded("later"), Passed::Write);
        assert!(status::is_for(&spoken, ErrorReason::Overloaded), "{spoken:?}");
    }
}
