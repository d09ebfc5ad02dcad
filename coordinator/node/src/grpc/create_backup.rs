//! CreateBackup: this node's state at one index, as a stream. Works without a quorum and on any node, whoever leads.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use onespend_adapters::backup::FORM_VERSION;
use onespend_core::ids::{LogIndex, RequestId};
use onespend_proto::v1;
use onespend_proto::v1::create_backup_response::Part;
use prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{info, warn};

use super::api::{Api, Call};
use super::fields::Fields;
use super::status;
use crate::backup::{Made, MakeError, Turn};
use crate::runtime;

/// Bytes of one message, the most that the protocol allows.
const CHUNK_BYTES: usize = 256 * 1024;
/// Messages that wait for a slow reader; then reading the disk waits with it.
const CHUNKS_AHEAD: usize = 4;
/// A reader that takes nothing for so long is left, so that the next one gets its turn.
const MAX_PAUSE: Duration = Duration::from_secs(30);

pub(super) type Parts = Pin<Box<dyn Stream<Item = Result<v1::CreateBackupResponse, Status>> + Send>>;

pub(super) fn parse(message: &v1::CreateBackupRequest) -> Result<RequestId, Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    fields.finish(request)
}

pub(super) fn create_backup(api: &Arc<Api>, call: &Call, message: &v1::CreateBackupRequest) -> Result<Parts, Status> {
    let request = parse(message)?;
    // Nobody should begin again with a state that most others contradict (safety 31).
    api.demand_sound_state()?;
    let turn = api.backups.turn().map_err(|error| status::overloaded(&error.to_string()))?;
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let (api, caller) = (Arc::clone(api), call.caller.clone());
    tokio::spawn(async move {
        let (caller, request_id) = (caller.as_str(), request.as_str());
        match give(&api, turn, &Reader { api: &api, sender: &sender }).await {
            Ok((index, size_bytes)) => info!(caller, request_id, index, size_bytes, "a backup was given away"),
            Err(why) => {
                warn!(caller, request_id, why = why.message(), "a backup was not given away");
                // Nobody may be left to hear it.
                let _ = sender.try_send(Err(why));
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// The other end of the stream.
struct Reader<'a> {
    api: &'a Api,
    sender: &'a mpsc::Sender<Result<v1::CreateBackupResponse, Status>>,
}

impl Reader<'_> {
    async fn send(&self, place: (u64, u64), part: Part) -> Result<(), Status> {
        let message = v1::CreateBackupResponse { part: Some(part), applied_index: place.0, term: place.1 };
        let sent = tokio::select! {
            () = self.api.stopping.cancelled() => return Err(status::stopping()),
            sent = tokio::time::timeout(MAX_PAUSE, self.sender.send(Ok(message))) => sent,
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the caller has gone")),
            Err(_) => Err(Status::cancelled("the caller takes nothing")),
        }
    }
}

/// Makes a backup and gives all of it away. The copy goes when this ends, however it does.
async fn give(api: &Api, turn: Turn, reader: &Reader<'_>) -> Result<(u64, u64), Status> {
    let made = tokio::select! {
        () = api.stopping.cancelled() => return Err(status::stopping()),
        () = reader.sender.closed() => return Err(Status::cancelled("the caller has gone")),
        made = api.backups.make(turn) => made.map_err(|error| failed(&error))?,
    };
    let place = (made.header.index, made.header.term);
    reader.send(place, Part::Header(header(&made))).await?;
    let mut file = open(&made).await?;
    loop {
        let (again, chunk) = read_chunk(file).await?;
        file = again;
        if chunk.is_empty() {
            break;
        }
        reader.send(place, Part::Data(chunk.into())).await?;
    }
    reader.send(place, Part::Sha256(made.copy.digest.sha256.to_vec().into())).await?;
    Ok((made.header.index, made.header.size_bytes))
}

fn header(made: &Made) -> v1::BackupHeader {
    let LogIndex(index) = LogIndex(made.header.index);
    let since = Duration::from_millis(made.header.made_unix_ms);
    v1::BackupHeader {
        cluster_id: made.header.cluster_id.clone(),
        node_id: made.header.node_id,
        form_version: FORM_VERSION,
        state_hash: Some(v1::StateHash { index, hash: made.header.state_hash.to_vec().into() }),
        size_bytes: made.header.size_bytes,
        make_time: Some(Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        }),
        version: made.header.version.clone(),
    }
}

async fn open(made: &Made) -> Result<File, Status> {
    let path = made.copy.path.clone();
    on_disk(move || File::open(path)).await
}

/// The next part of the file; empty at its end.
async fn read_chunk(file: File) -> Result<(File, Vec<u8>), Status> {
    on_disk(move || {
        let (mut file, mut chunk) = (file, Vec::with_capacity(CHUNK_BYTES));
        file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        Ok((file, chunk))
    })
    .await
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Status> {
    let done = runtime::blocking(work).await.map_err(|_| status::stopping())?;
    done.map_err(|error| Status::unavailable(format!("the copy of the state cannot be read: {error}")))
}

/// What is wrong is this node's disk or its state; another node may do better.
fn failed(error: &MakeError) -> Status {
    match error {
        MakeError::Busy => status::overloaded(&error.to_string()),
        MakeError::Store(store) if store.is_corruption() => Status::data_loss(error.to_string()),
        MakeError::Store(_) | MakeError::Copy(_) => Status::unavailable(error.to_string()),
    }
}

#[cfg(test)]
#[path = "create_backup_tests.rs"]
mod tests;
