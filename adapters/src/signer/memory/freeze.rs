//! The frozen state, and the audit: who lifted it or changed the memory in another way, and when.

use onespend_core::ids::{Fence, LogIndex};
use rusqlite::{Connection, params};

/// One event, for auditors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Wall clock, in milliseconds since 1970: for people to read.
    pub at_ms: u64,
    /// `frozen`; `unfrozen`; `adopted` by the cluster that it belongs to since; `accepted`, an epoch; `merged`, what
    /// another memory remembers.
    pub what: String,
    /// The operator; the signer itself where it froze.
    pub who: String,
    /// The position of the log that froze it. Where it was adopted, what the log must have reached; where an epoch was
    /// accepted, the begin of that; where it was merged, the highest fence of the other memory.
    pub position: Fence,
    /// The fence that the log should have reached. Where an epoch was accepted or it was merged, the highest fence
    /// before.
    pub recorded: Fence,
}

/// Freezes because of a permit of this position.
pub(super) fn freeze(
    db: &Connection,
    at_ms: u64,
    signer: &str,
    position: Fence,
    recorded: Fence,
) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE totals SET frozen_at_ms = ?1, frozen_position = ?2",
        params![at_ms.cast_signed(), position.0.cast_signed()],
    )?;
    note(db, &AuditRow { at_ms, what: "frozen".to_owned(), who: format!("signer {signer}"), position, recorded })
}

/// Lifts it: a log that has reached `position` is good enough from now on.
pub(super) fn lift(db: &Connection, at_ms: u64, who: &str, position: Fence, recorded: Fence) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE totals SET floor = ?1, frozen_at_ms = NULL, frozen_position = NULL",
        params![position.0.cast_signed()],
    )?;
    note(db, &AuditRow { at_ms, what: "unfrozen".to_owned(), who: who.to_owned(), position, recorded })
}

/// Another cluster has it now, whose log must have reached `floor`.
pub(super) fn note_adopted(db: &Connection, at_ms: u64, who: &str, floor: Fence) -> rusqlite::Result<()> {
    let (position, recorded) = (floor, floor);
    note(db, &AuditRow { at_ms, what: "adopted".to_owned(), who: who.to_owned(), position, recorded })
}

/// An epoch is accepted from now on.
pub(super) fn note_accepted(
    db: &Connection,
    at_ms: u64,
    who: &str,
    epoch: u32,
    recorded: Fence,
) -> rusqlite::Result<()> {
    let position = Fence::of(epoch, LogIndex(0));
    note(db, &AuditRow { at_ms, what: "accepted".to_owned(), who: who.to_owned(), position, recorded })
}

/// It remembers from now on what another memory does, up to `position`.
pub(super) fn note_merged(
    db: &Connection,
    at_ms: u64,
    who: &str,
    position: Fence,
    recorded: Fence,
) -> rusqlite::Result<()> {
    note(db, &AuditRow { at_ms, what: "merged".to_owned(), who: who.to_owned(), position, recorded })
}

fn note(db: &Connection, row: &AuditRow) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO audit(at_ms, what, who, position, recorded) VALUES(?1, ?2, ?3, ?4, ?5)",
        params![row.at_ms.cast_signed(), row.what, row.who, row.position.0.cast_signed(), row.recorded.0.cast_signed()],
    )?;
    Ok(())
}

/// All events, the oldest first. They are rare, because each needs an operator.
pub(super) fn audit(db: &Connection) -> rusqlite::Result<Vec<AuditRow>> {
    let mut all = db.prepare("SELECT at_ms, what, who, position, recorded FROM audit ORDER BY id")?;
    let number = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    all.query_map([], |row| {
        Ok(AuditRow {
            at_ms: number(row, 0)?,
            what: row.get(1)?,
            who: row.get(2)?,
            position: Fence(number(row, 3)?),
            recorded: Fence(number(row, 4)?),
        })
    })?
    .collect()
}
