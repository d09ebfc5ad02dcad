//! What can be wrong with a PSBT, each with the place and the rule.

use std::fmt;

use bitcoin::OutPoint;

/// Most faults of one PSBT that are named; the rest would say nothing new.
pub const MAX_NAMED_FAULTS: usize = 32;

/// Where in a PSBT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The global map.
    Global,
    /// The map of an input, from 0.
    Input(usize),
    /// The map of an output, from 0.
    Output(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global map"),
            Self::Input(at) => write!(f, "input {at}"),
            Self::Output(at) => write!(f, "output {at}"),
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PsbtFault {
    /// Above the limit.
    #[error("the PSBT has {bytes} bytes; at most {max} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Something else than a PSBT.
    #[error("not a PSBT: {why}")]
    NotPsbt {
        /// What it looks like.
        why: String,
    },
    /// A PSBT of another version, such as 2 (BIP-370).
    #[error("the PSBT is of version {version}; only version 0 (BIP-174) is accepted: convert it")]
    UnsupportedVersion {
        /// Its version.
        version: u32,
    },
    /// A field that only version 2 has (BIP-370 excludes it from version 0).
    #[error("{place}: field {field} belongs to PSBT version 2 and must not be in version 0")]
    OtherVersionField {
        /// Where.
        place: Place,
        /// Its name in BIP-370.
        field: &'static str,
    },
    /// The bytes end too early.
    #[error("{place}: the PSBT ends in the middle")]
    Truncated {
        /// What could not be read to its end.
        place: Place,
    },
    /// Bytes after the last map.
    #[error("{bytes} bytes follow after the last output")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// More fields than [`MAX_FIELDS`](super::MAX_FIELDS).
    #[error("more than {max} fields")]
    TooManyFields {
        /// The limit.
        max: usize,
    },
    /// The same key twice in one map.
    #[error("{place}: key {key} is there twice")]
    DuplicateKey {
        /// Where.
        place: Place,
        /// The key's first bytes in hexadecimal.
        key: String,
    },
    /// A field that is not of its form.
    #[error("{place}: {why}")]
    Malformed {
        /// Where.
        place: Place,
        /// What the parser said.
        why: String,
    },
    /// No transaction to sign.
    #[error("there is no unsigned transaction (PSBT_GLOBAL_UNSIGNED_TX)")]
    NoUnsignedTransaction,
    /// Too few or too many inputs or outputs.
    #[error("{got} {what}; there must be 1 to {max}")]
    Count {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// The "unsigned" transaction has a scriptSig.
    #[error("input {input}: the unsigned transaction holds a scriptSig")]
    NotUnsigned {
        /// Which input.
        input: usize,
    },
    /// The same coin twice.
    #[error("input {input}: spends {outpoint}, as input {first} does")]
    DuplicateInput {
        /// The second.
        input: usize,
        /// The first.
        first: usize,
        /// The coin.
        outpoint: OutPoint,
    },
    /// An output that cannot be.
    #[error("output {output}: {rule}")]
    OutputInvalid {
        /// Which output.
        output: usize,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Something else than SIGHASH_ALL, or SIGHASH_DEFAULT for taproot (safety 20).
    #[error("input {input}: sighash type {sighash} is not allowed: only ALL, and DEFAULT for taproot")]
    SighashNotAllowed {
        /// Which input.
        input: usize,
        /// The coin that it spends.
        outpoint: OutPoint,
        /// The type by name, or as a number.
        sighash: String,
    },
    /// A signature, or a finished input (safety 20).
    #[error("input {input}: holds {field} already; send it unsigned")]
    AlreadySigned {
        /// Which input.
        input: usize,
        /// Which field.
        field: &'static str,
    },
    /// The caller believes in another coin than there is (safety 18).
    #[error("input {input}: {why}")]
    PrevoutMismatch {
        /// Which input.
        input: usize,
        /// The coin that it spends.
        outpoint: OutPoint,
        /// What differs.
        why: String,
    },
    /// A script or key that does not belong to the coin.
    #[error("input {input}: {why}")]
    ScriptMismatch {
        /// Which input.
        input: usize,
        /// What does not belong.
        why: &'static str,
    },
    /// Not a native segwit coin.
    #[error("input {input}: is {kind}; only native segwit and taproot are signed, so that nobody can change the txid")]
    LegacyInput {
        /// Which input.
        input: usize,
        /// Kind of its script.
        kind: &'static str,
    },
    /// Data for spending by a script, which no wallet here allows (safety 20).
    #[error("input {input}: holds {field}, and coins of this service are spent by key alone")]
    ScriptPath {
        /// Which input.
        input: usize,
        /// Which field.
        field: &'static str,
    },
    /// Not a coin that we know.
    #[error("input {input}: {outpoint} is not a coin of the wallet")]
    UnknownCoin {
        /// Which input.
        input: usize,
        /// The coin.
        outpoint: OutPoint,
    },
}

impl PsbtFault {
    /// Where the fault is; `None` for the PSBT as a whole.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::OtherVersionField { place, .. }
            | Self::Truncated { place }
            | Self::DuplicateKey { place, .. }
            | Self::Malformed { place, .. } => Some(*place),
            Self::NotUnsigned { input }
            | Self::DuplicateInput { input, .. }
            | Self::SighashNotAllowed { input, .. }
            | Self::AlreadySigned { input, .. }
            | Self::PrevoutMismatch { input, .. }
            | Self::ScriptMismatch { input, .. }
            | Self::LegacyInput { input, .. }
            | Self::ScriptPath { input, .. }
            | Self::UnknownCoin { input, .. } => Some(Place::Input(*input)),
            Self::OutputInvalid { output, .. } => Some(Place::Output(*output)),
            Self::TooLarge { .. }
            | Self::NotPsbt { .. }
            | Self::UnsupportedVersion { .. }
            | Self::TrailingBytes { .. }
            | Self::TooManyFields { .. }
            | Self::NoUnsignedTransaction
            | Self::Count { .. } => None,
        }
    }

    /// The coin that the fault is about, where it is about one by name.
    pub fn outpoint(&self) -> Option<OutPoint> {
        match self {
            Self::DuplicateInput { outpoint, .. }
            | Self::SighashNotAllowed { outpoint, .. }
            | Self::PrevoutMismatch { outpoint, .. }
            | Self::UnknownCoin { outpoint, .. } => Some(*outpoint),
            _ => None,
        }
    }
}

/// One fault or more, in the order of inputs and outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PsbtFaults {
    first: PsbtFault,
    more: Vec<PsbtFault>,
}

impl PsbtFaults {
    /// `None` of an empty list. Keeps at most [`MAX_NAMED_FAULTS`].
    pub(super) fn from_list(list: Vec<PsbtFault>) -> Option<Self> {
        let mut list = list.into_iter().take(MAX_NAMED_FAULTS);
        let first = list.next()?;
        Some(Self { first, more: list.collect() })
    }

    /// The first fault, which decides the code of the answer.
    pub fn first(&self) -> &PsbtFault {
        &self.first
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &PsbtFault> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

impl From<PsbtFault> for PsbtFaults {
    fn from(first: PsbtFault) -> Self {
        Self { first, more: Vec::new() }
    }
}

impl fmt::Display for PsbtFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.more.iter().try_for_each(|fault| write!(f, "; {fault}"))
    }
}

impl std::error::Error for PsbtFaults {}
