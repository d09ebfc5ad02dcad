//! Intake of a caller's PSBT (BIP-174, version 0).
//!
//! A caller that builds its own transaction sends a PSBT. Only the unsigned transaction in it is used: what is signed
//! is built again from our own view of the chain (safety 18). Everything else in the PSBT is what the caller believes,
//! and a belief that is wrong, or asks for what this service never does, is refused rather than ignored: a caller that
//! sees other coins than we do must not be paid for with ours.
//!
//! ```text
//! bytes ── layout ──▶ maps ── form ──▶ unsigned transaction ── claims ──▶ PsbtProposal ── check_claims(our view)
//! ```
//!
//! Ignored, as BIP-174 has it for fields that a role does not need: unknown and proprietary fields, extended public
//! keys, key origins, and everything about outputs but the outputs themselves. None of them changes what is signed.

mod claims;
mod fault;
mod form;
mod layout;

use bitcoin::base64::Engine;
use bitcoin::base64::prelude::BASE64_STANDARD;
use bitcoin::psbt::Psbt;
use bitcoin::{OutPoint, Transaction, TxOut, XOnlyPublicKey};
use onespend_core::limits::{MAX_OUTPOINTS, MAX_RECIPIENTS};

use self::layout::Reader;

pub use claims::check_claims;
pub use fault::{MAX_NAMED_FAULTS, Place, PsbtFault, PsbtFaults};
pub use layout::MAX_FIELDS;

/// How large a PSBT may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PsbtLimits {
    /// Most bytes of its binary form.
    pub max_bytes: usize,
    /// Most inputs.
    pub max_inputs: usize,
    /// Most outputs.
    pub max_outputs: usize,
}

impl Default for PsbtLimits {
    /// 1 MiB; as many inputs and recipients as a payment may have, and change.
    fn default() -> Self {
        Self { max_bytes: 1024 * 1024, max_inputs: MAX_OUTPOINTS, max_outputs: MAX_RECIPIENTS + 1 }
    }
}

/// What a caller proposes to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PsbtProposal {
    /// The unsigned transaction.
    pub transaction: Transaction,
    /// What the caller believes of each input, in their order. Compare with our own view by [`check_claims`].
    pub claims: Vec<InputClaim>,
}

/// What a caller believes of one input. Every field may be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputClaim {
    /// The coin, as the unsigned transaction names it.
    pub outpoint: OutPoint,
    /// Its value and script, from `witness_utxo` or `non_witness_utxo`; the two agree where both are there.
    pub txout: Option<TxOut>,
    /// Whether SIGHASH_DEFAULT was asked for, which only taproot has. SIGHASH_ALL is what else may be asked for.
    pub sighash_default: bool,
    /// The script behind a P2WSH program.
    pub witness_script: Option<bitcoin::ScriptBuf>,
    /// The taproot internal key.
    pub tap_internal_key: Option<XOnlyPublicKey>,
}

/// Reads a PSBT, raw or in base64, and refuses what this service does not sign.
///
/// # Errors
/// [`PsbtFaults`] names every fault where the PSBT can be read at all, else the first.
pub fn intake(bytes: &[u8], limits: &PsbtLimits) -> Result<PsbtProposal, PsbtFaults> {
    let bytes = decode(bytes, limits)?;
    let mut reader = Reader::new(&bytes)?;
    let global = reader.next_map(Place::Global)?;
    form::check_version(&global)?;
    let transaction = form::unsigned_transaction(&global)?;
    form::check_counts(&transaction, limits)?;
    form::check_unsigned(&transaction)?;
    let maps = form::read_maps(&mut reader, global, &transaction)?;
    let psbt = Psbt::deserialize(&bytes).map_err(|error| form::locate(&maps, &transaction, &error))?;
    let mut faults = form::transaction_faults(&transaction);
    let claims = claims::read(&psbt, &mut faults);
    PsbtFaults::from_list(faults).map_or(Ok(PsbtProposal { transaction, claims }), Err)
}

/// The binary form.
fn decode(bytes: &[u8], limits: &PsbtLimits) -> Result<Vec<u8>, PsbtFault> {
    let max = limits.max_bytes;
    if bytes.starts_with(layout::MAGIC) {
        let fits = bytes.len() <= max;
        return if fits { Ok(bytes.to_vec()) } else { Err(PsbtFault::TooLarge { bytes: bytes.len(), max }) };
    }
    let text = bytes.trim_ascii();
    // Base64 makes four characters of three bytes.
    let decoded_len = text.len() / 4 * 3;
    if decoded_len > max.saturating_add(2) {
        return Err(PsbtFault::TooLarge { bytes: decoded_len, max });
    }
    let not = |why: &str| PsbtFault::NotPsbt { why: why.to_owned() };
    if text.starts_with(b"70736274ff") {
        return Err(not("it is in hexadecimal; send the bytes, or base64"));
    }
    let decoded =
        BASE64_STANDARD.decode(text).map_err(|_| not("it neither starts with the bytes `psbt` 0xff nor is base64"))?;
    if decoded.len() > max {
        return Err(PsbtFault::TooLarge { bytes: decoded.len(), max });
    }
    if !decoded.starts_with(layout::MAGIC) {
        return Err(not("it does not start with the bytes `psbt` 0xff"));
    }
    Ok(decoded)
}
