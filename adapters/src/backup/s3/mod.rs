//! A depot that is a bucket of S3-compatible storage, or a part of one.
//!
//! | file | holds |
//! |---|---|
//! | `address` | `s3://bucket/prefix/name`, and which names are taken |
//! | `credentials` | the keys to the storage, from the environment or a file |
//! | `connection` | one operation's way to the storage, with its bounds |
//! | `upload` | a backup on its way there, in parts; it is an object only when it is whole |
//! | `object` | an object as something to read |
//! | `mark` | which upload is under way, so that an interrupted one can be ended |

mod address;
mod connection;
mod credentials;
mod mark;
mod object;
mod upload;

use std::path::Path;

use futures::StreamExt as _;
use tracing::warn;

pub use address::{AddressFault, S3Address};
pub use connection::{EndpointFault, S3Settings};
pub use credentials::S3Credentials;

use super::depot::{SUFFIX, file_name};
use super::form::{BEGINNING_BYTES, MAX_HEADER_BYTES, SUM_BYTES};
use super::{Backup, BackupDepot, BackupError, Header, Kept};
use connection::Connection;
use object::Object;

/// Bytes that are read of an object to know its header.
const HEAD_BYTES: u64 = (BEGINNING_BYTES + MAX_HEADER_BYTES + SUM_BYTES) as u64;
/// Headers that are read at the same time.
const HEADERS_AT_ONCE: usize = 8;

/// The bucket. Each operation connects anew, so new credentials in a file count from the next one on.
#[derive(Debug, Clone)]
pub struct S3Depot(S3Settings);

impl S3Depot {
    /// Of a bucket, which must be there. Nothing is asked of it yet.
    pub fn new(settings: S3Settings) -> Self {
        Self(settings)
    }

    /// Asks whether the storage answers, and shows with these keys what it has there: how many objects that is. None of
    /// them is read.
    ///
    /// # Errors
    /// What the storage said, or why it said nothing.
    pub fn look(&self) -> Result<usize, BackupError> {
        Ok(Connection::open(&self.0)?.names()?.len())
    }
}

impl BackupDepot for S3Depot {
    /// As the port says. When the storage is cut off in the moment in which the upload is completed, a whole backup may
    /// remain that could not be read back.
    fn store(&self, header: &Header, content: &Path, content_sum: &[u8; 32]) -> Result<String, BackupError> {
        let connection = Connection::open(&self.0)?;
        mark::sweep(&connection, header)?;
        let name = file_name(header);
        if connection.find(&name)?.is_some() {
            return Err(BackupError::Exists { path: connection.shown(&name) });
        }
        upload::upload(&connection, &name, header, content, content_sum)?;
        let checked = self.open(&name).and_then(|mut backup| {
            let same = backup.header() == header;
            let other =
                || BackupError::damaged(&connection.shown(&name), super::Part::Header, "it is another backup's");
            if same { backup.check(&mut |_| {}) } else { Err(other()) }
        });
        if let Err(error) = checked {
            if let Err(left) = connection.remove(&name) {
                warn!(%left, "a backup that could not be read back is still there");
            }
            return Err(error);
        }
        Ok(name)
    }

    fn open(&self, name: &str) -> Result<Backup, BackupError> {
        let connection = Connection::open(&self.0)?;
        let shown = connection.shown(name);
        let found = connection.find(name)?;
        let Some(found) = found else {
            let none = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such object");
            return Err(BackupError::io(&shown, "open")(none));
        };
        let length = found.size;
        Backup::of(&shown, Box::new(Object::new(connection, found)), length)
    }

    fn list(&self) -> Result<Vec<Kept>, BackupError> {
        let connection = Connection::open(&self.0)?;
        let named = connection.names()?.into_iter().filter(|(name, _)| name.ends_with(SUFFIX));
        let looks = named.map(|(name, found)| {
            let shown = connection.shown(&name);
            let head = connection.bytes(found.location.clone(), found.e_tag.clone(), 0..found.size.min(HEAD_BYTES));
            async move {
                let head = head.await.map_err(BackupError::io(&shown, "read"));
                let header = head.and_then(|head| {
                    let backup = Backup::of(&shown, Box::new(std::io::Cursor::new(head)), found.size)?;
                    Ok(backup.header().clone())
                });
                Kept { name, size_bytes: found.size, header }
            }
        });
        let looks: Vec<_> = looks.collect();
        Ok(connection.wait(futures::stream::iter(looks).buffered(HEADERS_AT_ONCE).collect()))
    }

    fn remove(&self, name: &str) -> Result<(), BackupError> {
        Connection::open(&self.0)?.remove(name)
    }
}
