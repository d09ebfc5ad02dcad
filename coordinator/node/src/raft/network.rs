//! openraft's network over the tonic service `RaftService`, with mutual TLS.
//!
//! openraft gives its streams no deadline, so each wait here has one. Every failure is `Unreachable`, because that alone
//! makes openraft pause before it tries again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use onespend_proto::CLUSTER_METADATA_KEY;
use onespend_proto::peer::v1 as wire;
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use tonic::metadata::{Ascii, MetadataValue};

use super::acks::{Acks, Sent};
use super::acquaintance::{Acquaintance, Refused};
use super::append_stream::{self, HeartbeatLink};
use super::channels::{Channels, Lane, PeerStub};
use super::dating::{Dating, QuorumAcked};
use super::doubt::Doubt;
use super::reach::Reach;
use super::snapshot_send;
use super::types::{Addresses, NodeId, Snapshot, SnapshotFile, TypeConfig, Vote};
use super::wire as convert;

/// Metadata key that says which node a message is meant for. Were an address wrong, one node could otherwise answer, and
/// vote, in the place of another.
pub const TARGET_METADATA_KEY: &str = "onespend-target-node";

/// Pauses between attempts to reach a node that cannot be reached: double from 10 ms up to 200 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

pub(crate) type RpcError = RPCError<TypeConfig>;
pub(crate) type AppendAnswer = Result<StreamAppendResult<TypeConfig>, RpcError>;

pub(crate) fn unreachable(why: impl ToString) -> Unreachable<TypeConfig> {
    Unreachable::from_string(why)
}

/// `Unreachable` as the error of an RPC.
pub(crate) fn failed(why: impl ToString) -> RpcError {
    RPCError::Unreachable(unreachable(why))
}

/// Makes clients for the other nodes; all of them share the connections.
pub(crate) struct Network {
    cluster: MetadataValue<Ascii>,
    acquaintance: Acquaintance,
    channels: Channels,
    reach: Reach,
    acks: Acks,
    quorum: QuorumAcked,
    doubt: Doubt,
}

impl Network {
    /// `cluster_id` is the cluster's name as configured, plain ASCII.
    pub(crate) fn new(
        cluster_id: &str,
        channels: Channels,
        acquaintance: Acquaintance,
        acks: Acks,
        quorum: QuorumAcked,
        doubt: Doubt,
    ) -> Result<Self, tonic::metadata::errors::InvalidMetadataValue> {
        let (cluster, reach) = (cluster_id.parse()?, Reach::default());
        Ok(Self { cluster, acquaintance, channels, reach, acks, quorum, doubt })
    }

    fn client(&self, target: NodeId, at: &Addresses, lane: Lane) -> PeerClient {
        let (cluster, acquaintance) = (self.cluster.clone(), self.acquaintance.clone());
        let letterhead = Letterhead { cluster, target, acquaintance };
        let (channels, reach, acks) = (self.channels.clone(), self.reach.clone(), self.acks.clone());
        let (quorum, doubt) = (Arc::clone(&self.quorum), self.doubt.clone());
        PeerClient { channels, at: at.clone(), lane, letterhead, reach, acks, quorum, doubt, heartbeats: None }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, node: &Addresses) -> PeerClient {
        self.client(target, node, Lane::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Addresses) -> PeerClient {
        self.client(target, node, Lane::Urgent)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &Addresses) -> PeerClient {
        self.client(target, node, Lane::Snapshot)
    }
}

/// What every message says about where it comes from and where it should go.
#[derive(Clone)]
pub(crate) struct Letterhead {
    cluster: MetadataValue<Ascii>,
    target: NodeId,
    acquaintance: Acquaintance,
}

impl Letterhead {
    pub(crate) fn target(&self) -> NodeId {
        self.target
    }

    pub(crate) fn on<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(CLUSTER_METADATA_KEY, self.cluster.clone());
        request.metadata_mut().insert(TARGET_METADATA_KEY, self.target.into());
        self.acquaintance.introduce(self.target, request.metadata_mut());
        request
    }

    /// An answer counts only if it comes from the node that has always been there.
    pub(crate) fn check<T>(&self, answer: tonic::Response<T>) -> Result<T, Refused> {
        self.acquaintance.meet(self.target, answer.metadata())?;
        Ok(answer.into_inner())
    }
}

/// One node, as one task of openraft talks to it.
pub(crate) struct PeerClient {
    channels: Channels,
    at: Addresses,
    lane: Lane,
    letterhead: Letterhead,
    reach: Reach,
    acks: Acks,
    quorum: QuorumAcked,
    doubt: Doubt,
    /// Open between heartbeats.
    heartbeats: Option<HeartbeatLink>,
}

impl PeerClient {
    fn stub(&self, lane: Lane) -> Result<PeerStub, Unreachable<TypeConfig>> {
        self.channels.to(self.letterhead.target, &self.at, lane).map_err(unreachable)
    }

    /// Takes the link out while it is used: a caller that stops waiting drops it, and an answer that comes too late is
    /// never taken for the answer to a later heartbeat.
    async fn heartbeat(&mut self, request: AppendEntriesRequest<TypeConfig>) -> AppendAnswer {
        // Both before the link is opened, which may take long: they speak of the request as it is now.
        let (sent, message) = (Sent::now(&request), self.dating().message(request));
        let mut link = match self.heartbeats.take() {
            Some(link) => link,
            None => HeartbeatLink::open(self.stub(Lane::Urgent)?, &self.letterhead).await?,
        };
        let (answer, moment) = link.ask(message).await;
        let answer = answer?;
        self.acks.note(self.letterhead.target, sent, &answer, moment);
        if answer.is_ok() {
            self.heartbeats = Some(link);
        }
        Ok(answer)
    }

    fn dating(&self) -> Dating {
        Dating { to: self.letterhead.target, acks: self.acks.clone(), quorum: Arc::clone(&self.quorum) }
    }

    async fn ballot<R>(
        &self,
        deadline: Duration,
        send: impl AsyncFnOnce(PeerStub) -> Result<tonic::Response<R>, tonic::Status>,
    ) -> Result<R, RpcError> {
        let stub = self.stub(Lane::Urgent)?;
        match tokio::time::timeout(deadline, send(stub)).await {
            Ok(answer) => self.letterhead.check(answer.map_err(failed)?).map_err(failed),
            Err(_) => Err(failed("no answer in time")),
        }
    }
}

impl NetStreamAppend<TypeConfig> for PeerClient {
    fn stream_append<S>(
        &mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'_, Result<BoxStream<'_, AppendAnswer>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.lane != Lane::Urgent {
                return append_stream::open(self.stub(self.lane)?, &self.letterhead, self.dating(), input).await;
            }
            let Some(request) = input.next().await else { return Ok(stream::empty().boxed()) };
            let pending = self.reach.ask(self.letterhead.target);
            let answer = self.heartbeat(request).await;
            pending.end(&answer);
            Ok(stream::iter([answer]).boxed())
        })
    }
}

impl NetVote<TypeConfig> for PeerClient {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = wire::VoteRequest { ballot: Some(convert::ballot(&request)) };
        let request = self.letterhead.on(message);
        let answer = self.ballot(option.hard_ttl(), async |mut stub| stub.vote(request).await).await?;
        convert::read_ballot_result(answer.result).map_err(failed)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = wire::PreVoteRequest { ballot: Some(convert::ballot(&request)) };
        let request = self.letterhead.on(message);
        let answer = self.ballot(option.hard_ttl(), async |mut stub| stub.pre_vote(request).await).await?;
        convert::read_ballot_result(answer.result).map_err(failed)
    }
}

impl NetTransferLeader<TypeConfig> for PeerClient {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let request = self.letterhead.on(convert::transfer_request(&request));
        let answer = self.ballot(option.hard_ttl(), async |mut stub| stub.transfer_leader(request).await).await?;
        convert::read_transfer_response(answer).map_err(failed)
    }
}

impl NetSnapshot<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotFile;

    /// Nothing of a state that may be wrong is sent, nor sent to its end: who has it agrees with it, and would decide
    /// for it (safety 31).
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let stub = self.stub(Lane::Snapshot)?;
        let cluster = self.letterhead.cluster.to_str().unwrap_or_default().to_owned();
        let sent = snapshot_send::send(stub, &self.letterhead, cluster, &vote, snapshot, option.hard_ttl());
        tokio::select! {
            biased;
            () = self.doubt.begins() => Err(StreamingError::Unreachable(unreachable("the state here may be wrong"))),
            answer = sent => answer.map_err(StreamingError::Unreachable),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

impl NetBackoff<TypeConfig> for PeerClient {
    fn backoff(&self) -> Option<Backoff> {
        let pauses = std::iter::successors(Some(FIRST_PAUSE), |pause| Some((*pause * 2).min(LONGEST_PAUSE)));
        Some(Backoff::new(pauses))
    }
}
