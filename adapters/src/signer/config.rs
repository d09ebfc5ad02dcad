//! One `[[signers]]` section of the configuration file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::Network;

use super::software::SoftwareSigner;
use super::{Signer, SignerError};

/// Longest name of a signer in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// What kind of signer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Private descriptors in this process' memory.
    Software,
}

/// A signer of this node.
///
/// ```toml
/// [[signers]]
/// name = "hot"                      # wallets refer to it by this name: 1 to 64 of A-Z a-z 0-9 - _ .
/// kind = "software"
/// file = "hot.xprv"                 # permissions 0600; or: env = "ONESPEND_SIGNER_HOT"
/// audit_log = "hot-signatures.jsonl"   # optional
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name that wallets use.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// File with private descriptors; relative to the folder of the configuration file.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Environment variable with private descriptors, one per line. It stays visible in `/proc/PID/environ` to the
    /// same user: prefer the file.
    #[serde(default)]
    pub env: Option<String>,
    /// Where to log every signature, see [`super::audit`]; relative to the folder of the configuration file.
    #[serde(default)]
    pub audit_log: Option<PathBuf>,
}

impl Config {
    /// Checks what can be checked without touching a key.
    ///
    /// # Errors
    /// [`SignerError::Config`] says what is wrong.
    pub fn check(&self) -> Result<(), SignerError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let name_ok = (1..=MAX_NAME_BYTES).contains(&self.name.len()) && self.name.bytes().all(word);
        let why = match (&self.file, &self.env) {
            _ if !name_ok => "name must be 1 to 64 of A-Z a-z 0-9 - _ .",
            (None, None) => "needs `file` or `env`: where its private descriptors are",
            (Some(_), Some(_)) => "has both `file` and `env`: name one",
            (Some(_), None) | (None, Some(_)) => return Ok(()),
        };
        Err(SignerError::Config { signer: self.name.clone(), why: why.to_owned() })
    }

    /// Reads the keys and opens the log. Relative paths start at `folder`.
    ///
    /// # Errors
    /// [`SignerError`] names the file, the variable or the line that is wrong.
    pub fn build(&self, folder: &Path, network: Network) -> Result<Arc<dyn Signer>, SignerError> {
        self.check()?;
        let Kind::Software = self.kind;
        let mut signer = match (&self.file, &self.env) {
            (Some(file), _) => SoftwareSigner::from_file(&self.name, &folder.join(file), network)?,
            (None, variable) => {
                SoftwareSigner::from_environment(&self.name, variable.as_deref().unwrap_or_default(), network)?
            }
        };
        if let Some(log) = &self.audit_log {
            signer = signer.with_audit_log(&folder.join(log))?;
        }
        Ok(Arc::new(signer))
    }
}
