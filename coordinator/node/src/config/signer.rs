//! Which keys this node can sign with.

use std::path::{Path, PathBuf};

use bitcoin::Network;
use onespend_adapters::signer::SignerError;
use onespend_adapters::signer::software::SoftwareSigner;

use super::Section;
use crate::identity;

/// Most signers of one node.
pub const MAX_SIGNERS: usize = 64;

/// `[[signers]]`: one signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerConfig {
    /// The name by which wallets refer to it, 1 to 32 of `a-z 0-9 -`.
    pub name: String,
    /// What it is and where its keys are; `None` only while faults are being collected.
    pub keys: Option<SignerKeys>,
    /// Where it remembers what it has signed, if not in the data folder.
    pub memory: Option<PathBuf>,
    /// A file that gets one JSON line per signature, synchronised before the signature is
    /// handed out.
    pub audit_log: Option<PathBuf>,
}

/// Where the private descriptors of a software signer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignerKeys {
    /// A file with one private descriptor per line, readable by its owner alone.
    File(PathBuf),
    /// An environment variable with the same content.
    Environment(String),
}

impl SignerKeys {
    /// The signer with these keys, without its memory and its log.
    ///
    /// # Errors
    /// [`SignerError`]: the file or the variable cannot be read, or a line of it is no private descriptor.
    pub fn software(&self, name: &str, network: Network) -> Result<SoftwareSigner, SignerError> {
        match self {
            Self::File(path) => SoftwareSigner::from_file(name, path, network),
            Self::Environment(variable) => SoftwareSigner::from_environment(name, variable, network),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Software,
}

impl SignerConfig {
    /// Reads one element.
    pub fn read(section: &mut Section<'_>) -> Self {
        let name = section.checked_text("name", identity::check_name);
        let kind = section.choice("kind", &[("software", Kind::Software)], None);
        let file = section.optional_path("file");
        let variable = section.optional_text("env");
        let keys = match (kind, file, variable) {
            (_, Some(file), None) => Some(SignerKeys::File(file)),
            (_, None, Some(variable)) => Some(SignerKeys::Environment(variable)),
            (_, Some(_), Some(_)) => {
                let what = "stands beside env".to_owned();
                section.refuse("file", what, "the keys must have one source");
                None
            }
            (Some(Kind::Software), None, None) => {
                let why = "a software signer reads its keys from a file or a variable (env)";
                section.refuse("file", "missing".to_owned(), why);
                None
            }
            (None, None, None) => None,
        };
        Self { name, keys, memory: section.optional_path("memory"), audit_log: section.optional_path("audit_log") }
    }

    /// The file in which it remembers what it has signed: `signer-NAME.db` in the data folder unless set.
    pub fn memory_file(&self, data_dir: &Path) -> PathBuf {
        self.memory.clone().unwrap_or_else(|| data_dir.join(format!("signer-{}.db", self.name)))
    }
}
