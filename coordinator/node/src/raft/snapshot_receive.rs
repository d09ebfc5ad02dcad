//! Receives a snapshot into a temporary file, and believes it only when it is what was announced.

use std::sync::Arc;
use std::time::Duration;

use onespend_adapters::store::{SnapshotDigest, StateStore, StoreError};
use onespend_proto::peer::v1::install_snapshot_request::Part;
use onespend_proto::peer::v1::{InstallSnapshotRequest, SnapshotHeader};
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::codec;
use super::peer_service::{Sender, malformed};
use super::snapshot_send::CHUNK_BYTES;
use super::types::{SnapshotFile, SnapshotMeta, Vote};
use super::wire;

/// A transfer that stands still for so long is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that may wait for the disk.
const CHUNKS_WAITING: usize = 4;

/// A snapshot that may be installed.
pub(crate) struct Received {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) file: SnapshotFile,
}

/// Takes all of it. What is refused leaves nothing behind.
pub(crate) async fn receive(
    mut parts: Streaming<InstallSnapshotRequest>,
    sender: Sender,
    cluster_id: &str,
    store: Arc<dyn StateStore>,
) -> Result<Received, Status> {
    let Some(Part::Header(header)) = next(&mut parts).await? else {
        return Err(Status::invalid_argument("a snapshot begins with its header"));
    };
    if header.cluster_id != cluster_id {
        return Err(Status::failed_precondition("the snapshot is of another cluster"));
    }
    let (vote, meta, digest) = announced(header)?;
    sender.may_show(&vote)?;
    let (chunks, queue) = mpsc::channel(CHUNKS_WAITING);
    let writer = tokio::task::spawn_blocking(move || write(&*store, digest, queue));
    while let Some(part) = next(&mut parts).await? {
        let Part::Data(chunk) = part else { return Err(Status::invalid_argument("a second header")) };
        if !(1..=CHUNK_BYTES).contains(&chunk.len()) {
            return Err(Status::invalid_argument("a part of the snapshot has a size outside its bounds"));
        }
        if chunks.send(Ok(chunk)).await.is_err() {
            // The writer has ended: its own error says why.
            break;
        }
    }
    // Only a stream that ended in order gets here; one that broke off closes the queue without this word.
    let _ = chunks.send(Err(End)).await;
    let written = writer.await.map_err(|error| Status::internal(error.to_string()))?;
    let file = written.map_err(|error| refused(&error))?;
    Ok(Received { vote, meta, file })
}

/// The sender said all.
struct End;

async fn next(parts: &mut Streaming<InstallSnapshotRequest>) -> Result<Option<Part>, Status> {
    let message = tokio::time::timeout(IDLE_TIMEOUT, parts.message()).await;
    let Some(message) = message.map_err(|_| Status::deadline_exceeded("the transfer stands still"))?? else {
        return Ok(None);
    };
    message.part.map(Some).ok_or_else(|| Status::invalid_argument("an empty part"))
}

#[allow(clippy::result_large_err)] // A refusal is as large as tonic makes it, and rare.
pub(super) fn announced(header: SnapshotHeader) -> Result<(Vote, SnapshotMeta, SnapshotDigest), Status> {
    let vote = wire::read_vote(header.vote).map_err(|error| malformed(&error))?;
    let marker = wire::read_snapshot_meta(header.meta).map_err(|error| malformed(&error))?;
    let meta = marker.snapshot_meta();
    let marker = codec::encode_marker(&marker).map_err(|error| Status::internal(error.to_string()))?;
    let sha256 = header.sha256.as_ref().try_into().map_err(|_| Status::invalid_argument("sha256 has not 32 bytes"))?;
    Ok((vote, meta, SnapshotDigest { marker, sha256, size_bytes: header.total_bytes }))
}

/// Checks size, checksum, cluster, format, tables, rows and marker, so that installing cannot find anything wrong any more.
fn write(
    store: &dyn StateStore,
    digest: SnapshotDigest,
    mut queue: mpsc::Receiver<Result<Bytes, End>>,
) -> Result<SnapshotFile, StoreError> {
    let mut incoming = store.receive(digest)?;
    while let Some(chunk) = queue.blocking_recv() {
        let Ok(chunk) = chunk else {
            let file = incoming.finish()?;
            store.verify(&file)?;
            return Ok(file);
        };
        incoming.write(&chunk)?;
    }
    Err(StoreError::Stopped)
}

fn refused(error: &StoreError) -> Status {
    if error.is_corruption() {
        return Status::data_loss(error.to_string());
    }
    Status::unavailable(error.to_string())
}
