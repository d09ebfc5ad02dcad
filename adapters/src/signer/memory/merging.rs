//! What another memory of the same signer remembers, added to this one.

use onespend_core::ids::Fence;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows;

/// What came of adding another memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Merged {
    /// Attempts that were not known here.
    pub added: u64,
    /// Attempts that were, some under a lower fence maybe.
    pub known: u64,
}

/// An attempt of the other memory, as it is stored.
struct Foreign {
    id: i64,
    wallet: String,
    payment: String,
    number: i64,
    txid: Vec<u8>,
    fence: Fence,
}

impl Foreign {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            wallet: row.get(1)?,
            payment: row.get(2)?,
            number: row.get(3)?,
            txid: row.get(4)?,
            fence: rows::fence(row, 5)?,
        })
    }
}

/// Adds all attempts, each under the higher fence of both. The log must have reached what each memory demands; a freeze
/// is of the node that it happened on, and is not taken over.
pub(super) fn add(into: &Connection, from: &Connection) -> rusqlite::Result<Merged> {
    let (mut merged, mut digest) = (Merged::default(), [0; 32]);
    let mut attempts = from.prepare("SELECT id, wallet, payment, number, txid, fence FROM attempts ORDER BY id")?;
    for attempt in attempts.query_map([], Foreign::read)? {
        let attempt = attempt?;
        let change = match find(into, &attempt)? {
            None => {
                merged.added += 1;
                insert(into, from, &attempt)?
            }
            Some((id, fence)) => {
                merged.known += 1;
                if fence >= attempt.fence {
                    continue;
                }
                rows::set_fence(into, id, attempt.fence)?
            }
        };
        rows::mix(&mut digest, &change);
    }
    let theirs = rows::totals(from)?;
    rows::count_in(into, theirs.highest, theirs.floor, &digest)?;
    Ok(merged)
}

/// The row and the fence of the same transaction under the same number.
fn find(into: &Connection, attempt: &Foreign) -> rusqlite::Result<Option<(i64, Fence)>> {
    let sql = "SELECT id, fence FROM attempts WHERE wallet = ?1 AND payment = ?2 AND number = ?3 AND txid = ?4";
    let Foreign { wallet, payment, number, txid, .. } = attempt;
    let mut find = into.prepare_cached(sql)?;
    find.query_row(params![wallet, payment, number, txid], |row| Ok((row.get(0)?, rows::fence(row, 1)?))).optional()
}

fn insert(into: &Connection, from: &Connection, attempt: &Foreign) -> rusqlite::Result<[u8; 32]> {
    let Foreign { id, wallet, payment, number, txid, fence } = attempt;
    let mut coins = from.prepare_cached("SELECT outpoint FROM spends WHERE attempt = ?1")?;
    let coins = coins.query_map([id], |row| row.get::<_, Vec<u8>>(0))?;
    rows::insert(into, params![wallet, payment, number, txid, fence.0.cast_signed()], coins)
}
