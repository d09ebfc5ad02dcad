//! A consistent copy in one new file, also of a memory that is in use: what SQLite has not put into the file yet lies
//! in others beside it, so a plain copy of the file may lack the newest records.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::Owner;
use super::file::{self, fault};
use super::tables::COPY_FORMAT;
use crate::signer::SignerError;

/// Makes the copy. There is a whole one with its owner's rights alone, or none.
pub(super) fn make(db: &Connection, owner: &Owner, to: &Path) -> Result<(), SignerError> {
    let new = OpenOptions::new().write(true).create_new(true).mode(file::FILE_MODE).open(to);
    let new = new.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => fault(to)("is there already, and a copy replaces nothing: name another file"),
        _ => fault(to)(error.to_string()),
    })?;
    let made = fill(db, owner, to)
        .and_then(|()| new.sync_all().map_err(fault(to)))
        .and_then(|()| file::sync_folder(to).map_err(fault(to)));
    made.map_err(|first| match file::remove(to) {
        Ok(()) => first,
        Err(error) => fault(to)(format!("is no whole copy ({first}), and cannot be removed: {error}")),
    })
}

/// Into the empty file, by which it keeps its mode.
fn fill(db: &Connection, owner: &Owner, to: &Path) -> Result<(), SignerError> {
    let name = to.to_str().ok_or_else(|| fault(to)("has a name that is not UTF-8"))?;
    db.execute("VACUUM INTO ?1", [name]).map_err(fault(to))?;
    number(to)?;
    file::open_reader(to, owner).map(drop)
}

/// A number of its own shows when it was put over a memory whose write-ahead log stayed there.
fn number(to: &Path) -> Result<(), SignerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags).map_err(fault(to))?;
    if file::check_header(&copy, to)? < COPY_FORMAT {
        return Ok(());
    }
    let change = copy.transaction().map_err(fault(to))?;
    file::number_copy(&change).map_err(fault(to))?;
    change.commit().map_err(fault(to))?;
    copy.close().map_err(|(_, error)| fault(to)(error))
}
