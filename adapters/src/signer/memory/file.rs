//! The file: made whole or not at all, and opened only if it is ours, undamaged and not newer than we are.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};
use rusqlite_migration::Migrations;
use tracing::warn;

use super::tables::{COPY_FORMAT, steps};
use super::{Owner, rows};
use crate::signer::SignerError;

/// "onsm" in the header field that SQLite keeps for it.
const APPLICATION_ID: i32 = 0x6f6e_736d;
/// It names payments, so it is its owner's alone.
pub(super) const FILE_MODE: u32 = 0o600;
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// A memory that other processes cannot open meanwhile. The order is that in which they are dropped: to close the file
/// before the database would end SQLite's own locks.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) db: Connection,
    _lock: File,
}

/// Opens the memory, and makes it where there is none.
pub(super) fn open(path: &Path, owner: &Owner) -> Result<Opened, SignerError> {
    if !path.try_exists().map_err(fault(path))? {
        create(path, owner)?;
        warn!(path = %path.display(), signer = owner.signer, "the signer has no memory yet: a new one is made, which remembers nothing");
    }
    let lock = lock(path)?;
    let sql = fault(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(&sql)?;
    // What is refused stays as it is, with a write-ahead log that is not its own beside it.
    let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    db.set_db_config(keep_log, true).map_err(&sql)?;
    let format = check_header(&db, path)?;
    check_content(&db, format, path, owner)?;
    db.set_db_config(keep_log, false).map_err(&sql)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(&sql)?;
    // Every commit waits for the disk: a signature must not outlive its record.
    db.pragma_update(None, "synchronous", "FULL").map_err(&sql)?;
    migrate(&mut db).map_err(fault(path))?;
    Ok(Opened { db, _lock: lock })
}

/// Brings the tables to the format of this version. While one is made anew, nothing may follow the references to it.
pub(super) fn migrate(db: &mut Connection) -> Result<(), rusqlite_migration::Error> {
    db.pragma_update(None, "foreign_keys", false)?;
    Migrations::new(steps()).to_latest(db)?;
    Ok(db.pragma_update(None, "foreign_keys", true)?)
}

/// Opens the memory for looking at it, also beside the process that uses it.
pub(super) fn open_reader(path: &Path, owner: &Owner) -> Result<Connection, SignerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(fault(path))?;
    let format = check_header(&db, path)?;
    check_content(&db, format, path, owner)?;
    Ok(db)
}

/// Makes it under another name first, so that a crash leaves none or a whole one.
fn create(path: &Path, owner: &Owner) -> Result<(), SignerError> {
    let temporary = with_suffix(path, &format!(".new-{}", std::process::id()));
    remove(&temporary).map_err(fault(path))?;
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary).map_err(fault(path))?;
    let mut db = Connection::open(&temporary).map_err(fault(path))?;
    db.pragma_update(None, "application_id", APPLICATION_ID).map_err(fault(path))?;
    migrate(&mut db).map_err(fault(path))?;
    let identity = params![owner.cluster_id, owner.network.to_string(), owner.signer];
    db.execute("INSERT INTO identity(one, cluster_id, network, signer) VALUES(1, ?1, ?2, ?3)", identity)
        .map_err(fault(path))?;
    db.close().map_err(|(_, error)| fault(path)(error))?;
    // Unlike a rename, a link never replaces a memory that another process has made in between.
    match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(fault(path)(error)),
        _ => {}
    }
    fs::remove_file(&temporary).map_err(fault(path))?;
    sync_folder(path).map_err(fault(path))
}

/// Removes a file that was begun, and SQLite's journal beside it.
pub(super) fn remove(begun: &Path) -> io::Result<()> {
    for file in [begun.to_owned(), with_suffix(begun, "-journal")] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Waits until it is on the disk under which name the file is known.
pub(super) fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Whether both are the same file.
pub(super) fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (fs::metadata(one)?, fs::metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

fn lock(path: &Path) -> Result<File, SignerError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(fault(path))?;
    let mode = file.metadata().map_err(fault(path))?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        let shown = path.display();
        return Err(fault(path)(format!("others may read or change it (mode {mode:04o}). Run: chmod 600 '{shown}'")));
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SignerError::MemoryInUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(fault(path)(error)),
    }
}

/// Ours, and not newer: its format. Changes nothing.
pub(super) fn check_header(db: &Connection, path: &Path) -> Result<i64, SignerError> {
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(fault(path));
    if number("application_id")? != i64::from(APPLICATION_ID) {
        return Err(fault(path)("is not a signer's memory, or is damaged"));
    }
    let (found, known) = (number("user_version")?, i64::try_from(steps().len()).unwrap_or(i64::MAX));
    if found > known {
        return Err(fault(path)(format!("has format {found}; this version reads up to format {known}")));
    }
    Ok(found)
}

/// Undamaged, and of this signer of this cluster.
fn check_content(db: &Connection, format: i64, path: &Path, owner: &Owner) -> Result<(), SignerError> {
    let sql = fault(path);
    if format >= COPY_FORMAT && !rows::is_one_copy(db).map_err(&sql)? {
        return Err(fault(path)(
            "was copied over another memory, whose write-ahead log stayed beside it and would make it forget: move the \
             files away that end in -wal and -shm, copy it again, and compare with onespend signer show",
        ));
    }
    let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(&sql)?;
    if verdict != "ok" {
        return Err(fault(path)(format!("is damaged: {verdict}")));
    }
    if !rows::is_whole(db).map_err(&sql)? {
        return Err(fault(path)("is damaged: its content is not what was recorded"));
    }
    let found = db
        .query_row("SELECT cluster_id, network, signer FROM identity", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })
        .map_err(&sql)?;
    if found != (owner.cluster_id.clone(), owner.network.to_string(), owner.signer.clone()) {
        let (cluster, network, signer) = found;
        let goes_on = network == owner.network.to_string() && signer == owner.signer;
        let hint = if goes_on { handed_on(&cluster) } else { String::new() };
        let other = format!("belongs to signer {signer} of cluster {cluster} on {network}, not to {owner}{hint}");
        return Err(fault(path)(other));
    }
    Ok(())
}

/// What to do with the memory of the same signer of another cluster: after a restore it must not be left out.
fn handed_on(cluster: &str) -> String {
    format!(
        "; if this cluster goes on from {cluster}, hand it on with onespend signer adopt --from {cluster}, or add a \
         copy of it with onespend signer merge --from {cluster}"
    )
}

/// Says that it is another cluster's from now on.
pub(super) fn give_to(db: &Connection, cluster_id: &str) -> rusqlite::Result<()> {
    db.execute("UPDATE identity SET cluster_id = ?1", params![cluster_id])?;
    number_copy(db)
}

/// Says which copy it is: it goes to other machines as a file.
pub(super) fn number_copy(db: &Connection) -> rusqlite::Result<()> {
    db.execute("UPDATE identity SET copy = randomblob(16)", [])?;
    db.execute("UPDATE totals SET copy = (SELECT copy FROM identity)", []).map(drop)
}

pub(super) fn fault<E: ToString>(path: &Path) -> impl Fn(E) -> SignerError {
    move |why| SignerError::Memory { path: path.to_owned(), why: why.to_string() }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
