//! A backup on its way to the storage, in parts. It is an object, and is listed, only once it is completed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use object_store::multipart::{MultipartStore as _, PartId};
use object_store::{Error, MultipartId, PutPayload};
use tracing::warn;

use super::connection::Connection;
use super::mark;
use crate::backup::form::{END_BYTES, Header, SUM_BYTES};
use crate::backup::frame::Frame;
use crate::backup::{BackupError, Part};

/// Bytes of a part, which are in memory while it is sent. S3 takes no fewer than 5 MiB, but for the last part.
const PART_BYTES: u64 = 8 * MIB;
/// Parts that S3 takes, see <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>. A backup that would need
/// more has larger ones.
const MAX_PARTS: u64 = 10_000;
const MIB: u64 = 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// Uploads a backup. After an error there is none: what was sent is given up, now or, if the storage cannot be reached, by
/// the next upload.
pub(super) fn upload(
    connection: &Connection,
    name: &str,
    header: &Header,
    content: &Path,
    content_sum: &[u8; SUM_BYTES],
) -> Result<(), BackupError> {
    let key = connection.key(name);
    let id = connection.ask("begin the upload of", name, connection.store.create_multipart(&key))?;
    let sent = mark::put(connection, name, &id).and_then(|()| {
        let mut upload = Upload { connection, name, id: &id, part_bytes: 0, pending: Vec::new(), parts: Vec::new() };
        upload.send(header, content, content_sum)?;
        upload.complete()
    });
    match sent {
        Ok(()) => mark::remove(connection, name),
        Err(error) => {
            match give_up(connection, name, &id) {
                Ok(()) => mark::remove(connection, name),
                Err(left) => warn!(%left, "parts of an upload are left; the next backup of this node removes them"),
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Ends an upload that will not be completed, or was ended before.
pub(super) fn give_up(connection: &Connection, name: &str, id: &MultipartId) -> Result<(), BackupError> {
    let key = connection.key(name);
    let end = async {
        match connection.store.abort_multipart(&key, id).await {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    };
    connection.ask("give up the upload of", name, end)
}

struct Upload<'a> {
    connection: &'a Connection,
    name: &'a str,
    id: &'a MultipartId,
    part_bytes: usize,
    pending: Vec<u8>,
    parts: Vec<PartId>,
}

impl Upload<'_> {
    fn send(&mut self, header: &Header, content: &Path, content_sum: &[u8; SUM_BYTES]) -> Result<(), BackupError> {
        let shown = self.connection.shown(self.name);
        let encode = |error: serde_json::Error| BackupError::io(&shown, "encode")(io::Error::other(error));
        let damaged = |what: String| BackupError::damaged(&shown, Part::Content, what);
        let (mut frame, beginning) = Frame::begin(header).map_err(encode)?;
        let total = header.size_bytes.saturating_add((beginning.len() + END_BYTES) as u64);
        self.part_bytes = usize::try_from(part_bytes(total)).unwrap_or(usize::MAX);
        self.add(&beginning)?;
        let mut source = File::open(content).map_err(BackupError::io(content, "open"))?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = source.read(&mut buffer).map_err(BackupError::io(content, "read"))?;
            if read == 0 {
                break;
            }
            frame.add(&buffer[..read]).map_err(damaged)?;
            self.add(&buffer[..read])?;
        }
        let end = frame.end(content_sum).map_err(damaged)?;
        self.add(&end)?;
        if self.pending.is_empty() { Ok(()) } else { self.put() }
    }

    /// Adds bytes, and sends the part that they fill.
    fn add(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            let room = self.part_bytes.saturating_sub(self.pending.len()).max(1);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            if self.pending.len() >= self.part_bytes {
                self.put()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn put(&mut self) -> Result<(), BackupError> {
        let part = PutPayload::from(std::mem::take(&mut self.pending));
        let (connection, key) = (self.connection, self.connection.key(self.name));
        let put = connection.store.put_part(&key, self.id, self.parts.len(), part);
        self.parts.push(connection.ask("upload to", self.name, put)?);
        Ok(())
    }

    /// Makes an object of the parts. When the answer is lost, the storage is asked whether it did.
    fn complete(self) -> Result<(), BackupError> {
        let Self { connection, name, id, parts, .. } = self;
        let key = connection.key(name);
        let complete = connection.store.complete_multipart(&key, id, parts);
        match connection.ask("complete the upload of", name, complete) {
            Ok(_) => Ok(()),
            Err(error) => match connection.find(name) {
                Ok(Some(_)) => Ok(()),
                _ => Err(error),
            },
        }
    }
}

/// Bytes of each part but the last, for so many bytes.
fn part_bytes(total_bytes: u64) -> u64 {
    total_bytes.div_ceil(MAX_PARTS).next_multiple_of(MIB).max(PART_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_backup_has_more_parts_than_the_storage_takes() {
        for total in [1, PART_BYTES, PART_BYTES * MAX_PARTS, PART_BYTES * MAX_PARTS + 1, 5_000_000 * MIB] {
            let part = part_bytes(total);
            assert!(total.div_ceil(part) <= MAX_PARTS && part >= PART_BYTES, "{total}: {part}");
        }
        assert_eq!(part_bytes(PART_BYTES * MAX_PARTS), PART_BYTES);
        assert_eq!(part_bytes(PART_BYTES * MAX_PARTS + 1), PART_BYTES + MIB);
    }
}
