//! What is stored, and the digest over all of it.
//!
//! Numbers are 64 bits without sign; SQLite's have one, so they are compared here and never in SQL.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{OutPoint, Txid, consensus};
use onespend_core::ids::{AttemptNo, Fence, InvalidName, PaymentId, PaymentKey, WalletId};
use onespend_core::signing::SigningPermit;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::rules::Recorded;

/// The first version of the tables. Later versions are further steps; a released one never changes.
pub(super) const TABLES: &str = "
CREATE TABLE identity(
    one INTEGER PRIMARY KEY CHECK(one = 1),
    cluster_id TEXT NOT NULL,
    network TEXT NOT NULL,
    signer TEXT NOT NULL
) STRICT;
CREATE TABLE totals(
    one INTEGER PRIMARY KEY CHECK(one = 1),
    highest_fence INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    frozen_position INTEGER,
    frozen_at_ms INTEGER,
    digest BLOB NOT NULL
) STRICT;
CREATE TABLE attempts(
    id INTEGER PRIMARY KEY,
    wallet TEXT NOT NULL,
    payment TEXT NOT NULL,
    number INTEGER NOT NULL,
    txid BLOB NOT NULL,
    fence INTEGER NOT NULL,
    UNIQUE(wallet, payment, number)
) STRICT;
CREATE TABLE spends(
    outpoint BLOB NOT NULL,
    attempt INTEGER NOT NULL REFERENCES attempts(id),
    PRIMARY KEY(outpoint, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX spends_of ON spends(attempt, outpoint);
CREATE TABLE audit(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    position INTEGER NOT NULL,
    recorded INTEGER NOT NULL
) STRICT;
INSERT INTO totals(one, highest_fence, floor, digest) VALUES(1, 0, 0, zeroblob(32));
";

/// The second step: a random number in two tables, which change at different times. A write-ahead log of another file that
/// SQLite replays over a copy replaces one of them only.
pub(super) const COPY: &str = "
ALTER TABLE identity ADD COLUMN copy BLOB NOT NULL DEFAULT x'';
ALTER TABLE totals ADD COLUMN copy BLOB NOT NULL DEFAULT x'';
";

/// Whether both tables are of the same copy.
pub(super) fn is_one_copy(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT identity.copy = totals.copy FROM identity, totals", [], |row| row.get(0))
}

/// The one row about the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Totals {
    /// The highest fence ever recorded; 0 before the first.
    pub(super) highest: Fence,
    /// What the log must have reached: the highest fence, or less after an operator has accepted an older log.
    pub(super) floor: Fence,
    /// Since when the signer is frozen, and by a permit of which position.
    pub(super) frozen: Option<(u64, Fence)>,
    digest: [u8; 32],
}

pub(super) fn totals(db: &Connection) -> rusqlite::Result<Totals> {
    let sql = "SELECT highest_fence, floor, frozen_at_ms, frozen_position, digest FROM totals";
    db.prepare_cached(sql)?.query_row([], |row| {
        let frozen: (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
        Ok(Totals {
            highest: fence(row, 0)?,
            floor: fence(row, 1)?,
            frozen: frozen.0.zip(frozen.1).map(|(at, position)| (at.cast_unsigned(), Fence(position.cast_unsigned()))),
            digest: row.get(4)?,
        })
    })
}

/// All attempts of the permit's payment.
pub(super) fn own(db: &Connection, permit: &SigningPermit) -> rusqlite::Result<Vec<Recorded>> {
    let sql = "SELECT id, wallet, payment, number, txid, fence FROM attempts WHERE wallet = ?1 AND payment = ?2";
    let key = permit.key();
    db.prepare_cached(sql)?.query_map(params![key.wallet.as_str(), key.payment.as_str()], recorded)?.collect()
}

/// All attempts that spend one of the permit's coins.
pub(super) fn spenders(db: &Connection, permit: &SigningPermit) -> rusqlite::Result<Vec<(OutPoint, Recorded)>> {
    let mut find = db.prepare_cached(
        "SELECT id, wallet, payment, number, txid, fence FROM spends JOIN attempts ON id = attempt WHERE outpoint = ?1",
    )?;
    let mut found = Vec::new();
    for input in permit.inputs() {
        for row in find.query_map([consensus::serialize(&input.outpoint)], recorded)? {
            found.push((input.outpoint, row?));
        }
    }
    Ok(found)
}

/// Adds the permit's attempt.
pub(super) fn record(db: &Connection, permit: &SigningPermit) -> rusqlite::Result<()> {
    let key = permit.key();
    db.prepare_cached("INSERT INTO attempts(wallet, payment, number, txid, fence) VALUES(?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            key.wallet.as_str(),
            key.payment.as_str(),
            permit.attempt().0,
            permit.txid().to_byte_array(),
            permit.fence().0.cast_signed(),
        ])?;
    let id = db.last_insert_rowid();
    let mut insert = db.prepare_cached("INSERT INTO spends(outpoint, attempt) VALUES(?1, ?2)")?;
    for input in permit.inputs() {
        insert.execute(params![consensus::serialize(&input.outpoint), id])?;
    }
    count_in(db, permit.fence(), &[fingerprint(db, id)?])
}

/// Gives a known attempt the permit's higher fence.
pub(super) fn raise(db: &Connection, known: &Recorded, to: Fence) -> rusqlite::Result<()> {
    let before = fingerprint(db, known.id)?;
    db.prepare_cached("UPDATE attempts SET fence = ?1 WHERE id = ?2")?
        .execute(params![to.0.cast_signed(), known.id])?;
    count_in(db, to, &[before, fingerprint(db, known.id)?])
}

/// Brings the totals up to date: the fence, and what comes to the digest or leaves it.
fn count_in(db: &Connection, fence: Fence, changes: &[[u8; 32]]) -> rusqlite::Result<()> {
    let Totals { highest, floor, mut digest, .. } = totals(db)?;
    for change in changes {
        mix(&mut digest, change);
    }
    let (highest, floor) = (highest.max(fence), floor.max(fence));
    db.prepare_cached("UPDATE totals SET highest_fence = ?1, floor = ?2, digest = ?3")?.execute(params![
        highest.0.cast_signed(),
        floor.0.cast_signed(),
        digest
    ])?;
    Ok(())
}

/// Whether the rows are those that were written: SQLite's own check does not look into them.
pub(super) fn is_whole(db: &Connection) -> rusqlite::Result<bool> {
    let (mut digest, mut highest) = ([0; 32], Fence(0));
    let mut all = db.prepare("SELECT id, fence FROM attempts")?;
    for row in all.query_map([], |row| Ok((row.get::<_, i64>(0)?, fence(row, 1)?)))? {
        let (id, fence) = row?;
        highest = highest.max(fence);
        mix(&mut digest, &fingerprint(db, id)?);
    }
    let totals = totals(db)?;
    Ok(totals.digest == digest && totals.highest == highest && totals.floor <= highest)
}

/// A hash of one attempt with its coins, as they are stored.
fn fingerprint(db: &Connection, id: i64) -> rusqlite::Result<[u8; 32]> {
    let mut engine = sha256::Hash::engine();
    db.prepare_cached("SELECT wallet, payment, number, txid, fence FROM attempts WHERE id = ?1")?.query_row(
        [id],
        |row| {
            for column in 0..2 {
                // A name holds no zero byte, so it ends at one.
                engine.input(row.get_ref(column)?.as_bytes()?);
                engine.input(&[0]);
            }
            engine.input(&row.get::<_, i64>(2)?.to_be_bytes());
            engine.input(row.get_ref(3)?.as_bytes()?);
            engine.input(&row.get::<_, i64>(4)?.to_be_bytes());
            Ok(())
        },
    )?;
    let mut coins = db.prepare_cached("SELECT outpoint FROM spends WHERE attempt = ?1 ORDER BY outpoint")?;
    let mut coins = coins.query([id])?;
    while let Some(row) = coins.next()? {
        engine.input(row.get_ref(0)?.as_bytes()?);
    }
    Ok(sha256::Hash::from_engine(engine).to_byte_array())
}

/// Exclusive or: the order does not matter, and what is mixed in twice is out again.
fn mix(digest: &mut [u8; 32], change: &[u8; 32]) {
    digest.iter_mut().zip(change).for_each(|(byte, other)| *byte ^= other);
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let invalid = |column| {
        move |error: InvalidName| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    };
    Ok(Recorded {
        id: row.get(0)?,
        key: PaymentKey {
            wallet: WalletId::parse(row.get_ref(1)?.as_str()?).map_err(invalid(1))?,
            payment: PaymentId::parse(row.get_ref(2)?.as_str()?).map_err(invalid(2))?,
        },
        number: AttemptNo(row.get(3)?),
        txid: Txid::from_byte_array(row.get(4)?),
        fence: fence(row, 5)?,
    })
}

fn fence(row: &Row<'_>, column: usize) -> rusqlite::Result<Fence> {
    row.get::<_, i64>(column).map(|number| Fence(number.cast_unsigned()))
}
