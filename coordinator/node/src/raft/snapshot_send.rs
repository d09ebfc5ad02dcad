//! Sends a snapshot file to another node.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use onespend_proto::peer::v1::install_snapshot_request::Part;
use onespend_proto::peer::v1::{InstallSnapshotRequest, SnapshotHeader};
use openraft::errors::Unreachable;
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::channels::PeerStub;
use super::codec;
use super::network::{Letterhead, unreachable};
use super::types::{Snapshot, SnapshotFile, TypeConfig, Vote};
use super::wire;

/// Bytes of one message, the most that the protocol allows.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;
/// Messages that are read ahead of the wire.
const CHUNKS_AHEAD: usize = 4;
/// A transfer that is slower than this on the whole is given up.
const MIN_BYTES_PER_S: u64 = 1 << 20;

/// Sends it, and waits until it is installed or refused. `install` is what installing may take, on top of the transfer.
pub(crate) async fn send(
    mut stub: PeerStub,
    letterhead: &Letterhead,
    cluster_id: String,
    vote: &Vote,
    snapshot: Snapshot,
    install: Duration,
) -> Result<SnapshotResponse<TypeConfig>, Unreachable<TypeConfig>> {
    let digest = &snapshot.snapshot.digest;
    let marker = codec::decode_marker(&digest.marker).map_err(unreachable)?;
    let header = SnapshotHeader {
        cluster_id,
        vote: Some(wire::vote(vote)),
        meta: Some(wire::snapshot_meta(&marker)),
        total_bytes: digest.size_bytes,
        sha256: digest.sha256.to_vec().into(),
    };
    let deadline = install + Duration::from_secs(digest.size_bytes.div_ceil(MIN_BYTES_PER_S));
    let (parts, queue) = mpsc::channel(CHUNKS_AHEAD);
    let file = snapshot.snapshot;
    let reader = tokio::task::spawn_blocking(move || read(&file, header, &parts));
    let sent = stub.install_snapshot(letterhead.on(ReceiverStream::new(queue)));
    let answer = match tokio::time::timeout(deadline, sent).await {
        Ok(answer) => letterhead.check(answer.map_err(unreachable)?).map_err(unreachable)?,
        Err(_) => return Err(unreachable("the snapshot was not installed in time")),
    };
    // The receiver has seen all of it, so the reader has ended; its own error would have shown as a size that is wrong.
    reader.await.map_err(unreachable)?.map_err(unreachable)?;
    wire::read_vote(answer.vote).map(SnapshotResponse::new).map_err(unreachable)
}

/// Ends early when nobody listens any more.
fn read(
    file: &SnapshotFile,
    header: SnapshotHeader,
    parts: &mpsc::Sender<InstallSnapshotRequest>,
) -> std::io::Result<()> {
    let send = |part| parts.blocking_send(InstallSnapshotRequest { part: Some(part) }).is_ok();
    if !send(Part::Header(header)) {
        return Ok(());
    }
    let mut content = File::open(&file.path)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        content.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() || !send(Part::Data(chunk.into())) {
            return Ok(());
        }
    }
}
