//! The tables of `raft.db`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use rusqlite_migration::M;

use crate::store::sqlite::database::Schema;
use crate::store::tail::{Budget, Change, Tail};
use crate::store::{LogKey, Purged, Record, StoreError, checksum};

pub(crate) const LOG_SCHEMA: Schema = Schema {
    file: "raft.db",
    application_id: 0x6f6e_736c,
    steps: &[M::up(
        "CREATE TABLE entry(
            idx INTEGER PRIMARY KEY,
            record BLOB NOT NULL,
            checksum INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE named(
            name TEXT PRIMARY KEY,
            value BLOB NOT NULL,
            checksum INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE purged(
            one INTEGER PRIMARY KEY CHECK(one = 1),
            idx INTEGER NOT NULL,
            marker BLOB NOT NULL,
            checksum INTEGER NOT NULL
        ) STRICT;",
    )],
    synchronous: "FULL",
    holds_anything: "SELECT EXISTS(SELECT 1 FROM entry) OR EXISTS(SELECT 1 FROM named) OR EXISTS(SELECT 1 FROM purged)",
};

/// Deleting many rows in one transaction would stall the log: 200 ms were measured.
pub(super) const PURGE_CHUNK_ROWS: u32 = 1_000;

/// Writes one change.
pub(super) fn write(tx: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Barrier => {}
        Change::Append(entries) => {
            // No "OR REPLACE": an index that is there already is a fault of ours that must not pass.
            let mut insert = tx.prepare_cached("INSERT INTO entry(idx, record, checksum) VALUES(?1, ?2, ?3)")?;
            for (index, record) in entries {
                insert.execute(params![index.cast_signed(), &record[..], entry_checksum(*index, record)])?;
            }
        }
        Change::Truncate { from } => {
            tx.prepare_cached("DELETE FROM entry WHERE idx >= ?1")?.execute([from.cast_signed()])?;
        }
        Change::Purge(Purged { index, marker }) => {
            tx.prepare_cached("INSERT OR REPLACE INTO purged(one, idx, marker, checksum) VALUES(1, ?1, ?2, ?3)")?
                .execute(params![index.cast_signed(), &marker[..], entry_checksum(*index, marker)])?;
        }
        Change::Put(key, value) => write_named(tx, *key, value)?,
    }
    Ok(())
}

pub(super) fn write_named(tx: &Transaction<'_>, key: LogKey, value: &[u8]) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO named(name, value, checksum) VALUES(?1, ?2, ?3)")?.execute(params![
        key.name(),
        value,
        named_checksum(key, value)
    ])?;
    Ok(())
}

/// Deletes some of the purged rows; `true` while there may be more.
pub(super) fn delete_purged(tx: &Transaction<'_>) -> rusqlite::Result<bool> {
    let deleted = tx
        .prepare_cached(
            "DELETE FROM entry WHERE idx IN (
                SELECT idx FROM entry WHERE idx <= (SELECT idx FROM purged) ORDER BY idx LIMIT ?1)",
        )?
        .execute([PURGE_CHUNK_ROWS])?;
    Ok(deleted == PURGE_CHUNK_ROWS as usize)
}

/// Reads everything once and checks it: every record whole, no hole, named values known.
pub(super) fn restore(db: &Connection, path: &Path) -> Result<Tail, StoreError> {
    let purged = read_purged(db, path)?;
    let named = read_named(db, path)?;
    let failed = StoreError::sqlite(path);
    let start = purged.as_ref().map_or(0, |purged| purged.index + 1);
    let mut select =
        db.prepare("SELECT idx, record, checksum FROM entry WHERE idx >= ?1 ORDER BY idx").map_err(&failed)?;
    let mut rows = select.query([start.cast_signed()]).map_err(&failed)?;
    let mut live: Option<Range<u64>> = purged.is_some().then_some(start..start);
    while let Some(row) = rows.next().map_err(&failed)? {
        let index = row.get::<_, i64>(0).map_err(&failed)?.cast_unsigned();
        let range = live.get_or_insert(index..index);
        if index != range.end {
            return Err(StoreError::corrupt(path, format!("log entry {} is missing", range.end)));
        }
        checked_record(row, path, index)?;
        range.end += 1;
    }
    Ok(Tail::restored(live.unwrap_or(0..0), purged, named))
}

/// Reads the records of `range`. The error beside them, if any, is what ended it early: a record that is missing or
/// damaged. The caller knows whether it may be missing.
pub(super) fn read(
    db: &Connection,
    path: &Path,
    range: Range<u64>,
    budget: &mut Budget,
) -> Result<(Vec<Record>, Option<StoreError>), StoreError> {
    let failed = StoreError::sqlite(path);
    let mut select = db
        .prepare_cached("SELECT idx, record, checksum FROM entry WHERE idx >= ?1 AND idx < ?2 ORDER BY idx")
        .map_err(&failed)?;
    let mut rows = select.query([range.start.cast_signed(), range.end.cast_signed()]).map_err(&failed)?;
    let mut records = Vec::new();
    for expected in range {
        if budget.is_used_up() {
            break;
        }
        let missing = || StoreError::corrupt(path, format!("log entry {expected} is missing"));
        let Some(row) = rows.next().map_err(&failed)? else {
            return Ok((records, Some(missing())));
        };
        if row.get::<_, i64>(0).map_err(&failed)?.cast_unsigned() != expected {
            return Ok((records, Some(missing())));
        }
        let record = checked_record(row, path, expected)?;
        budget.take(record.len());
        records.push((expected, record));
    }
    Ok((records, None))
}

fn checked_record(row: &rusqlite::Row<'_>, path: &Path, index: u64) -> Result<Arc<[u8]>, StoreError> {
    let failed = StoreError::sqlite(path);
    let record = row.get_ref(1).map_err(&failed)?.as_blob().map_err(|e| failed(e.into()))?;
    if row.get::<_, i64>(2).map_err(&failed)? != entry_checksum(index, record) {
        return Err(StoreError::corrupt(path, format!("log entry {index} has a wrong checksum")));
    }
    Ok(record.into())
}

fn read_purged(db: &Connection, path: &Path) -> Result<Option<Purged>, StoreError> {
    let found: Option<(i64, Vec<u8>, i64)> = db
        .query_row("SELECT idx, marker, checksum FROM purged", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(StoreError::sqlite(path))?;
    let Some((index, marker, sum)) = found else {
        return Ok(None);
    };
    let index = index.cast_unsigned();
    if sum != entry_checksum(index, &marker) {
        return Err(StoreError::corrupt(path, "the purge marker has a wrong checksum"));
    }
    Ok(Some(Purged { index, marker: marker.into() }))
}

fn read_named(db: &Connection, path: &Path) -> Result<BTreeMap<LogKey, Arc<[u8]>>, StoreError> {
    let failed = StoreError::sqlite(path);
    let mut select = db.prepare("SELECT name, value, checksum FROM named").map_err(&failed)?;
    let mut rows = select.query([]).map_err(&failed)?;
    let mut named = BTreeMap::new();
    while let Some(row) = rows.next().map_err(&failed)? {
        let name: String = row.get(0).map_err(&failed)?;
        let value: Vec<u8> = row.get(1).map_err(&failed)?;
        let sum: i64 = row.get(2).map_err(&failed)?;
        let Some(key) = LogKey::ALL.into_iter().find(|key| key.name() == name) else {
            return Err(StoreError::corrupt(path, format!("unknown named value {name:?}")));
        };
        if sum != named_checksum(key, &value) {
            return Err(StoreError::corrupt(path, format!("the named value {name:?} has a wrong checksum")));
        }
        named.insert(key, value.into());
    }
    Ok(named)
}

fn entry_checksum(index: u64, record: &[u8]) -> i64 {
    checksum::of(&[&index.to_be_bytes(), record])
}

fn named_checksum(key: LogKey, value: &[u8]) -> i64 {
    checksum::of(&[key.name().as_bytes(), value])
}
