//! What operators do with the file of a memory. Each change is in the memory's audit, with who made it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use onespend_core::ids::Fence;
use rusqlite::{Connection, TransactionBehavior};

use super::file::{self, Opened, fault};
use super::merging::{self, Merged};
use super::{Owner, Summary, check_epoch, copying, freeze, rows};
use crate::signer::SignerError;

/// Looks at a memory, also while a node uses it.
///
/// # Errors
/// As [`super::Memory::open`], but for a file that is in use; and a file that is not there.
pub fn inspect(path: &Path, owner: &Owner) -> Result<Summary, SignerError> {
    let db = file::open_reader(path, owner)?;
    summary(&db).map_err(fault(path))
}

/// Lifts the freeze of a memory that no process uses, and records who did. From then on a log is good enough that has
/// reached the position which froze the signer; the other rules stay as they are. Returns that position, or `None`
/// where the signer was not frozen and nothing was changed.
///
/// # Errors
/// As [`super::Memory::open`], and a file that is not there.
pub fn unfreeze(path: &Path, owner: &Owner, who: &str) -> Result<Option<Fence>, SignerError> {
    let mut memory = open_existing(path, owner)?;
    lift(&mut memory.db, who).map_err(fault(path))
}

/// Gives a memory that no process uses to a cluster that was restored from a backup of the cluster that it belongs to,
/// and records who did. Nothing that it remembers changes. The accepted epoch is 0 from then on, for it was one of the
/// other cluster's log: of this one nobody has said yet that it knows what it must.
///
/// # Errors
/// As [`super::Memory::open`] for `from`, and a file that is not there.
pub fn adopt(path: &Path, from: &Owner, cluster_id: &str, who: &str) -> Result<(), SignerError> {
    let mut memory = open_existing(path, from)?;
    hand_on(&mut memory.db, cluster_id, who).map_err(fault(path))?;
    // Everything into the one file: it is what gets copied to the other nodes.
    memory.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fault(path))
}

/// Takes `who`'s word that a memory which no process uses knows what was signed before this epoch. An epoch that is not
/// above the accepted one changes nothing.
///
/// # Errors
/// [`SignerError::NoSuchEpoch`]; as [`super::Memory::open`], and a file that is not there.
pub fn accept(path: &Path, owner: &Owner, epoch: u32, who: &str) -> Result<(), SignerError> {
    check_epoch(epoch)?;
    let mut memory = open_existing(path, owner)?;
    take_word(&mut memory.db, epoch, who).map_err(fault(path))
}

/// Adds what another memory of the same signer remembers to a memory that no process uses, which is made where there is
/// none. If both are of one cluster, the accepted epoch becomes the higher one of both. The other memory stays as it
/// is.
///
/// # Errors
/// As [`super::Memory::open`] for the memory, and as [`inspect`] for the other one, before the first is made or
/// changed; another signer or network; both are the same file.
pub fn merge(path: &Path, owner: &Owner, from: &Path, from_owner: &Owner, who: &str) -> Result<Merged, SignerError> {
    if (&from_owner.signer, from_owner.network) != (&owner.signer, owner.network) {
        return Err(fault(from)(format!("is of {from_owner}: what {owner} remembers can only be its own")));
    }
    let other = file::open_reader(from, from_owner)?;
    if path.try_exists().map_err(fault(path))? && file::is_same(path, from).map_err(fault(path))? {
        return Err(fault(from)("is the memory itself: name the copy of another one"));
    }
    let mut memory = file::open(path, owner)?;
    take_over(&mut memory.db, &other, owner.cluster_id == from_owner.cluster_id, who).map_err(fault(path))
}

/// Copies a memory into one new file, also while a node uses it.
///
/// # Errors
/// As [`inspect`]; a file that is there already, or cannot be written. Nothing is left behind then.
pub fn copy(path: &Path, owner: &Owner, to: &Path) -> Result<(), SignerError> {
    copying::make(&file::open_reader(path, owner)?, owner, to)
}

fn open_existing(path: &Path, owner: &Owner) -> Result<Opened, SignerError> {
    if path.try_exists().map_err(fault(path))? { file::open(path, owner) } else { Err(fault(path)("is not there")) }
}

fn hand_on(db: &mut Connection, cluster_id: &str, who: &str) -> rusqlite::Result<()> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let totals = rows::totals(&change)?;
    file::give_to(&change, cluster_id)?;
    rows::accept(&change, 0)?;
    freeze::note_adopted(&change, now_ms(), who, totals.floor)?;
    change.commit()
}

fn lift(db: &mut Connection, who: &str) -> rusqlite::Result<Option<Fence>> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let totals = rows::totals(&change)?;
    let Some((_, position)) = totals.frozen else { return Ok(None) };
    freeze::lift(&change, now_ms(), who, position, totals.floor)?;
    change.commit()?;
    Ok(Some(position))
}

/// Makes it the accepted epoch, unless that is as high already.
pub(super) fn take_word(db: &mut Connection, epoch: u32, who: &str) -> rusqlite::Result<()> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let totals = rows::totals(&change)?;
    if epoch <= totals.accepted() {
        return Ok(());
    }
    rows::accept(&change, epoch)?;
    freeze::note_accepted(&change, now_ms(), who, epoch, totals.highest)?;
    change.commit()
}

fn take_over(db: &mut Connection, other: &Connection, of_one_cluster: bool, who: &str) -> rusqlite::Result<Merged> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // One state of the other one, should it be in use.
    let other = other.unchecked_transaction()?;
    let (ours, theirs) = (rows::totals(&change)?, rows::totals(&other)?);
    let merged = merging::add(&change, &other)?;
    if of_one_cluster && theirs.accepted() > ours.accepted() {
        rows::accept(&change, theirs.accepted())?;
    }
    freeze::note_merged(&change, now_ms(), who, theirs.highest, ours.highest)?;
    change.commit()?;
    Ok(merged)
}

fn summary(db: &Connection) -> rusqlite::Result<Summary> {
    let count = |sql| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
    let totals = rows::totals(db)?;
    let attempts = count("SELECT count(*) FROM attempts")?;
    Ok(Summary {
        attempts,
        outpoints: count("SELECT count(DISTINCT outpoint) FROM spends")?,
        highest_fence: (attempts > 0).then_some(totals.highest),
        floor: (attempts > 0).then_some(totals.floor),
        epoch: totals.accepted(),
        frozen: totals.frozen.map(|(_, position)| position),
        audit: freeze::audit(db)?,
    })
}

/// For people to read; nothing is decided by it.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
