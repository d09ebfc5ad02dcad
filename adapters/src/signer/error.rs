//! Why there is no signature.

use std::path::PathBuf;

use onespend_core::ids::Fence;

use super::draft::Refusal;
use super::memory;

/// What a signer answers when it does not sign. None of these frees a coin: the intent stays committed and the
/// leader drives it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// Nothing was asked of the keys, because they cannot be reached now.
    #[error("signer {signer} cannot be reached: {why}")]
    Unavailable {
        /// Which signer.
        signer: String,
        /// What was tried and what came back.
        why: String,
    },
    /// No answer in time. Whether a signature was made is unknown (safety 27).
    #[error("signer {signer} did not answer within {after_ms} ms; whether it signed is unknown")]
    Timeout {
        /// Which signer.
        signer: String,
        /// How long was waited, in milliseconds.
        after_ms: u64,
    },
    /// The permit names another signer: a fault in whoever called.
    #[error("the permit is for signer {asked:?}, and this is {signer:?}")]
    WrongSigner {
        /// This one.
        signer: String,
        /// The one that the wallet names, empty when it names none.
        asked: String,
    },
    /// No private key of this signer belongs to the wallet's descriptor.
    #[error("signer {signer} has no private key for {descriptor}")]
    WrongKey {
        /// Which signer.
        signer: String,
        /// The wallet's public descriptor.
        descriptor: String,
    },
    /// A guard refused the permit before any key was touched.
    #[error("refused to sign: {rule}")]
    Refused {
        /// The rule that is broken.
        rule: Refusal,
    },
    /// What came from the keys is not a valid signature of the permitted transaction. It was thrown away.
    #[error("the signature of input {input} is not valid: {why}")]
    BadSignature {
        /// Position of the input, from 0.
        input: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The file with private descriptors cannot be used.
    #[error("key file {}: {why}", path.display())]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the command that puts it right where there is one.
        why: String,
    },
    /// The environment variable with private descriptors cannot be used.
    #[error("environment variable {variable}: {why}")]
    Environment {
        /// Which variable.
        variable: String,
        /// What is wrong.
        why: String,
    },
    /// A line is not a private descriptor that this signer can use. Never shows the line itself.
    #[error("{origin}, line {line}: {why}")]
    Descriptor {
        /// The file or the variable.
        origin: String,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The audit log did not take the line, so the signature was thrown away.
    #[error("audit log {}: {why}", path.display())]
    Audit {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// What was signed before speaks against the permit. Nothing was asked of the keys.
    #[error("signer {signer} refuses: {refusal}")]
    Remembered {
        /// Which signer.
        signer: String,
        /// What speaks against it.
        refusal: Box<memory::Refusal>,
    },
    /// Another process has the signer's memory open.
    #[error("signer's memory {}: is in use by another process", path.display())]
    MemoryInUse {
        /// Which file.
        path: PathBuf,
    },
    /// The signer's memory cannot be used, so nothing is signed.
    #[error("signer's memory {}: {why}", path.display())]
    Memory {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No log can ever be of this epoch.
    #[error("epoch {epoch} cannot be accepted: the last one is {}", Fence::MAX_EPOCH)]
    NoSuchEpoch {
        /// What was asked for.
        epoch: u32,
    },
}

impl SignerError {
    /// Whether the same call may succeed later without a human doing something.
    pub fn retry(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Timeout { .. } | Self::Audit { .. } => true,
            Self::WrongSigner { .. }
            | Self::WrongKey { .. }
            | Self::Refused { .. }
            | Self::BadSignature { .. }
            | Self::KeyFile { .. }
            | Self::Environment { .. }
            | Self::Descriptor { .. }
            | Self::Remembered { .. }
            | Self::MemoryInUse { .. }
            | Self::Memory { .. }
            | Self::NoSuchEpoch { .. } => false,
        }
    }

    /// Whether a signature may exist although none was returned.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}
