//! Opening one database: is it ours, whole, and not newer than we are?

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use rusqlite_migration::{M, Migrations};

use crate::store::identity::{Identity, check_format};
use crate::store::{StoreError, durable};

/// Other connections of this process only read; a writer waits for them at most this long. Unit tests hold a database on
/// purpose, on machines that do other work as well.
const BUSY_TIMEOUT_MS: u32 = if cfg!(test) { 120_000 } else { 5_000 };
/// Pages (4 KiB) in the write-ahead log before they are copied into the database.
const CHECKPOINT_PAGES: u32 = 2_000;
/// The write-ahead log is cut back to this after a large transaction.
const WAL_LIMIT_BYTES: u32 = 64 << 20;

/// The header of a database file, and how it begins.
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
/// SQLite's number for how it keeps text where nothing else is asked for, as we do.
const UTF_8: u32 = 1;

const IDENTITY_TABLE: &str = "CREATE TABLE identity(
    one INTEGER PRIMARY KEY CHECK(one = 1),
    format_version INTEGER NOT NULL,
    cluster_id TEXT NOT NULL,
    node_id INTEGER NOT NULL,
    instance TEXT NOT NULL
) STRICT;";

/// What tells one of our databases from the other.
pub(crate) struct Schema {
    pub(crate) file: &'static str,
    /// In the header field that SQLite keeps for it: tells our files from others, and from each other.
    pub(crate) application_id: i32,
    /// After the identity table, which is the same in all. Append only: the position is the stored version.
    pub(crate) steps: &'static [M<'static>],
    /// `FULL` waits for the disk at every commit, `NORMAL` only at checkpoints.
    pub(crate) synchronous: &'static str,
    /// A query with one row that says whether anything was ever stored.
    pub(crate) holds_anything: &'static str,
}

impl Schema {
    fn migrations(&self) -> Migrations<'static> {
        let mut steps = vec![M::up(IDENTITY_TABLE)];
        steps.extend_from_slice(self.steps);
        Migrations::new(steps)
    }

    fn version(&self) -> i64 {
        i64::try_from(self.steps.len() + 1).unwrap_or(i64::MAX)
    }

    /// What a database of that version holds, as SQLite keeps it.
    fn objects(&self, version: usize) -> rusqlite_migration::Result<Vec<Object>> {
        let mut model = Connection::open_in_memory()?;
        self.migrations().to_version(&mut model, version)?;
        Ok(objects(&model)?)
    }
}

/// A table, index, trigger or view: kind, name, table, and the text that made it.
type Object = (String, String, String, Option<String>);

fn objects(db: &Connection) -> rusqlite::Result<Vec<Object>> {
    let mut select = db.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?;
    let found = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    found.collect()
}

/// Makes a new database that carries `identity`.
pub(crate) fn create(path: &Path, schema: &Schema, identity: &Identity) -> Result<(), StoreError> {
    let failed = StoreError::sqlite(path);
    durable::create_private(path)?;
    let mut db = Connection::open(path).map_err(&failed)?;
    settle(&db, schema).map_err(&failed)?;
    db.pragma_update(None, "application_id", schema.application_id).map_err(&failed)?;
    schema.migrations().to_latest(&mut db).map_err(|e| migration_failed(path, e))?;
    write_identity(&db, identity).map_err(&failed)?;
    db.close().map_err(|(_, cause)| failed(cause))?;
    durable::sync_folder_of(path)
}

/// Opens a database of this folder after checking all of it.
pub(crate) fn open(path: &Path, schema: &Schema, identity: &Identity) -> Result<Connection, StoreError> {
    let failed = StoreError::sqlite(path);
    check_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(&failed)?;
    check(&db, path, schema)?;
    settle(&db, schema).map_err(&failed)?;
    schema.migrations().to_latest(&mut db).map_err(|e| migration_failed(path, e))?;
    read_identity(&db, path)?.check_same(path, identity)?;
    Ok(db)
}

/// A file without its end is damaged even where the end was a page that nothing uses, which SQLite does not look at. While
/// there is a write-ahead log the file may end anywhere: the log makes up for it.
///
/// And SQLite takes some numbers for UTF-8 that are none of its own when it opens a file, and fails at one of the next
/// statements. So it is the number itself that counts.
pub(crate) fn check_file(path: &Path) -> Result<(), StoreError> {
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    if bytes(&with_suffix(path, "-wal")) > 0 {
        return Ok(());
    }
    // Not a database at all: SQLite says so.
    let Ok(header) = read_header(path) else { return Ok(()) };
    // The size of a page, where 1 stands for 65 536, and how many there are (SQLite, "Database File Format", 1.3).
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        page => u64::from(page),
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    let (found, expected) = (bytes(path), page.saturating_mul(pages));
    if header.starts_with(MAGIC) && found < expected {
        return Err(StoreError::corrupt(path, format!("it has {found} bytes of {expected}")));
    }
    let encoding = u32::from_be_bytes([header[56], header[57], header[58], header[59]]);
    if header.starts_with(MAGIC) && encoding != UTF_8 {
        return Err(StoreError::corrupt(path, format!("its text has the encoding {encoding}, not {UTF_8}, UTF-8")));
    }
    Ok(())
}

fn read_header(path: &Path) -> io::Result<[u8; HEADER_BYTES]> {
    let mut header = [0; HEADER_BYTES];
    fs::File::open(path)?.read_exact(&mut header)?;
    Ok(header)
}

/// A second connection, for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let failed = StoreError::sqlite(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(&failed)?;
    db.pragma_update(None, "busy_timeout", BUSY_TIMEOUT_MS).map_err(&failed)?;
    Ok(db)
}

/// For reading by another process than the node's, which may run or not. Where there is no write-ahead log the database has
/// all; to read it as usual SQLite would make a log, and leave it.
pub(crate) fn open_from_outside(path: &Path) -> Result<Connection, StoreError> {
    if fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        return open_reader(path);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(immutable(path), flags).map_err(StoreError::sqlite(path))
}

/// Names a file that SQLite shall read as it is (SQLite, "Uniform Resource Identifiers").
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/.-_".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            let _infallible = write!(uri, "%{byte:02X}");
        }
    }
    uri + "?immutable=1"
}

/// Ours, not newer, not damaged, and with no table, constraint or trigger that is not ours: the file may come from another
/// machine, and what it holds decides what our statements do. Changes nothing.
pub(crate) fn check(db: &Connection, path: &Path, schema: &Schema) -> Result<(), StoreError> {
    let failed = StoreError::sqlite(path);
    let version = check_kind(db, path, schema)?;
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(&failed)?;
    if verdict != "ok" {
        return Err(StoreError::corrupt(path, verdict));
    }
    let expected = schema.objects(usize::try_from(version).unwrap_or(0)).map_err(|e| migration_failed(path, e))?;
    if objects(db).map_err(&failed)? != expected {
        return Err(StoreError::corrupt(path, format!("its tables are not those of a {}", schema.file)));
    }
    Ok(())
}

/// Ours, and not newer: which version it is.
pub(crate) fn check_kind(db: &Connection, path: &Path, schema: &Schema) -> Result<i64, StoreError> {
    let failed = StoreError::sqlite(path);
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    if number("application_id").map_err(&failed)? != i64::from(schema.application_id) {
        return Err(StoreError::corrupt(path, format!("not a {} of onespend", schema.file)));
    }
    let version = number("user_version").map_err(&failed)?;
    if version > schema.version() {
        return Err(StoreError::NewerFormat {
            path: path.to_path_buf(),
            found: u32::try_from(version).unwrap_or(u32::MAX),
            supported: u32::try_from(schema.version()).unwrap_or(u32::MAX),
        });
    }
    Ok(version)
}

/// Whose database it is.
pub(crate) fn read_identity(db: &Connection, path: &Path) -> Result<Identity, StoreError> {
    let found = db
        .query_row("SELECT format_version, cluster_id, node_id, instance FROM identity", [], |row| {
            Ok(Identity {
                format_version: row.get(0)?,
                cluster_id: row.get(1)?,
                node_id: row.get::<_, i64>(2)?.cast_unsigned(),
                instance: row.get(3)?,
            })
        })
        .optional()
        .map_err(StoreError::sqlite(path))?;
    let found = found.ok_or_else(|| StoreError::corrupt(path, "it does not say whose it is"))?;
    check_format(path, found.format_version)?;
    Ok(found)
}

/// Says whose database it is from now on.
pub(crate) fn write_identity(db: &Connection, identity: &Identity) -> rusqlite::Result<()> {
    db.execute(
        "INSERT OR REPLACE INTO identity(one, format_version, cluster_id, node_id, instance) VALUES(1, ?1, ?2, ?3, ?4)",
        params![identity.format_version, identity.cluster_id, identity.node_id.cast_signed(), identity.instance],
    )?;
    Ok(())
}

/// Was anything stored in a database that an interrupted first start may have left?
pub(crate) fn holds_anything(path: &Path, schema: &Schema) -> Result<bool, StoreError> {
    if is_nothing(path) {
        return Ok(false);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let db = Connection::open_with_flags(path, flags).map_err(StoreError::sqlite(path))?;
    anything_in(&db, path, schema)
}

/// The same by whoever only looks.
pub(crate) fn is_found_to_hold_anything(path: &Path, schema: &Schema) -> Result<bool, StoreError> {
    if is_nothing(path) {
        return Ok(false);
    }
    anything_in(&open_from_outside(path)?, path, schema)
}

fn is_nothing(path: &Path) -> bool {
    let empty = fs::metadata(path).map_or(0, |file| file.len()) == 0;
    empty && !with_suffix(path, "-wal").exists()
}

fn anything_in(db: &Connection, path: &Path, schema: &Schema) -> Result<bool, StoreError> {
    let failed = StoreError::sqlite(path);
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&failed)?;
    if version == 0 {
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(&failed)?;
        return Ok(tables > 0);
    }
    if version < schema.version() {
        return Ok(false);
    }
    db.query_row(schema.holds_anything, [], |row| row.get(0)).map_err(&failed)
}

/// Removes a database and what SQLite keeps beside it.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["-wal", "-shm", "-journal", ""] {
        durable::remove(&with_suffix(path, suffix))?;
    }
    Ok(())
}

/// The name of a file that SQLite keeps beside a database.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn settle(db: &Connection, schema: &Schema) -> rusqlite::Result<()> {
    db.pragma_update(None, "busy_timeout", BUSY_TIMEOUT_MS)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", schema.synchronous)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

fn migration_failed(path: &Path, error: rusqlite_migration::Error) -> StoreError {
    match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => StoreError::sqlite(path)(err),
        other => StoreError::corrupt(path, other.to_string()),
    }
}
