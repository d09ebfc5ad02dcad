//! Backups: the state at one log index in one file that carries its own checks, and places to keep such files.
//!
//! | bytes | part | holds |
//! |---|---|---|
//! | 32 | beginning | what it is, version of the form, length of the header, 8 bytes of SHA-256 over these. The same in every version |
//! | the header's length + 32 | header | JSON: whose state it is and of when; SHA-256 of beginning and header |
//! | as the header says | content | the state, a database as the store copies it |
//! | 64 | end | SHA-256 of the content; SHA-256 of the header's and that one |
//!
//! So one byte that is not what was written is found, and the part that it is in is named.
//!
//! | file | holds |
//! |---|---|
//! | `form` | the header and the sums |
//! | `frame` | what stands around the content, as the content comes |
//! | `writing`, `reading` | one file, from its beginning to its end |
//! | `depot` | the port of places that keep backups, and which of them may go |
//! | `folder` | a depot that is a folder |
//! | `s3/` | a depot that is a bucket of S3-compatible storage |
//! | `fault` | what may be wrong |

mod depot;
mod fault;
mod folder;
mod form;
mod frame;
mod reading;
mod s3;
mod writing;

pub use depot::{BackupDepot, Kept, file_name, superfluous};
pub use fault::{BackupError, Part};
pub use folder::FolderDepot;
pub use form::{FORM_VERSION, Header};
pub use reading::{Backup, Content};
pub use s3::{AddressFault, EndpointFault, S3Address, S3Credentials, S3Depot, S3Settings};
pub use writing::{BackupWriter, Unpublished};
