//! What a signer remembers of what it has signed: a second barrier behind the replicated log.
//!
//! The log decides who may spend what. The memory only refuses, and it forgets nothing: should the log ever say two
//! things, because of a defect, a restored backup or somebody's hand in a database, the second one is not signed
//! here. One exclusive step checks a permit against everything that was recorded, records it, and is on the disk
//! before a key is touched. The rules are in `rules.rs`:
//!
//! | rule | what is refused |
//! |---|---|
//! | second payment | a coin that was signed away for another payment, unless the permit proves each such transaction dead (safety 6) |
//! | other transaction | another transaction under an attempt's number (safety 11) |
//! | lower fence | an intent that is older than one that was signed for the same coin (safety 12) |
//! | frozen | everything, once the cluster's log was seen to lack what was signed (safety 30) |
//!
//! Signing an attempt again is always allowed and writes nothing (safety 14). A record without a signature, which a
//! crash in between leaves, is no harm for the same reason.
//!
//! It is each node's own: it knows what this signer has signed here, and nothing of the signers of other nodes.

mod file;
mod freeze;
mod refusal;
mod rows;
mod rules;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Network;
use onespend_core::ids::Fence;
use onespend_core::signing::SigningPermit;
use rusqlite::{Connection, TransactionBehavior};

use self::file::fault;
use self::rules::{Step, judge};
use super::SignerError;

pub use freeze::AuditRow;
pub use refusal::Refusal;

/// Whose memory it is. A file of anybody else is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's name, as configured under `cluster.id`.
    pub cluster_id: String,
    /// Its network.
    pub network: Network,
    /// The signer's name.
    pub signer: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signer {} of cluster {} on {}", self.signer, self.cluster_id, self.network)
    }
}

/// An open memory. One process has it.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    owner: Owner,
    /// The fence that the log must have reached: the highest that an *earlier* process recorded. Within one process
    /// the log only grows, but permits may arrive in another order than they were made in, so what is recorded here
    /// says nothing about the log.
    floor: Fence,
    highest: AtomicU64,
    frozen: OnceLock<Refusal>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Connection,
    /// The first failure. What is on the disk after it is not known, so a later success would prove nothing.
    failed: Option<String>,
    /// Dropped after the connection, see [`file::open`].
    _lock: File,
}

/// What a memory holds, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many attempts were recorded.
    pub attempts: u64,
    /// How many coins they spend.
    pub outpoints: u64,
    /// The highest fence; `None` before the first.
    pub highest_fence: Option<Fence>,
    /// What the log must have reached, or the signer freezes; `None` before the first record.
    pub floor: Option<Fence>,
    /// The position of the log that froze it, if it is frozen.
    pub frozen: Option<Fence>,
    /// When it was frozen and unfrozen, oldest first.
    pub audit: Vec<AuditRow>,
}

impl Memory {
    /// Opens the memory, and makes it where there is none. All of it is checked, which takes about five seconds for
    /// each million signatures.
    ///
    /// # Errors
    /// [`SignerError::Memory`] names the file: damaged, of a newer format, of another signer or cluster, readable by
    /// others. [`SignerError::MemoryInUse`].
    pub fn open(path: &Path, owner: Owner) -> Result<Self, SignerError> {
        let (db, lock) = file::open(path, &owner)?;
        let totals = rows::totals(&db).map_err(fault(path))?;
        let frozen = OnceLock::new();
        if let Some((_, position)) = totals.frozen {
            frozen.get_or_init(|| Refusal::Frozen { signer: owner.signer.clone(), position, recorded: totals.floor });
        }
        Ok(Self {
            path: path.to_owned(),
            owner,
            floor: totals.floor,
            highest: AtomicU64::new(totals.highest.0),
            frozen,
            inner: Mutex::new(Inner { db, failed: None, _lock: lock }),
        })
    }

    /// The one step before a signature: checks the permit against everything that was signed, and records it. When
    /// this returns, the record is on the disk.
    ///
    /// # Errors
    /// [`SignerError::Remembered`] with the rule that is broken; [`SignerError::Memory`] when the file cannot be read
    /// or written, and for everything after that.
    pub fn check_and_record(&self, permit: &SigningPermit) -> Result<(), SignerError> {
        // A panic while the lock was held rolled its transaction back.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = &inner.failed {
            return Err(fault(&self.path)(format!("refused after an earlier failure: {first}")));
        }
        if let Some(frozen) = self.frozen.get() {
            return Err(self.refuse(frozen.clone()));
        }
        match self.decide(&mut inner.db, permit) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(self.refuse(refusal)),
            Err(error) => {
                inner.failed = Some(error.to_string());
                Err(fault(&self.path)(error))
            }
        }
    }

    fn decide(&self, db: &mut Connection, permit: &SigningPermit) -> rusqlite::Result<Result<(), Refusal>> {
        let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if permit.position() < self.floor {
            let (signer, position, recorded) = (&self.owner.signer, permit.position(), self.floor);
            freeze::freeze(&change, now_ms(), signer, position, recorded)?;
            change.commit()?;
            let refusal = Refusal::Frozen { signer: signer.clone(), position, recorded };
            return Ok(Err(self.frozen.get_or_init(|| refusal).clone()));
        }
        let own = rows::own(&change, permit)?;
        let step = match judge(permit, &own, &rows::spenders(&change, permit)?) {
            Ok(step) => step,
            Err(refusal) => return Ok(Err(refusal)),
        };
        match step {
            Step::Nothing => return Ok(Ok(())),
            Step::Raise(known) => rows::raise(&change, known, permit.fence())?,
            Step::Record => rows::record(&change, permit)?,
        }
        change.commit()?;
        self.highest.fetch_max(permit.fence().0, Ordering::Relaxed);
        Ok(Ok(()))
    }

    fn refuse(&self, refusal: Refusal) -> SignerError {
        SignerError::Remembered { signer: self.owner.signer.clone(), refusal: Box::new(refusal) }
    }

    /// The highest fence that was ever recorded; `None` before the first.
    pub fn highest_fence(&self) -> Option<Fence> {
        Some(Fence(self.highest.load(Ordering::Relaxed))).filter(|fence| *fence > Fence(0))
    }

    /// Why it refuses everything, if it does.
    pub fn frozen(&self) -> Option<&Refusal> {
        self.frozen.get()
    }
}

/// Looks at a memory, also while a node uses it.
///
/// # Errors
/// As [`Memory::open`], but for a file that is in use; and a file that is not there.
pub fn inspect(path: &Path, owner: &Owner) -> Result<Summary, SignerError> {
    let db = file::open_reader(path, owner)?;
    summary(&db).map_err(fault(path))
}

/// Lifts the freeze of a memory that no process uses, and records who did. From then on a log is good enough that has
/// reached the position which froze the signer; the other rules stay as they are. Returns that position, or `None`
/// where the signer was not frozen and nothing was changed.
///
/// # Errors
/// As [`Memory::open`], and a file that is not there.
pub fn unfreeze(path: &Path, owner: &Owner, who: &str) -> Result<Option<Fence>, SignerError> {
    if !path.try_exists().map_err(fault(path))? {
        return Err(fault(path)("is not there"));
    }
    let (mut db, _lock) = file::open(path, owner)?;
    lift(&mut db, who).map_err(fault(path))
}

/// Gives a memory that no process uses to a cluster that was restored from a backup of the cluster that it belongs to, and
/// records who did. Nothing that it remembers changes.
///
/// # Errors
/// As [`Memory::open`] for `from`, and a file that is not there.
pub fn adopt(path: &Path, from: &Owner, cluster_id: &str, who: &str) -> Result<(), SignerError> {
    if !path.try_exists().map_err(fault(path))? {
        return Err(fault(path)("is not there"));
    }
    let (mut db, _lock) = file::open(path, from)?;
    hand_on(&mut db, cluster_id, who).map_err(fault(path))?;
    // Everything into the one file: it is what gets copied to the other nodes.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fault(path))
}

fn hand_on(db: &mut Connection, cluster_id: &str, who: &str) -> rusqlite::Result<()> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let totals = rows::totals(&change)?;
    file::give_to(&change, cluster_id)?;
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

fn summary(db: &Connection) -> rusqlite::Result<Summary> {
    let count = |sql| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
    let totals = rows::totals(db)?;
    let attempts = count("SELECT count(*) FROM attempts")?;
    Ok(Summary {
        attempts,
        outpoints: count("SELECT count(DISTINCT outpoint) FROM spends")?,
        highest_fence: (attempts > 0).then_some(totals.highest),
        floor: (attempts > 0).then_some(totals.floor),
        frozen: totals.frozen.map(|(_, position)| position),
        audit: freeze::audit(db)?,
    })
}

/// For people to read; nothing is decided by it.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
