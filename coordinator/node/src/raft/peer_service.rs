//! What this node answers to the others: the tonic service `RaftService`, on the control port.
//!
//! Each message must come from a node of this cluster, must be meant for this node, and must speak for the node whose
//! certificate it comes with. TLS alone does not say that: clients and operators have certificates of the same authority.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::{Stream, StreamExt, future};
use onespend_adapters::store::StateStore;
use onespend_proto::CLUSTER_METADATA_KEY;
use onespend_proto::peer::v1::raft_service_server::{RaftService, RaftServiceServer};
use onespend_proto::peer::v1::{
    AppendStreamRequest, AppendStreamResponse, GetNodeViewRequest, GetNodeViewResponse, InstallSnapshotRequest,
    InstallSnapshotResponse, PreVoteRequest, PreVoteResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::abstention::Abstentions;
use super::acquaintance::Acquaintance;
use super::channels::MAX_MESSAGE_BYTES;
use super::contact::Contact;
use super::network::TARGET_METADATA_KEY;
use super::snapshot_receive;
use super::types::{NodeId, Raft, Snapshot, Vote};
use super::wire::{self, Malformed};

/// Snapshots that are received at the same time: the transfer of a new leader need not wait for that of the old one.
const MAX_INCOMING_SNAPSHOTS: usize = 2;

/// Reads from a request's TLS information which node sent it. `Err` says why it is none.
pub type PeerIdentity = Arc<dyn Fn(&Extensions) -> Result<NodeId, String> + Send + Sync>;
/// Gives this node's view of its bitcoind and its state hashes. Must not block.
pub type NodeView = Arc<dyn Fn() -> GetNodeViewResponse + Send + Sync>;

/// The server side of Raft.
pub struct PeerService {
    pub(crate) cluster_id: String,
    pub(crate) node_id: NodeId,
    pub(crate) raft: Raft,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) identity: PeerIdentity,
    pub(crate) view: NodeView,
    pub(crate) contact: Contact,
    pub(crate) acquaintance: Acquaintance,
    pub(crate) abstentions: Abstentions,
    pub(crate) stopping: CancellationToken,
    pub(crate) incoming: Semaphore,
}

impl PeerService {
    pub(crate) fn permits() -> Semaphore {
        Semaphore::new(MAX_INCOMING_SNAPSHOTS)
    }

    /// As a service for a tonic server.
    pub fn into_server(self) -> RaftServiceServer<Self> {
        RaftServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The node that sent the request.
    // A refusal is as large as tonic makes it, and rare.
    #[allow(clippy::result_large_err)]
    fn sender<T>(&self, request: &Request<T>) -> Result<Sender, Status> {
        if self.stopping.is_cancelled() {
            return Err(Status::unavailable("this node stops"));
        }
        let node = (self.identity)(request.extensions()).map_err(Status::permission_denied)?;
        let says = |key| request.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let cluster = says(CLUSTER_METADATA_KEY);
        if cluster != self.cluster_id {
            let why = format!("this is a node of cluster {:?}, not of {cluster:?}", self.cluster_id);
            return Err(Status::failed_precondition(why));
        }
        let target = says(TARGET_METADATA_KEY);
        if target != self.node_id.to_string() {
            let why = format!("this is node {}, not node {target:?}: an address is wrong", self.node_id);
            return Err(Status::failed_precondition(why));
        }
        if node == self.node_id {
            return Err(Status::failed_precondition(format!("two nodes have the id {node}")));
        }
        Ok(Sender(node))
    }

    /// The same, and it and this node have the disks that they always had: only then do votes and appends count.
    #[allow(clippy::result_large_err)] // As above.
    fn peer<T>(&self, request: &Request<T>) -> Result<Sender, Status> {
        let sender = self.sender(request)?;
        self.acquaintance.check_own(sender.0, request.metadata()).map_err(Status::failed_precondition)?;
        self.acquaintance.meet(sender.0, request.metadata()).map_err(|refused| {
            tracing::warn!(node = sender.0, %refused, "a node is refused");
            Status::failed_precondition(refused.to_string())
        })?;
        Ok(sender)
    }

    /// An answer that says which folder this node has.
    fn signed<T>(&self, message: T) -> Response<T> {
        let mut answer = Response::new(message);
        self.acquaintance.sign(answer.metadata_mut());
        answer
    }
}

/// A node that a certificate proves.
#[derive(Clone, Copy)]
pub(crate) struct Sender(NodeId);

impl Sender {
    /// Only the node that a vote is for may show it.
    #[allow(clippy::result_large_err)] // As above.
    pub(crate) fn may_show(self, vote: &Vote) -> Result<(), Status> {
        let claimed = vote.leader_id.voted_for;
        if claimed == self.0 {
            return Ok(());
        }
        Err(Status::permission_denied(format!("the certificate is of node {}, the vote of node {claimed}", self.0)))
    }
}

pub(crate) fn malformed(malformed: &Malformed) -> Status {
    Status::invalid_argument(malformed.to_string())
}

fn stopped(fatal: &impl ToString) -> Status {
    Status::unavailable(fatal.to_string())
}

type Answers = Pin<Box<dyn Stream<Item = Result<AppendStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl RaftService for PeerService {
    type AppendStreamStream = Answers;

    async fn append_stream(
        &self,
        request: Request<Streaming<AppendStreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let sender = self.peer(&request)?;
        // Answers come in the order of the appends.
        let waiting = Arc::new(Mutex::new(VecDeque::new()));
        let (arrived, contact, clock) = (Arc::clone(&waiting), self.contact.clone(), self.contact.clock());
        // The stream ends at the first message that is not as it should be; the leader opens another one.
        let appends = request.into_inner().scan((), move |(), message| {
            let read = message.map_err(|status| status.to_string()).and_then(|message| {
                let fresh = clock.fresh_at(&message);
                let append = wire::read_append_request(message).map_err(|error| error.to_string())?;
                sender.may_show(&append.vote).map_err(|status| status.message().to_owned())?;
                let committed = append.leader_commit.map_or(0, |id| id.index);
                arrived.lock().unwrap_or_else(PoisonError::into_inner).push_back((Instant::now(), fresh, committed));
                Ok(append)
            });
            if let Err(why) = &read {
                tracing::debug!(peer = sender.0, why, "a stream of appends ends");
            }
            future::ready(read.ok())
        });
        let answers = self.raft.stream_append(appends.take_until(self.stopping.clone().cancelled_owned()));
        let answers = answers
            .map(move |answer| {
                let append = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                if let (Some((at, fresh, committed)), Ok(Ok(_))) = (append, &answer) {
                    contact.accepted(at, fresh, committed);
                }
                let signed = |result| AppendStreamResponse { moment: clock.shows(), ..wire::append_result(&result) };
                answer.map(signed).map_err(|fatal| stopped(&fatal))
            })
            .take_until(self.stopping.clone().cancelled_owned());
        let answers: Answers = Box::pin(answers);
        Ok(self.signed(answers))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        let sender = self.peer(&request)?;
        let ballot = wire::read_ballot(request.into_inner().ballot).map_err(|error| malformed(&error))?;
        sender.may_show(&ballot.vote)?;
        let result = self.raft.vote(ballot).await.map_err(|fatal| stopped(&fatal))?;
        Ok(self.signed(VoteResponse { result: Some(wire::ballot_result(&result)) }))
    }

    async fn pre_vote(&self, request: Request<PreVoteRequest>) -> Result<Response<PreVoteResponse>, Status> {
        let sender = self.peer(&request)?;
        let ballot = wire::read_ballot(request.into_inner().ballot).map_err(|error| malformed(&error))?;
        sender.may_show(&ballot.vote)?;
        let result = self.raft.pre_vote(ballot).await.map_err(|fatal| stopped(&fatal))?;
        Ok(self.signed(PreVoteResponse { result: Some(wire::ballot_result(&result)) }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<InstallSnapshotResponse>, Status> {
        let sender = self.peer(&request)?;
        let Ok(_permit) = self.incoming.try_acquire() else {
            return Err(Status::resource_exhausted("other snapshots are being received"));
        };
        let received =
            snapshot_receive::receive(request.into_inner(), sender, &self.cluster_id, Arc::clone(&self.store)).await?;
        let snapshot = Snapshot { meta: received.meta, snapshot: received.file };
        let answer = self.raft.install_full_snapshot(received.vote, snapshot).await.map_err(|fatal| stopped(&fatal))?;
        Ok(self.signed(InstallSnapshotResponse { vote: Some(wire::vote(&answer.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let sender = self.peer(&request)?;
        let to_this_node = request.get_ref().to_node_id == self.node_id;
        let transfer = wire::read_transfer_request(request.into_inner()).map_err(|error| malformed(&error))?;
        sender.may_show(transfer.from_leader())?;
        if to_this_node && self.abstentions.any() {
            return Err(Status::failed_precondition("this node stands for no election"));
        }
        let answer = self.raft.handle_transfer_leader(transfer).await.map_err(|fatal| stopped(&fatal))?;
        Ok(self.signed(wire::transfer_response(&answer)))
    }

    async fn get_node_view(
        &self,
        request: Request<GetNodeViewRequest>,
    ) -> Result<Response<GetNodeViewResponse>, Status> {
        self.sender(&request)?;
        Ok(Response::new((self.view)()))
    }
}
