//! The port to whoever holds keys, and the part of signing that is the same for all of them.
//!
//! ```text
//! SigningPermit ── draft ──▶ PSBT and sighashes ── a signer ──▶ signatures ── seal ──▶ verified transaction
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`draft`] | guards, and the PSBT that is built from the permit alone |
//! | [`seal`] | finalizing, and the check of every signature before anybody sees it |
//! | [`outside`] | the permit as a PSBT for signers that are not called from here, and the check of what they made |
//! | [`audit`] | the log of what was signed |
//! | [`memory`] | what was signed before, as a second barrier behind the log |
//! | [`software`] | keys in a file or an environment variable |
//!
//! A new signer goes into a folder of its own here, takes a [`draft::Draft`], adds signatures to its PSBT, and gives
//! it to [`seal::seal`] with its log. The suite in `tests/signer` must pass with it.

pub mod audit;
pub mod draft;
mod error;
pub mod memory;
pub mod outside;
pub mod seal;
pub mod software;
#[cfg(test)]
mod specimen;

use bitcoin::{OutPoint, Transaction, Txid};
use onespend_core::ids::Fence;
use onespend_core::signing::SigningPermit;
use onespend_core::wallet::WalletDescriptor;

pub use error::SignerError;

/// Makes the signatures that a permit allows.
///
/// It blocks: call it from a dedicated thread or `spawn_blocking`, never while holding the state's lock.
pub trait Signer: Send + Sync + 'static {
    /// The name under which wallets refer to it (`SignerRef::Named`).
    fn name(&self) -> &str;

    /// Whether it has the keys of a wallet with this descriptor, as far as it can tell without signing.
    fn holds(&self, descriptor: &WalletDescriptor) -> bool;

    /// Signs exactly the permit's transaction and returns it with verified witnesses. The txid is the permit's. A
    /// permit that is signed again gives the same txid, whatever nonces the signer uses (safety 14).
    ///
    /// # Errors
    /// [`SignerError`]; [`SignerError::retry`] says whether the same call may succeed later. After
    /// [`SignerError::Timeout`] a signature may exist.
    fn sign(&self, permit: &SigningPermit) -> Result<Transaction, SignerError>;

    /// The highest fence under which it has signed, as far as it remembers. `None` for a signer without a memory, or
    /// before its first signature.
    fn highest_fence(&self) -> Option<Fence> {
        None
    }

    /// The transactions that it remembers to have signed, or begun to sign, for these coins, each with its coin. None
    /// for a signer without a memory. Blocks for reads of the disk.
    ///
    /// # Errors
    /// [`SignerError::Memory`] when what it remembers cannot be read.
    fn spenders(&self, _coins: &[OutPoint]) -> Result<Vec<(OutPoint, Txid)>, SignerError> {
        Ok(Vec::new())
    }

    /// Why it signs nothing more until an operator has looked; `None` while it does sign.
    fn frozen(&self) -> Option<String> {
        None
    }

    /// The epoch of the log up to which somebody has said that it knows what it must know. It signs nothing of a log of
    /// a higher one. `None` for a signer without a memory: there is nothing to accept.
    fn accepted_epoch(&self) -> Option<u32> {
        None
    }

    /// Takes `who`'s word that it knows what it must know of everything that was signed before this epoch. An epoch
    /// that is not above the accepted one changes nothing.
    ///
    /// # Errors
    /// [`SignerError::NoSuchEpoch`], and [`SignerError::Memory`] when that cannot be written down.
    fn accept_epoch(&self, _epoch: u32, _who: &str) -> Result<(), SignerError> {
        Ok(())
    }
}
