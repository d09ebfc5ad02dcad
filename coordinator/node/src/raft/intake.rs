//! What other nodes send and what the disk holds, read as far as it can be read on its own. Nothing in the daemon calls
//! this: it is what the fuzzers call, because the readers are private. It adds nothing to them.

use std::io;
use std::sync::Arc;

use onespend_core::command::Entry;
use onespend_proto::peer::v1 as wire;
use openraft::EntryPayload;

use super::{codec, snapshot_receive, wire as read};

type Read = Result<(), String>;

/// One message of log entries; each command is decoded, as applying it would.
pub(crate) fn append(message: wire::AppendStreamRequest) -> Read {
    let request = read::read_append_request(message).map_err(|error| error.to_string())?;
    for entry in &request.entries {
        if let EntryPayload::Normal(proposal) = &entry.payload {
            proposal.entry().map_err(ToString::to_string)?;
        }
    }
    Ok(())
}

pub(crate) fn ballot(ballot: Option<wire::Ballot>) -> Read {
    read::read_ballot(ballot).map(|_| ()).map_err(|error| error.to_string())
}

pub(crate) fn snapshot_part(message: wire::InstallSnapshotRequest) -> Read {
    match message.part {
        Some(wire::install_snapshot_request::Part::Header(header)) => {
            snapshot_receive::announced(header).map(|_| ()).map_err(|status| status.message().to_owned())
        }
        Some(wire::install_snapshot_request::Part::Data(_)) => Ok(()),
        None => Err("an empty part".to_owned()),
    }
}

pub(crate) fn transfer(message: wire::TransferLeaderRequest) -> Read {
    read::read_transfer_request(message).map(|_| ()).map_err(|error| error.to_string())
}

/// A record of the log as it lies on the disk: the command that it holds, if it holds one.
///
/// # Errors
/// The record is damaged, or of a later version.
pub fn read_record(bytes: &[u8]) -> io::Result<Option<Entry>> {
    let entry = codec::decode_entry(&Arc::from(bytes))?;
    let EntryPayload::Normal(proposal) = &entry.payload else { return Ok(None) };
    let unreadable = |error: &onespend_core::command::UnreadableEntry| io::Error::other(error.clone());
    proposal.entry().cloned().map(Some).map_err(unreadable)
}

/// The place in the history that a stored state, or a snapshot, says that it has. Read, it is written again as it was.
///
/// # Errors
/// The marker is damaged, or of a later version.
pub fn read_marker(bytes: &[u8]) -> io::Result<Vec<u8>> {
    codec::encode_marker(&codec::decode_marker(bytes)?)
}
