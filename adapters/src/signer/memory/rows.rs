//! What is stored, and the digest over all of it.
//!
//! Numbers are 64 bits without sign; SQLite's have one, so they are compared here and never in SQL.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{OutPoint, Txid, consensus};
use onespend_core::ids::{AttemptNo, Fence, InvalidName, PaymentId, PaymentKey, WalletId};
use onespend_core::signing::SigningPermit;
use rusqlite::types::Type;
use rusqlite::{Connection, Params, Row, RowIndex, params};

use super::rules::Recorded;

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
    /// The accepted epoch; `None` in a format that has none yet.
    epoch: Option<u32>,
    digest: [u8; 32],
}

impl Totals {
    /// The accepted epoch. A format that has none gets that of its highest fence when it is brought up to date.
    pub(super) fn accepted(&self) -> u32 {
        self.epoch.unwrap_or_else(|| self.highest.epoch())
    }
}

pub(super) fn totals(db: &Connection) -> rusqlite::Result<Totals> {
    // All columns: which there are depends on the format.
    db.prepare_cached("SELECT * FROM totals")?.query_row([], |row| {
        let frozen: (Option<i64>, Option<i64>) = (row.get("frozen_at_ms")?, row.get("frozen_position")?);
        let epoch = match row.get("epoch") {
            Err(rusqlite::Error::InvalidColumnName(_)) => None,
            epoch => Some(epoch?),
        };
        Ok(Totals {
            highest: fence(row, "highest_fence")?,
            floor: fence(row, "floor")?,
            frozen: frozen.0.zip(frozen.1).map(|(at, position)| (at.cast_unsigned(), Fence(position.cast_unsigned()))),
            epoch,
            digest: row.get("digest")?,
        })
    })
}

/// Makes it the accepted epoch.
pub(super) fn accept(db: &Connection, epoch: u32) -> rusqlite::Result<()> {
    let Totals { epoch: before, mut digest, .. } = totals(db)?;
    mix(&mut digest, &mark_of_epoch(before.unwrap_or(0)));
    mix(&mut digest, &mark_of_epoch(epoch));
    db.execute("UPDATE totals SET epoch = ?1, digest = ?2", params![epoch, digest]).map(drop)
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

/// The transactions of all attempts that spend one of these coins, each with its coin.
pub(super) fn spending(db: &Connection, coins: &[OutPoint]) -> rusqlite::Result<Vec<(OutPoint, Txid)>> {
    let mut find = db.prepare_cached("SELECT txid FROM spends JOIN attempts ON id = attempt WHERE outpoint = ?1")?;
    let mut found = Vec::new();
    for coin in coins {
        for txid in find.query_map([consensus::serialize(coin)], |row| row.get::<_, [u8; 32]>(0))? {
            found.push((*coin, Txid::from_byte_array(txid?)));
        }
    }
    Ok(found)
}

/// Adds the permit's attempt.
pub(super) fn record(db: &Connection, permit: &SigningPermit) -> rusqlite::Result<()> {
    let (key, fence) = (permit.key(), permit.fence());
    let attempt = params![
        key.wallet.as_str(),
        key.payment.as_str(),
        permit.attempt().0,
        permit.txid().to_byte_array(),
        fence.0.cast_signed(),
    ];
    let coins = permit.inputs().iter().map(|input| Ok(consensus::serialize(&input.outpoint)));
    let change = insert(db, attempt, coins)?;
    count_in(db, fence, fence, &change)
}

/// Gives a known attempt the permit's higher fence.
pub(super) fn raise(db: &Connection, known: &Recorded, to: Fence) -> rusqlite::Result<()> {
    let change = set_fence(db, known.id, to)?;
    count_in(db, to, to, &change)
}

/// Adds an attempt (wallet, payment, number, txid, fence) with its coins. Returns what comes to the digest.
pub(super) fn insert(
    db: &Connection,
    attempt: impl Params,
    coins: impl Iterator<Item = rusqlite::Result<Vec<u8>>>,
) -> rusqlite::Result<[u8; 32]> {
    db.prepare_cached("INSERT INTO attempts(wallet, payment, number, txid, fence) VALUES(?1, ?2, ?3, ?4, ?5)")?
        .execute(attempt)?;
    let id = db.last_insert_rowid();
    let mut insert = db.prepare_cached("INSERT INTO spends(outpoint, attempt) VALUES(?1, ?2)")?;
    for coin in coins {
        insert.execute(params![coin?, id])?;
    }
    fingerprint(db, id)
}

/// Gives an attempt another fence. Returns what comes to the digest and leaves it.
pub(super) fn set_fence(db: &Connection, id: i64, to: Fence) -> rusqlite::Result<[u8; 32]> {
    let mut change = fingerprint(db, id)?;
    db.prepare_cached("UPDATE attempts SET fence = ?1 WHERE id = ?2")?.execute(params![to.0.cast_signed(), id])?;
    mix(&mut change, &fingerprint(db, id)?);
    Ok(change)
}

/// Brings the totals up to date: the highest fence, what the log must have reached, and what comes to the digest or
/// leaves it.
pub(super) fn count_in(db: &Connection, fence: Fence, floor: Fence, change: &[u8; 32]) -> rusqlite::Result<()> {
    let Totals { highest, floor: before, mut digest, .. } = totals(db)?;
    mix(&mut digest, change);
    let (highest, floor) = (highest.max(fence), before.max(floor));
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
    mix(&mut digest, &mark_of_epoch(totals.epoch.unwrap_or(0)));
    Ok(totals.digest == digest && totals.highest == highest && totals.floor <= highest)
}

/// What the accepted epoch is in the digest. The first one is nothing, as it was before there were epochs.
fn mark_of_epoch(epoch: u32) -> [u8; 32] {
    if epoch == 0 {
        return [0; 32];
    }
    let mut engine = sha256::Hash::engine();
    engine.input(b"accepted epoch");
    engine.input(&epoch.to_be_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
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
pub(super) fn mix(digest: &mut [u8; 32], change: &[u8; 32]) {
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

pub(super) fn fence(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Fence> {
    row.get::<_, i64>(column).map(|number| Fence(number.cast_unsigned()))
}
