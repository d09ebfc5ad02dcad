//! The network of a simulation. Messages go through the same encoding as over gRPC; how long each takes, and whether it
//! arrives, the weather decides.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, stream};
use onespend_adapters::store::{SnapshotDigest, StateStore};
use onespend_proto::peer::v1::AppendStreamRequest;
use openraft::OptionalSend;
use openraft::base::BoxStream;
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::oneshot;

use super::super::acks::{Acks, Sent};
use super::super::codec;
use super::super::network::{AppendAnswer, RpcError, failed, unreachable};
use super::super::types::{Addresses, NodeId, Raft, Snapshot, SnapshotFile, TypeConfig, Vote};
use super::super::wire;
use crate::raft::RaftNode;
use crate::runtime::{sleep, timeout};
use crate::simulation::executor::{Host, OUTSIDE, current};

/// A stream of appends is given up after this silence.
const SILENCE: Duration = Duration::from_secs(1);
/// What a snapshot may take.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What happens to messages.
pub(crate) trait Weather: Send + Sync {
    /// When copies of a message arrive, counted from now. None: it is lost.
    fn arrivals(&self, from: NodeId, to: NodeId) -> Vec<Duration>;
}

/// Who can be reached, and how.
#[derive(Clone)]
pub(crate) struct Lines {
    weather: Arc<dyn Weather>,
    parties: Arc<Mutex<BTreeMap<NodeId, Party>>>,
}

#[derive(Clone)]
struct Party {
    raft: Raft,
    store: Arc<dyn StateStore>,
}

type Answer<R> = Result<R, String>;
type Handler<R> = Arc<dyn Fn(Party) -> BoxFuture<'static, Answer<R>> + Send + Sync>;

impl Lines {
    pub(crate) fn new(weather: Arc<dyn Weather>) -> Self {
        Self { weather, parties: Arc::default() }
    }

    /// The node answers from now on.
    pub(crate) fn connect(&self, id: NodeId, node: &RaftNode, store: Arc<dyn StateStore>) {
        self.parties(|parties| parties.insert(id, Party { raft: node.raft().clone(), store }));
    }

    /// Nobody answers under this number any more.
    pub(crate) fn disconnect(&self, id: NodeId) {
        self.parties(|parties| parties.remove(&id));
    }

    fn parties<R>(&self, look: impl FnOnce(&mut BTreeMap<NodeId, Party>) -> R) -> R {
        look(&mut self.parties.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a message, which arrives whether the sender waits or not, and waits for the answer.
    async fn call<R: Send + 'static>(
        &self,
        from: NodeId,
        to: NodeId,
        limit: Duration,
        handler: impl Fn(Party) -> BoxFuture<'static, Answer<R>> + Send + Sync + 'static,
    ) -> Answer<R> {
        let handler: Handler<R> = Arc::new(handler);
        let (tell, answer) = oneshot::channel();
        let mut tell = Some(tell);
        for at in self.weather.arrivals(from, to) {
            let carried = self.clone().carry(from, to, at, Arc::clone(&handler), tell.take());
            outside(OUTSIDE, carried);
        }
        // A message that is lost is silence, not a refusal.
        let _lost = tell;
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the connection broke".to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn carry<R: Send + 'static>(
        self,
        from: NodeId,
        to: NodeId,
        after: Duration,
        handler: Handler<R>,
        tell: Option<oneshot::Sender<Answer<R>>>,
    ) {
        sleep(after).await;
        let Some(party) = self.parties(|parties| parties.get(&to).cloned()) else {
            return tell.map_or((), |tell| drop(tell.send(Err("nobody listens".to_owned()))));
        };
        let (done, answered) = oneshot::channel();
        outside(to, async move { drop(done.send(handler(party).await)) });
        // The receiver may die meanwhile.
        let answer = answered.await.unwrap_or_else(|_| Err("the other side is gone".to_owned()));
        let back = self.weather.arrivals(to, from).first().copied();
        let (Some(tell), Some(back)) = (tell, back) else {
            // Lost on its way back: the sender hears nothing.
            return std::future::pending().await;
        };
        sleep(back).await;
        drop(tell.send(answer));
    }
}

fn outside(host: Host, work: impl Future<Output = ()> + Send + 'static) {
    if let Some(executor) = current() {
        executor.spawn_on(host, work);
    }
}

/// Makes clients for the other nodes.
pub(crate) struct SimulatedNetwork {
    pub(crate) from: NodeId,
    pub(crate) lines: Lines,
    pub(crate) acks: Acks,
}

impl RaftNetworkFactory<TypeConfig> for SimulatedNetwork {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, _: &Addresses) -> Client {
        Client { from: self.from, to: target, lines: self.lines.clone(), acks: self.acks.clone() }
    }
}

/// One node, as one task of openraft talks to it.
#[derive(Clone)]
pub(crate) struct Client {
    from: NodeId,
    to: NodeId,
    lines: Lines,
    acks: Acks,
}

impl Client {
    async fn call<R: Send + 'static>(
        &self,
        limit: Duration,
        handler: impl Fn(Party) -> BoxFuture<'static, Answer<R>> + Send + Sync + 'static,
    ) -> Answer<R> {
        self.lines.call(self.from, self.to, limit, handler).await
    }

    async fn append(&self, request: AppendEntriesRequest<TypeConfig>) -> AppendAnswer {
        let sent = Sent::now(&request);
        let message = wire::append_request(request);
        let answer = self.call(SILENCE, move |party| take_append(party, message.clone()).boxed()).await;
        let answer = wire::read_append_result(answer.map_err(failed)?).map_err(failed)?;
        self.acks.note(self.to, sent, &answer, 0);
        Ok(answer)
    }
}

async fn take_append(
    party: Party,
    message: AppendStreamRequest,
) -> Answer<onespend_proto::peer::v1::AppendStreamResponse> {
    let request = wire::read_append_request(message).map_err(|error| error.to_string())?;
    let mut answers = Box::pin(party.raft.stream_append(stream::iter([request])));
    let answer = answers.next().await.ok_or("no answer")?.map_err(|fatal| fatal.to_string())?;
    Ok(wire::append_result(&answer))
}

impl NetStreamAppend<TypeConfig> for Client {
    fn stream_append<S>(
        &mut self,
        input: S,
        _: RPCOption,
    ) -> openraft::base::BoxFuture<'_, Result<BoxStream<'_, AppendAnswer>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let answers = stream::unfold(Some((input, self.clone())), |going| async move {
            let (mut input, client) = going?;
            let answer = client.append(input.next().await?).await;
            let goes_on = matches!(answer, Ok(Ok(_)));
            Some((answer, goes_on.then_some((input, client))))
        });
        Box::pin(async move {
            let answers: BoxStream<'_, AppendAnswer> = answers.boxed();
            Ok(answers)
        })
    }
}

impl Client {
    async fn ballot(
        &self,
        request: &VoteRequest<TypeConfig>,
        limit: Duration,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = wire::ballot(request);
        let take = move |party: Party| {
            async move {
                let ballot = wire::read_ballot(Some(message)).map_err(|error| error.to_string())?;
                let result = if pre_vote { party.raft.pre_vote(ballot).await } else { party.raft.vote(ballot).await };
                Ok(wire::ballot_result(&result.map_err(|fatal| fatal.to_string())?))
            }
            .boxed()
        };
        let answer = self.call(limit, take).await.map_err(failed)?;
        wire::read_ballot_result(Some(answer)).map_err(failed)
    }
}

impl NetVote<TypeConfig> for Client {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ballot(&request, option.hard_ttl(), false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ballot(&request, option.hard_ttl(), true).await
    }
}

impl NetTransferLeader<TypeConfig> for Client {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let message = wire::transfer_request(&request);
        let take = move |party: Party| {
            async move {
                let transfer = wire::read_transfer_request(message).map_err(|error| error.to_string())?;
                let answer = party.raft.handle_transfer_leader(transfer).await.map_err(|fatal| fatal.to_string())?;
                Ok(wire::transfer_response(&answer))
            }
            .boxed()
        };
        let answer = self.call(option.hard_ttl(), take).await.map_err(failed)?;
        wire::read_transfer_response(answer).map_err(failed)
    }
}

/// Snapshots that nodes took from others, in all simulations of this process.
pub(crate) static SNAPSHOTS_TAKEN: AtomicU64 = AtomicU64::new(0);

/// A snapshot as it travels.
#[derive(Clone)]
struct Parcel {
    vote: onespend_proto::peer::v1::Vote,
    meta: onespend_proto::peer::v1::SnapshotMeta,
    sha256: [u8; 32],
    content: Arc<Vec<u8>>,
}

async fn take_snapshot(party: Party, parcel: Parcel) -> Answer<onespend_proto::peer::v1::Vote> {
    let vote = wire::read_vote(Some(parcel.vote)).map_err(|error| error.to_string())?;
    let marker = wire::read_snapshot_meta(Some(parcel.meta)).map_err(|error| error.to_string())?;
    let meta = marker.snapshot_meta();
    let marker = codec::encode_marker(&marker).map_err(|error| error.to_string())?;
    let size_bytes = parcel.content.len() as u64;
    let digest = SnapshotDigest { marker, sha256: parcel.sha256, size_bytes };
    let keep = || {
        let mut incoming = party.store.receive(digest)?;
        incoming.write(&parcel.content)?;
        let file = incoming.finish()?;
        party.store.verify(&file)?;
        Ok(file)
    };
    let file: SnapshotFile = keep().map_err(|error: onespend_adapters::store::StoreError| error.to_string())?;
    let installed = party.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: file }).await;
    SNAPSHOTS_TAKEN.fetch_add(1, Ordering::Relaxed);
    Ok(wire::vote(&installed.map_err(|fatal| fatal.to_string())?.vote))
}

impl NetSnapshot<TypeConfig> for Client {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // A later snapshot may have taken its place.
        let content = std::fs::read(&snapshot.snapshot.path).map_err(unreachable)?;
        let marker = codec::decode_marker(&snapshot.snapshot.digest.marker).map_err(unreachable)?;
        let parcel = Parcel {
            vote: wire::vote(&vote),
            meta: wire::snapshot_meta(&marker),
            sha256: snapshot.snapshot.digest.sha256,
            content: Arc::new(content),
        };
        let sent = self.call(SNAPSHOT_LIMIT, move |party| take_snapshot(party, parcel.clone()).boxed());
        tokio::select! {
            biased;
            answer = sent => {
                let vote = wire::read_vote(Some(answer.map_err(unreachable)?)).map_err(unreachable)?;
                Ok(SnapshotResponse::new(vote))
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

impl NetBackoff<TypeConfig> for Client {
    fn backoff(&self) -> Option<Backoff> {
        let pauses = std::iter::successors(Some(PAUSE), |pause| Some((*pause * 2).min(LONGEST_PAUSE)));
        Some(Backoff::new(pauses))
    }
}
