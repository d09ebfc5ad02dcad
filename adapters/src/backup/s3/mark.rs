//! Which upload is under way: a small object beside it, so that what an interrupted one left can be ended. Its parts are
//! listed nowhere, and would be stored, and paid for, for ever.

use object_store::{MultipartId, ObjectStoreExt as _, PutPayload};
use tracing::{info, warn};

use super::connection::Connection;
use super::upload::give_up;
use crate::backup::depot::{PARTIAL_SUFFIX, is_named_by};
use crate::backup::{BackupError, Header};

/// Bytes of the longest id of an upload; those of AWS have about a hundred.
const MAX_ID_BYTES: u64 = 4096;

fn mark_of(name: &str) -> String {
    format!("{name}{PARTIAL_SUFFIX}")
}

/// Says that this upload is under way.
pub(super) fn put(connection: &Connection, name: &str, id: &MultipartId) -> Result<(), BackupError> {
    let mark = mark_of(name);
    let key = connection.key(&mark);
    connection.ask("write", &mark, connection.store.put(&key, PutPayload::from(id.clone()))).map(drop)
}

/// Says that it is not any more. What stays does no harm: ending an upload that has ended does nothing.
pub(super) fn remove(connection: &Connection, name: &str) {
    if let Err(left) = connection.remove(&mark_of(name)) {
        warn!(%left, "the mark of an upload stays until the next backup of this node");
    }
}

/// Ends what interrupted uploads of this node left, which nobody will finish. A node makes one at a time.
pub(super) fn sweep(connection: &Connection, header: &Header) -> Result<(), BackupError> {
    for (mark, found) in connection.names()? {
        let Some(name) = mark.strip_suffix(PARTIAL_SUFFIX) else { continue };
        if !is_named_by(&header.cluster_id, header.node_id, name) {
            continue;
        }
        let read = connection.bytes(found.location.clone(), found.e_tag.clone(), 0..found.size.min(MAX_ID_BYTES));
        let id = connection.wait(read).map_err(BackupError::io(&connection.shown(&mark), "read"))?;
        // What is no text is no id either, and there is nothing to end.
        if let Ok(id) = String::from_utf8(id) {
            give_up(connection, name, &id)?;
        }
        connection.remove(&mark)?;
        info!(name, "an interrupted upload of a backup was given up");
    }
    Ok(())
}
