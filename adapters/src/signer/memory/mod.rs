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
//! | lower fence | an intent that is older than one that was signed for the same coin (safety 12), unless the permit proves that one dead and both are of one payment |
//! | frozen | everything, once the cluster's log was seen to lack what was signed (safety 30) |
//! | epoch not accepted | everything, while the log is of an epoch that nobody has accepted for it (safety 8, 30) |
//!
//! Signing an attempt again is always allowed and writes nothing (safety 14). A record without a signature, which a
//! crash in between leaves, is no harm for the same reason.
//!
//! It is each node's own: it knows what this signer has signed here, and nothing of the signers of other nodes. While a
//! log is whole, that is enough, because it decides once for all nodes. A recovered log lacks what was signed after the
//! copy that it came from, and only the memories of the nodes that signed it know. So the fence epoch, which moves up
//! with each recovery, has to be accepted for each memory, and nothing is signed before: by the operator's word
//! ([`accept`]), or by taking in a memory for which it was ([`merge`]). A new memory begins with epoch 0, and so does a
//! new cluster.
//!
//! After that, a payment that the memory refuses is ended by cancelling it: what pays nobody but the wallet is not held
//! up by what was signed in an earlier epoch for its coins, or for its payment with others.

mod copying;
mod file;
mod freeze;
mod merging;
mod operator;
mod refusal;
mod rows;
mod rules;
mod tables;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bitcoin::{Network, OutPoint, Txid};
use onespend_core::ids::Fence;
use onespend_core::signing::SigningPermit;
use rusqlite::{Connection, TransactionBehavior};

use self::file::{Opened, fault};
use self::operator::{now_ms, take_word};
use self::rules::{Step, judge};
use super::SignerError;

pub use freeze::AuditRow;
pub use merging::Merged;
pub use operator::{accept, adopt, copy, inspect, merge, unfreeze};
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
    /// The accepted epoch.
    accepted: AtomicU32,
    frozen: OnceLock<Refusal>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    opened: Opened,
    /// The first failure. What is on the disk after it is not known, so a later success would prove nothing.
    failed: Option<String>,
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
    /// The accepted epoch: nothing is signed for a log of a higher one.
    pub epoch: u32,
    /// The position of the log that froze it, if it is frozen.
    pub frozen: Option<Fence>,
    /// When it was frozen and unfrozen, and what else was done with it, oldest first.
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
        let opened = file::open(path, &owner)?;
        let totals = rows::totals(&opened.db).map_err(fault(path))?;
        let frozen = OnceLock::new();
        if let Some((_, position)) = totals.frozen {
            frozen.get_or_init(|| Refusal::Frozen { signer: owner.signer.clone(), position, recorded: totals.floor });
        }
        Ok(Self {
            path: path.to_owned(),
            owner,
            floor: totals.floor,
            highest: AtomicU64::new(totals.highest.0),
            accepted: AtomicU32::new(totals.accepted()),
            frozen,
            inner: Mutex::new(Inner { opened, failed: None }),
        })
    }

    /// The one step before a signature: checks the permit against everything that was signed, and records it. When
    /// this returns, the record is on the disk.
    ///
    /// # Errors
    /// [`SignerError::Remembered`] with the rule that is broken; [`SignerError::Memory`] when the file cannot be read
    /// or written, and for everything after that.
    pub fn check_and_record(&self, permit: &SigningPermit) -> Result<(), SignerError> {
        let mut inner = self.usable()?;
        let (epoch, accepted) = (permit.position().epoch(), self.accepted_epoch());
        if epoch > accepted {
            let signer = self.owner.signer.clone();
            return Err(self.refuse(Refusal::EpochNotAccepted { signer, epoch, accepted }));
        }
        if let Some(frozen) = self.frozen.get() {
            return Err(self.refuse(frozen.clone()));
        }
        match self.decide(&mut inner.opened.db, permit) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(self.refuse(refusal)),
            Err(error) => Err(self.fail(&mut inner, &error)),
        }
    }

    /// Takes `who`'s word that it knows what was signed before this epoch. When this returns, the word is on the disk.
    /// An epoch that is not above the accepted one changes nothing.
    ///
    /// # Errors
    /// [`SignerError::NoSuchEpoch`]; [`SignerError::Memory`] when the file cannot be written, and for everything after
    /// that.
    pub fn accept(&self, epoch: u32, who: &str) -> Result<(), SignerError> {
        check_epoch(epoch)?;
        let mut inner = self.usable()?;
        take_word(&mut inner.opened.db, epoch, who).map_err(|error| self.fail(&mut inner, &error))?;
        self.accepted.fetch_max(epoch, Ordering::Relaxed);
        Ok(())
    }

    /// The recorded transactions that spend one of these coins, each with its coin.
    ///
    /// # Errors
    /// [`SignerError::Memory`] when the file cannot be read, and for everything after that.
    pub fn spenders(&self, coins: &[OutPoint]) -> Result<Vec<(OutPoint, Txid)>, SignerError> {
        let mut inner = self.usable()?;
        rows::spending(&inner.opened.db, coins).map_err(|error| self.fail(&mut inner, &error))
    }

    /// The file, unless it has failed before.
    fn usable(&self) -> Result<MutexGuard<'_, Inner>, SignerError> {
        // A panic while the lock was held rolled its transaction back.
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = &inner.failed {
            return Err(fault(&self.path)(format!("refused after an earlier failure: {first}")));
        }
        Ok(inner)
    }

    fn fail(&self, inner: &mut Inner, error: &rusqlite::Error) -> SignerError {
        inner.failed = Some(error.to_string());
        fault(&self.path)(error)
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

    /// The epoch of the log up to which it is accepted.
    pub fn accepted_epoch(&self) -> u32 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Why it refuses everything, if it does.
    pub fn frozen(&self) -> Option<&Refusal> {
        self.frozen.get()
    }
}

/// Whether a log can be of this epoch.
fn check_epoch(epoch: u32) -> Result<(), SignerError> {
    if epoch > Fence::MAX_EPOCH { Err(SignerError::NoSuchEpoch { epoch }) } else { Ok(()) }
}
