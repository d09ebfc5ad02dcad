//! The log of what was signed: one JSON line per signature, on the disk before anybody sees the signature.
//!
//! It is the signer's own account, written without asking the service, so that a harness or an auditor can compare
//! the two. A line is an object with these members; others may come:
//!
//! | member | value |
//! |---|---|
//! | `signer` | name of the signer |
//! | `wallet`, `payment_id` | the payment |
//! | `attempt` | number of the attempt, from 1 |
//! | `fence` | of the intent: its epoch times 2^48, plus its log index |
//! | `txid` | display-order hex |
//! | `digest` | hex of SHA-256 over all sighashes in the order of the inputs: one per attempt, for ever (safety 11) |
//! | `sighashes` | hex of each input's sighash, in the order of the inputs |
//! | `outpoints` | `txid:vout` of each input, in the same order |
//! | `at_unix_ms` | wall time when it was signed, for people and to date it: nothing decides by it |
//! | `transaction` | consensus hex of the signed transaction with its witnesses; absent if a bad signature left none |
//!
//! Lines of earlier versions lack the last two. Signing an attempt again appends a line that differs in `at_unix_ms`
//! alone, or also in the witnesses of `transaction` if the signer draws random nonces. A crash can leave a last line
//! without its end; the next start ends it, so a reader skips at most one line that is not JSON per crash.
//!
//! Whoever has a line can broadcast its transaction, so the file is its owner's alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Transaction;
use bitcoin::consensus::encode::serialize_hex;
use onespend_core::signing::SigningPermit;
use onespend_core::wallet::SignerRef;

use super::SignerError;
use super::seal::attempt_digest;

/// Permissions of a new log: it names payments, and holds what can be broadcast.
const LOG_MODE: u32 = 0o600;

/// The open log.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    file: Mutex<Tail>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    /// Whether the file may end in the middle of a line.
    torn: bool,
}

/// One line.
#[derive(Debug, serde::Serialize)]
struct Line<'a> {
    signer: &'a str,
    wallet: &'a str,
    payment_id: &'a str,
    attempt: u32,
    fence: u64,
    txid: String,
    digest: String,
    sighashes: Vec<String>,
    outpoints: Vec<String>,
    at_unix_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<String>,
}

impl AuditLog {
    /// Opens the log for appending and makes it where it is not there.
    ///
    /// # Errors
    /// [`SignerError::Audit`] with what the system said.
    pub fn open(path: &Path) -> Result<Self, SignerError> {
        let tail = open_tail(path).map_err(|error| audit_error(path, &error))?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(tail) })
    }

    /// Appends the line of one signature and waits until it is on the disk. `signed` is `None` where what came from the
    /// keys could not be made into a transaction.
    pub(super) fn append(
        &self,
        permit: &SigningPermit,
        sighashes: &[[u8; 32]],
        signed: Option<&Transaction>,
    ) -> Result<(), SignerError> {
        let signer = match permit.signer() {
            SignerRef::Named(name) => name.as_str(),
            // No permit of such a wallet gets past the signer's check of whom it is for.
            SignerRef::WatchOnly | SignerRef::External => "",
        };
        let line = Line {
            signer,
            wallet: permit.key().wallet.as_str(),
            payment_id: permit.key().payment.as_str(),
            attempt: permit.attempt().0,
            fence: permit.fence().0,
            txid: permit.txid().to_string(),
            digest: hex(&attempt_digest(sighashes)),
            sighashes: sighashes.iter().map(hex).collect(),
            outpoints: permit.inputs().iter().map(|input| input.outpoint.to_string()).collect(),
            at_unix_ms: now_ms(),
            transaction: signed.map(serialize_hex),
        };
        let mut bytes = serde_json::to_vec(&line).map_err(|error| audit_error(&self.path, &error.into()))?;
        bytes.push(b'\n');
        // A panic while the lock was held cannot leave more than a torn line, which the flag covers.
        let mut tail = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        tail.append(&bytes).map_err(|error| audit_error(&self.path, &error))
    }
}

impl Tail {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
        }
        self.torn = true;
        self.file.write_all(line)?;
        self.torn = false;
        self.file.sync_data()
    }
}

fn open_tail(path: &Path) -> io::Result<Tail> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(LOG_MODE).open(path)?;
    if is_new && let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(Tail { file, torn: last != [b'\n'] })
}

/// For people to read; nothing is decided by it.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn hex(bytes: &[u8; 32]) -> String {
    use bitcoin::hex::DisplayHex;
    bytes.to_lower_hex_string()
}

fn audit_error(path: &Path, error: &io::Error) -> SignerError {
    SignerError::Audit { path: path.to_owned(), why: error.to_string() }
}
