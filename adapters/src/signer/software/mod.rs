//! The software signer: private descriptors in this process' memory.
//!
//! It is for test networks, small amounts and laptops: whoever can read the memory of the process has the keys.
//! Signatures are deterministic (RFC 6979 for ECDSA; BIP-340 without auxiliary randomness for Schnorr), so signing an
//! attempt again, on this node or another, gives the same bytes.

mod generate;
mod keyring;
mod source;

use std::path::Path;

use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, TapSighashType};
use bitcoin::{Network, OutPoint, Transaction, Txid, ecdsa, psbt, taproot};
use onespend_core::ids::Fence;
use onespend_core::signing::SigningPermit;
use onespend_core::wallet::{SignerRef, WalletDescriptor};

use self::keyring::{ChildKey, Keyring};
use super::audit::AuditLog;
use super::draft::{Draft, Scheme, message};
use super::memory::{Memory, Owner};
use super::seal::seal;
use super::{Signer, SignerError};

pub use crate::secret_file::MAX_SECRET_BYTES as MAX_SOURCE_BYTES;
pub use generate::{AddressKind, generate};
pub use keyring::MAX_DESCRIPTORS;

/// Signs with keys that it holds in memory.
#[derive(Debug)]
pub struct SoftwareSigner {
    name: String,
    keyring: Keyring,
    memory: Option<Memory>,
    audit: Option<AuditLog>,
    secp: Secp256k1<All>,
}

impl SoftwareSigner {
    /// Reads private descriptors from a file: one per line, such as `wpkh([d34db33f/84h/1h/0h]tprv.../<0;1>/*)` or
    /// `tr(tprv.../86h/1h/0h/<0;1>/*)`; empty lines and lines that start with `#` are skipped. Symbolic links are
    /// followed; the file at their end must belong to this process' user, with no access for anybody else.
    ///
    /// # Errors
    /// [`SignerError::KeyFile`] for the file, [`SignerError::Descriptor`] for a line of it.
    pub fn from_file(name: &str, path: &Path, network: Network) -> Result<Self, SignerError> {
        let text = source::read_file(path)?;
        Self::new(name, Keyring::parse(&text, &path.display().to_string(), network)?)
    }

    /// Reads private descriptors from an environment variable, in the form that [`Self::from_file`] takes.
    ///
    /// # Errors
    /// [`SignerError::Environment`] for the variable, [`SignerError::Descriptor`] for a line of it.
    pub fn from_environment(name: &str, variable: &str, network: Network) -> Result<Self, SignerError> {
        let text = source::read_variable(variable)?;
        Self::new(name, Keyring::parse(&text, variable, network)?)
    }

    #[allow(clippy::unnecessary_wraps)] // Reads as the end of a chain of steps that can fail.
    fn new(name: &str, keyring: Keyring) -> Result<Self, SignerError> {
        Ok(Self { name: name.to_owned(), keyring, memory: None, audit: None, secp: Secp256k1::new() })
    }

    /// Logs every signature before it is returned, see [`super::audit`].
    ///
    /// # Errors
    /// [`SignerError::Audit`] when the log cannot be opened.
    pub fn with_audit_log(self, path: &Path) -> Result<Self, SignerError> {
        Ok(Self { audit: Some(AuditLog::open(path)?), ..self })
    }

    /// Remembers every attempt before it is signed, in a file that belongs to this signer of this cluster, and refuses
    /// what speaks against that; see [`super::memory`].
    ///
    /// # Errors
    /// [`SignerError::Memory`] when the file cannot be made or used.
    pub fn with_memory(self, path: &Path, cluster_id: &str, network: Network) -> Result<Self, SignerError> {
        let owner = Owner { cluster_id: cluster_id.to_owned(), network, signer: self.name.clone() };
        Ok(Self { memory: Some(Memory::open(path, owner)?), ..self })
    }

    /// The public forms of its descriptors, to register wallets with.
    pub fn public_descriptors(&self) -> impl Iterator<Item = &str> {
        self.keyring.public_descriptors()
    }

    fn check_addressee(&self, permit: &SigningPermit) -> Result<(), SignerError> {
        let asked = match permit.signer() {
            SignerRef::Named(name) if *name == self.name => return Ok(()),
            SignerRef::Named(name) => name.clone(),
            SignerRef::WatchOnly | SignerRef::External => String::new(),
        };
        Err(SignerError::WrongSigner { signer: self.name.clone(), asked })
    }

    fn wrong_key(&self, permit: &SigningPermit) -> SignerError {
        SignerError::WrongKey { signer: self.name.clone(), descriptor: permit.descriptor().as_str().to_owned() }
    }
}

impl Signer for SoftwareSigner {
    fn name(&self) -> &str {
        &self.name
    }

    fn holds(&self, descriptor: &WalletDescriptor) -> bool {
        self.keyring.find(descriptor).is_some()
    }

    fn sign(&self, permit: &SigningPermit) -> Result<Transaction, SignerError> {
        self.check_addressee(permit)?;
        let mut draft = Draft::new(permit)?;
        let account = self.keyring.find(permit.descriptor()).ok_or_else(|| self.wrong_key(permit))?;
        if let Some(memory) = &self.memory {
            memory.check_and_record(permit)?;
        }
        for ((field, input), sighash) in draft.psbt.inputs.iter_mut().zip(permit.inputs()).zip(&draft.sighashes) {
            let key = account.child(&self.secp, input.keychain, input.index);
            let key = key.ok_or_else(|| self.wrong_key(permit))?;
            match draft.scheme {
                Scheme::Ecdsa => sign_ecdsa(&self.secp, field, &key, sighash),
                Scheme::Schnorr => sign_schnorr(&self.secp, field, &key, sighash),
            }
        }
        seal(&self.secp, permit, draft, self.audit.as_ref())
    }

    fn highest_fence(&self) -> Option<Fence> {
        self.memory.as_ref()?.highest_fence()
    }

    fn spenders(&self, coins: &[OutPoint]) -> Result<Vec<(OutPoint, Txid)>, SignerError> {
        self.memory.as_ref().map_or_else(|| Ok(Vec::new()), |memory| memory.spenders(coins))
    }

    fn frozen(&self) -> Option<String> {
        self.memory.as_ref()?.frozen().map(ToString::to_string)
    }

    fn accepted_epoch(&self) -> Option<u32> {
        self.memory.as_ref().map(Memory::accepted_epoch)
    }

    fn accept_epoch(&self, epoch: u32, who: &str) -> Result<(), SignerError> {
        self.memory.as_ref().map_or(Ok(()), |memory| memory.accept(epoch, who))
    }
}

fn sign_ecdsa(secp: &Secp256k1<All>, field: &mut psbt::Input, key: &ChildKey, sighash: &[u8; 32]) {
    let signature = secp.sign_ecdsa(&message(sighash), key.secret());
    let public = bitcoin::PublicKey::new(key.secret().public_key(secp));
    field.partial_sigs.insert(public, ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All });
}

/// With the key tweaked as BIP-86 has it: no scripts.
fn sign_schnorr(secp: &Secp256k1<All>, field: &mut psbt::Input, key: &ChildKey, sighash: &[u8; 32]) {
    let mut plain = Keypair::from_secret_key(secp, key.secret());
    let mut tweaked = plain.tap_tweak(secp, None).to_keypair();
    let signature = secp.sign_schnorr_no_aux_rand(&message(sighash), &tweaked);
    plain.non_secure_erase();
    tweaked.non_secure_erase();
    field.tap_key_sig = Some(taproot::Signature { signature, sighash_type: TapSighashType::Default });
}
