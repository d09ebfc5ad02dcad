//! The tables of `state.db`.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use rusqlite_migration::M;

use crate::store::sqlite::database::Schema;
use crate::store::{Row, RowBatch, RowVisitor, StoreError, checksum};

pub(crate) const STATE_SCHEMA: Schema = Schema {
    file: "state.db",
    application_id: 0x6f6e_7373,
    steps: &[M::up(
        "CREATE TABLE state(
            tbl INTEGER NOT NULL,
            key BLOB NOT NULL,
            value BLOB NOT NULL,
            checksum INTEGER NOT NULL,
            PRIMARY KEY(tbl, key)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE applied(
            one INTEGER PRIMARY KEY CHECK(one = 1),
            marker BLOB NOT NULL,
            checksum INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE installed(
            one INTEGER PRIMARY KEY CHECK(one = 1),
            snapshot INTEGER NOT NULL
        ) STRICT;",
    )],
    synchronous: "NORMAL",
    holds_anything: "SELECT EXISTS(SELECT 1 FROM state) OR EXISTS(SELECT 1 FROM applied)",
};

/// One transaction.
pub(super) fn write(db: &mut Connection, batch: &RowBatch) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut set =
            tx.prepare_cached("INSERT OR REPLACE INTO state(tbl, key, value, checksum) VALUES(?1, ?2, ?3, ?4)")?;
        let mut remove = tx.prepare_cached("DELETE FROM state WHERE tbl = ?1 AND key = ?2")?;
        for change in &batch.rows {
            match &change.value {
                Some(value) => {
                    let row = Row { table: change.table, key: &change.key, value };
                    set.execute(params![row.table, row.key, row.value, row_checksum(row)])?;
                }
                None => {
                    remove.execute(params![change.table, change.key])?;
                }
            }
        }
        tx.prepare_cached("INSERT OR REPLACE INTO applied(one, marker, checksum) VALUES(1, ?1, ?2)")?
            .execute(params![batch.marker, checksum::of(&[&batch.marker])])?;
    }
    tx.commit()
}

/// Every row, checked, then the marker. In one read transaction, so that they belong together.
pub(super) fn load(
    db: &mut Connection,
    path: &Path,
    visit: &mut RowVisitor<'_>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let failed = StoreError::sqlite(path);
    let tx = db.transaction().map_err(&failed)?;
    {
        let mut select =
            tx.prepare("SELECT tbl, key, value, checksum FROM state ORDER BY tbl, key").map_err(&failed)?;
        visit_all(select.query([]).map_err(&failed)?, path, visit)?;
    }
    read_marker(&tx, path)
}

/// The rows of one table, checked.
pub(super) fn load_one(db: &Connection, path: &Path, tbl: u8, visit: &mut RowVisitor<'_>) -> Result<(), StoreError> {
    let failed = StoreError::sqlite(path);
    let select = "SELECT tbl, key, value, checksum FROM state WHERE tbl = ?1 ORDER BY key";
    let mut select = db.prepare(select).map_err(&failed)?;
    visit_all(select.query([tbl]).map_err(&failed)?, path, visit)
}

fn visit_all(mut rows: rusqlite::Rows<'_>, path: &Path, visit: &mut RowVisitor<'_>) -> Result<(), StoreError> {
    let failed = StoreError::sqlite(path);
    while let Some(row) = rows.next().map_err(&failed)? {
        let found = read_row(row).map_err(&failed)?;
        if row.get::<_, i64>(3).map_err(&failed)? != row_checksum(found) {
            return Err(StoreError::corrupt(path, format!("{} has a wrong checksum", name_of(found))));
        }
        visit(found).map_err(|why| StoreError::corrupt(path, format!("{}: {why}", name_of(found))))?;
    }
    Ok(())
}

pub(super) fn read_marker(db: &Connection, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let found: Option<(Vec<u8>, i64)> = db
        .query_row("SELECT marker, checksum FROM applied", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(StoreError::sqlite(path))?;
    match found {
        Some((marker, sum)) if sum != checksum::of(&[&marker]) => {
            Err(StoreError::corrupt(path, "the marker has a wrong checksum"))
        }
        found => Ok(found.map(|(marker, _)| marker)),
    }
}

/// The number of the snapshot that this state was installed from last; 0 for none.
pub(super) fn read_installed(db: &Connection) -> rusqlite::Result<u64> {
    let number: Option<i64> = db.query_row("SELECT snapshot FROM installed", [], |row| row.get(0)).optional()?;
    Ok(number.unwrap_or(0).cast_unsigned())
}

pub(super) fn write_installed(db: &Connection, number: u64) -> rusqlite::Result<()> {
    db.execute("INSERT OR REPLACE INTO installed(one, snapshot) VALUES(1, ?1)", [number.cast_signed()])?;
    Ok(())
}

fn read_row<'a>(row: &'a rusqlite::Row<'_>) -> rusqlite::Result<Row<'a>> {
    Ok(Row { table: row.get(0)?, key: row.get_ref(1)?.as_blob()?, value: row.get_ref(2)?.as_blob()? })
}

fn name_of(row: Row<'_>) -> String {
    use bitcoin::hex::DisplayHex;
    format!("the row of table {} with key {}", row.table, row.key.as_hex())
}

fn row_checksum(row: Row<'_>) -> i64 {
    checksum::of(&[&[row.table], row.key, row.value])
}
