//! From signatures to a transaction that the network will accept: nothing leaves here that was not verified against
//! our own view, whoever made the signature.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, Secp256k1, XOnlyPublicKey};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{PublicKey, Transaction, TxOut, Txid, Witness, ecdsa};
use miniscript::psbt::PsbtExt;

use super::SignerError;
use super::draft::{Draft, Scheme, message, sighashes};

/// Bytes of a Schnorr signature with SIGHASH_DEFAULT (BIP-341); others carry one more.
const SCHNORR_DEFAULT_BYTES: usize = 64;

/// Finalizes the draft's PSBT and checks every witness.
///
/// # Errors
/// [`SignerError::BadSignature`] names the first input whose signature is missing, not valid, of another sighash
/// type, or malleable.
pub fn seal(secp: &Secp256k1<All>, draft: Draft) -> Result<Transaction, SignerError> {
    let Draft { mut psbt, prevouts, scheme, .. } = draft;
    let txid = psbt.unsigned_tx.compute_txid();
    psbt.finalize_mut(secp).map_err(|errors| {
        let unsigned = psbt.inputs.iter().position(|input| input.final_script_witness.is_none());
        let why = errors.first().map_or_else(|| "cannot be finalized".to_owned(), ToString::to_string);
        SignerError::BadSignature { input: unsigned.unwrap_or(0), why }
    })?;
    // The fee was capped by the wallet's limits when the intent was granted.
    let transaction = psbt.extract_tx_unchecked_fee_rate();
    verify(secp, &transaction, txid, &prevouts, scheme)?;
    Ok(transaction)
}

/// Checks a signed transaction against the coins that it spends: the txid, and that each input has exactly the
/// witness of its kind, with a valid signature over everything.
///
/// # Errors
/// [`SignerError::BadSignature`] names the first input that is wrong.
pub fn verify(
    secp: &Secp256k1<All>,
    transaction: &Transaction,
    txid: Txid,
    prevouts: &[TxOut],
    scheme: Scheme,
) -> Result<(), SignerError> {
    let bad = |input, why: &str| SignerError::BadSignature { input, why: why.to_owned() };
    if transaction.compute_txid() != txid {
        return Err(bad(0, "the txid changed"));
    }
    let digests = sighashes(transaction, prevouts, scheme).ok_or_else(|| bad(0, "the coins do not fit the inputs"))?;
    for (at, ((input, spent), sighash)) in transaction.input.iter().zip(prevouts).zip(&digests).enumerate() {
        if !input.script_sig.is_empty() {
            return Err(bad(at, "a segwit input has an empty scriptSig"));
        }
        let checked = match scheme {
            Scheme::Ecdsa => check_ecdsa(secp, &input.witness, spent, sighash),
            Scheme::Schnorr => check_schnorr(secp, &input.witness, spent, sighash),
        };
        checked.map_err(|why| bad(at, why))?;
    }
    Ok(())
}

/// BIP-141 and BIP-143: the witness is signature and key, the key hashes to the program, S is low (BIP-146).
fn check_ecdsa(
    secp: &Secp256k1<All>,
    witness: &Witness,
    spent: &TxOut,
    sighash: &[u8; 32],
) -> Result<(), &'static str> {
    let items: Vec<&[u8]> = witness.iter().collect();
    let [signature, key] = items[..] else { return Err("the witness must be a signature and a key") };
    let key = PublicKey::from_slice(key).map_err(|_| "not a public key")?;
    let hash = key.wpubkey_hash().map_err(|_| "the key must be compressed")?;
    if spent.script_pubkey != bitcoin::ScriptBuf::new_p2wpkh(&hash) {
        return Err("the key is not the coin's");
    }
    let signature = ecdsa::Signature::from_slice(signature).map_err(|_| "not a DER signature")?;
    if signature.sighash_type != EcdsaSighashType::All {
        return Err("the sighash type is not ALL");
    }
    let mut low = signature.signature;
    low.normalize_s();
    if low != signature.signature {
        return Err("S is high: nodes would not relay it");
    }
    secp.verify_ecdsa(&message(sighash), &signature.signature, &key.inner).map_err(|_| "does not verify")
}

/// BIP-341: the witness is one signature of 64 bytes, which means SIGHASH_DEFAULT, with no annex.
fn check_schnorr(
    secp: &Secp256k1<All>,
    witness: &Witness,
    spent: &TxOut,
    sighash: &[u8; 32],
) -> Result<(), &'static str> {
    let items: Vec<&[u8]> = witness.iter().collect();
    let [signature] = items[..] else { return Err("the witness must be one signature, with no annex") };
    if signature.len() != SCHNORR_DEFAULT_BYTES {
        return Err("the sighash type is not DEFAULT");
    }
    let signature =
        bitcoin::secp256k1::schnorr::Signature::from_slice(signature).map_err(|_| "not a Schnorr signature")?;
    // OP_1 and a push of 32 bytes: the rest is the output key.
    let program = spent.script_pubkey.as_bytes().get(2..).filter(|_| spent.script_pubkey.is_p2tr());
    let key = program.and_then(|bytes| XOnlyPublicKey::from_slice(bytes).ok()).ok_or("the coin is not taproot")?;
    secp.verify_schnorr(&signature, &message(sighash), &key).map_err(|_| "does not verify")
}

/// One digest for the whole attempt: SHA-256 over its sighashes in the order of the inputs.
pub(super) fn attempt_digest(sighashes: &[[u8; 32]]) -> [u8; 32] {
    bitcoin::hashes::sha256::Hash::hash(&sighashes.concat()).to_byte_array()
}
