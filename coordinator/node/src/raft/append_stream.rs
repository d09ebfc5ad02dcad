//! Streams of appends to one node: long ones for log entries, and a link that carries one heartbeat after the other.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use onespend_proto::peer::v1::{AppendStreamRequest, AppendStreamResponse};
use openraft::base::BoxStream;
use openraft::raft::AppendEntriesRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::acks::{Acks, Sent, Unanswered};
use super::channels::{CONNECT_TIMEOUT, PeerStub};
use super::dating::Dating;
use super::network::{AppendAnswer, Letterhead, RpcError, failed};
use super::types::{NodeId, TypeConfig};
use super::wire;

/// A stream is given up when, with appends unanswered, no answer came for this long to twice as long. Above what a slow
/// disk needs for an fsync.
const SILENCE_CHECK: Duration = Duration::from_secs(1);
/// Opening a stream takes at most this long: a connection, and the receiver's headers.
const OPEN_TIMEOUT: Duration = CONNECT_TIMEOUT.saturating_mul(2);

async fn start<S>(
    mut stub: PeerStub,
    letterhead: &Letterhead,
    requests: S,
) -> Result<Streaming<AppendStreamResponse>, RpcError>
where
    S: Stream<Item = AppendStreamRequest> + Send + 'static,
{
    match tokio::time::timeout(OPEN_TIMEOUT, stub.append_stream(letterhead.on(requests))).await {
        Ok(answers) => letterhead.check(answers.map_err(failed)?).map_err(failed),
        Err(_) => Err(failed("no stream in time")),
    }
}

/// Sends every append of `input` and gives the answers back, in order.
pub(crate) async fn open<S>(
    stub: PeerStub,
    letterhead: &Letterhead,
    dating: Dating,
    mut input: S,
) -> Result<BoxStream<'static, AppendAnswer>, RpcError>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    // openraft makes its pause after a failure where it hands out the next request. A stream that is opened before that
    // would fail again at once, thousands of times a second.
    let Some(first) = input.next().await else { return Ok(stream::empty().boxed()) };
    let (unanswered, acks) = (Unanswered::default(), dating.acks.clone());
    let sent = unanswered.clone();
    let message = move |request| {
        sent.push(Sent::now(&request));
        dating.message(request)
    };
    // The first one before the stream is opened, which may take long.
    let requests = stream::iter([message(first)]).chain(input.map(message));
    let answers = start(stub, letterhead, requests).await?;
    let answers = Answers { incoming: answers, from: letterhead.target(), unanswered, acks };
    Ok(stream::unfold(Some(answers), |answers| async move {
        let mut answers = answers?;
        let answer = answers.next().await?;
        // openraft reads nothing after an error; neither does the receiver send anything.
        let goes_on = matches!(answer, Ok(Ok(_)));
        Some((answer, goes_on.then_some(answers)))
    })
    .boxed())
}

struct Answers {
    incoming: Streaming<AppendStreamResponse>,
    from: NodeId,
    unanswered: Unanswered,
    acks: Acks,
}

impl Answers {
    /// The next answer; `None` when the stream ended as it should. One that ends with appends unanswered is an error:
    /// openraft would otherwise keep the log for a replica that does not take it.
    async fn next(&mut self) -> Option<AppendAnswer> {
        let mut overdue = false;
        loop {
            match tokio::time::timeout(SILENCE_CHECK, self.incoming.message()).await {
                Ok(Ok(Some(answer))) => return Some(self.take(answer)),
                Ok(Ok(None)) if self.is_owed() => return Some(Err(failed("the stream ended before its answers"))),
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => return Some(Err(failed(status))),
                Err(_) if overdue => return Some(Err(failed("appends are not answered"))),
                Err(_) => overdue = self.is_owed(),
            }
        }
    }

    fn take(&mut self, answer: AppendStreamResponse) -> AppendAnswer {
        let sent = self.unanswered.pop().ok_or_else(|| failed("an answer to nothing"))?;
        let moment = answer.moment;
        let answer = read(answer)?;
        self.acks.note(self.from, sent, &answer, moment);
        Ok(answer)
    }

    fn is_owed(&self) -> bool {
        !self.unanswered.is_empty()
    }
}

fn read(answer: AppendStreamResponse) -> AppendAnswer {
    wire::read_append_result(answer).map_err(failed)
}

/// A stream that stays open between heartbeats, so that a heartbeat, and the check before a linearizable read, costs one
/// message each way. Whoever waits sets the deadline: openraft drops a heartbeat after one interval, and the link with it.
pub(crate) struct HeartbeatLink {
    requests: mpsc::Sender<AppendStreamRequest>,
    answers: Streaming<AppendStreamResponse>,
}

impl HeartbeatLink {
    pub(crate) async fn open(stub: PeerStub, letterhead: &Letterhead) -> Result<Self, RpcError> {
        let (requests, queue) = mpsc::channel(1);
        Ok(Self { requests, answers: start(stub, letterhead, ReceiverStream::new(queue)).await? })
    }

    /// The answer, and what the clock of who gave it showed then.
    pub(crate) async fn ask(&mut self, request: AppendStreamRequest) -> (AppendAnswer, u64) {
        match self.exchange(request).await {
            Ok(answer) => {
                let moment = answer.moment;
                (read(answer), moment)
            }
            Err(error) => (Err(error), 0),
        }
    }

    async fn exchange(&mut self, request: AppendStreamRequest) -> Result<AppendStreamResponse, RpcError> {
        self.requests.send(request).await.map_err(|_| failed("the stream is closed"))?;
        match self.answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(failed("the stream is closed")),
            Err(status) => Err(failed(status)),
        }
    }
}
