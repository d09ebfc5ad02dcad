//! From signatures to a transaction that the network will accept: nothing leaves here that was not verified against
//! our own view, whoever made the signature.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::constants::SCHNORR_SIGNATURE_SIZE;
use bitcoin::secp256k1::{All, Secp256k1, XOnlyPublicKey};
use bitcoin::sighash::{EcdsaSighashType, TapSighashType};
use bitcoin::{Psbt, PublicKey, Transaction, TxOut, Txid, Witness, ecdsa, taproot};
use miniscript::psbt::PsbtExt;
use onespend_core::signing::SigningPermit;

use super::SignerError;
use super::audit::AuditLog;
use super::draft::{Draft, Scheme, message, sighashes, taproot_all};

/// Finalizes the draft's PSBT, writes the line of what was signed into the signer's log, and checks every witness.
/// Every signer ends here, so none can forget its log. The line holds the signed transaction and is on the disk before
/// anybody sees a signature. A signature that turns out to be bad has its line too: it was made.
///
/// # Errors
/// [`SignerError::Audit`]: the log did not take the line. [`SignerError::BadSignature`] names the first input whose
/// signature is missing, not valid, of another sighash type, or malleable.
pub fn seal(
    secp: &Secp256k1<All>,
    permit: &SigningPermit,
    draft: Draft,
    log: Option<&AuditLog>,
) -> Result<Transaction, SignerError> {
    finish(secp, draft, |sighashes, signed| log.map_or(Ok(()), |log| log.append(permit, sighashes, signed)))
}

/// `note` is told what was signed, whether it turns out to be good or not; its refusal ends all.
fn finish(
    secp: &Secp256k1<All>,
    draft: Draft,
    note: impl FnOnce(&[[u8; 32]], Option<&Transaction>) -> Result<(), SignerError>,
) -> Result<Transaction, SignerError> {
    let Draft { psbt, prevouts, scheme, sighashes } = draft;
    let txid = psbt.unsigned_tx.compute_txid();
    let finalized = finalize(secp, psbt);
    note(&sighashes, finalized.as_ref().ok())?;
    let transaction = finalized?;
    verify(secp, &transaction, txid, &prevouts, scheme)?;
    Ok(transaction)
}

fn finalize(secp: &Secp256k1<All>, mut psbt: Psbt) -> Result<Transaction, SignerError> {
    psbt.finalize_mut(secp).map_err(|errors| {
        let unsigned = psbt.inputs.iter().position(|input| input.final_script_witness.is_none());
        let why = errors.first().map_or_else(|| "cannot be finalized".to_owned(), ToString::to_string);
        SignerError::BadSignature { input: unsigned.unwrap_or(0), why }
    })?;
    // The fee was capped by the wallet's limits when the intent was granted.
    Ok(psbt.extract_tx_unchecked_fee_rate())
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
            Scheme::Schnorr => {
                let all = || taproot_all(transaction, at, prevouts);
                check_schnorr(secp, &input.witness, spent, *sighash, all)
            }
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

/// BIP-341: the witness is one signature, with no annex: of 64 bytes, which means SIGHASH_DEFAULT, or with one more that
/// says SIGHASH_ALL, whose digest is another one.
fn check_schnorr(
    secp: &Secp256k1<All>,
    witness: &Witness,
    spent: &TxOut,
    default: [u8; 32],
    all: impl FnOnce() -> Option<[u8; 32]>,
) -> Result<(), &'static str> {
    let items: Vec<&[u8]> = witness.iter().collect();
    let [signature] = items[..] else { return Err("the witness must be one signature, with no annex") };
    let with_type = signature.len() > SCHNORR_SIGNATURE_SIZE;
    let signature = taproot::Signature::from_slice(signature).map_err(|_| "not a Schnorr signature")?;
    let sighash = match signature.sighash_type {
        // The crate reads a byte 0 as DEFAULT; consensus does not.
        TapSighashType::Default if with_type => return Err("DEFAULT has no byte of its own"),
        TapSighashType::Default => default,
        TapSighashType::All => all().ok_or("the coins do not fit the inputs")?,
        _ => return Err("the sighash type is neither DEFAULT nor ALL"),
    };
    // OP_1 and a push of 32 bytes: the rest is the output key.
    let program = spent.script_pubkey.as_bytes().get(2..).filter(|_| spent.script_pubkey.is_p2tr());
    let key = program.and_then(|bytes| XOnlyPublicKey::from_slice(bytes).ok()).ok_or("the coin is not taproot")?;
    secp.verify_schnorr(&signature.signature, &message(&sighash), &key).map_err(|_| "does not verify")
}

/// One digest for the whole attempt: SHA-256 over its sighashes in the order of the inputs.
pub(super) fn attempt_digest(sighashes: &[[u8; 32]]) -> [u8; 32] {
    bitcoin::hashes::sha256::Hash::hash(&sighashes.concat()).to_byte_array()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use bitcoin::secp256k1::ecdsa::Signature;

    use super::*;
    use crate::signer::specimen::{Specimen, secret, specimen, tweaked};

    fn draft(kind: &str) -> Draft {
        let Specimen { descriptor, transaction, inputs, change } = specimen(kind);
        Draft::from_parts(&descriptor, &transaction, &inputs, change.as_ref()).unwrap()
    }

    #[allow(clippy::unnecessary_wraps)] // Stands for a log.
    fn unlogged(_: &[[u8; 32]], _: Option<&Transaction>) -> Result<(), SignerError> {
        Ok(())
    }

    /// Signs input `at` with the key of coin `key`.
    fn sign(secp: &Secp256k1<All>, draft: &mut Draft, at: usize, key: u32) {
        let digest = message(&draft.sighashes[at]);
        let field = &mut draft.psbt.inputs[at];
        match draft.scheme {
            Scheme::Ecdsa => {
                let secret = secret(secp, key);
                let signature = ecdsa::Signature::sighash_all(secp.sign_ecdsa(&digest, &secret));
                field.partial_sigs.insert(PublicKey::new(secret.public_key(secp)), signature);
            }
            Scheme::Schnorr => {
                let signature = secp.sign_schnorr_no_aux_rand(&digest, &tweaked(secp, key));
                field.tap_key_sig = Some(taproot::Signature { signature, sighash_type: TapSighashType::Default });
            }
        }
    }

    fn sealed(kind: &str) -> (Transaction, Txid, Vec<TxOut>, Scheme) {
        let secp = Secp256k1::new();
        let mut draft = draft(kind);
        (0..2).for_each(|at| sign(&secp, &mut draft, at as usize, at));
        let (txid, prevouts, scheme) = (draft.psbt.unsigned_tx.compute_txid(), draft.prevouts.clone(), draft.scheme);
        (finish(&secp, draft, unlogged).unwrap(), txid, prevouts, scheme)
    }

    /// What `verify` says to a signed transaction after its second witness was spoilt.
    fn verdict(kind: &str, spoil: impl FnOnce(Vec<Vec<u8>>) -> Vec<Vec<u8>>) -> String {
        let (mut transaction, txid, prevouts, scheme) = sealed(kind);
        let secp = Secp256k1::new();
        verify(&secp, &transaction, txid, &prevouts, scheme).expect("valid before it is spoilt");
        transaction.input[1].witness = Witness::from_slice(&spoil(transaction.input[1].witness.to_vec()));
        let error = verify(&secp, &transaction, txid, &prevouts, scheme).unwrap_err();
        assert!(matches!(error, SignerError::BadSignature { input: 1, .. }), "{error:?}");
        error.to_string()
    }

    #[test]
    fn refuses_a_missing_signature() {
        let secp = Secp256k1::new();
        for kind in ["wpkh", "tr"] {
            let mut draft = draft(kind);
            sign(&secp, &mut draft, 0, 0);
            let error = finish(&secp, draft, unlogged).unwrap_err();
            assert!(matches!(error, SignerError::BadSignature { input: 1, .. }), "{error:?}");
        }
    }

    #[test]
    fn what_was_signed_is_noted_before_it_is_judged() {
        let secp = Secp256k1::new();
        for kind in ["wpkh", "tr"] {
            let mut draft = draft(kind);
            sign(&secp, &mut draft, 0, 0);
            let half = draft.clone();
            sign(&secp, &mut draft, 1, 1);
            let mut spoilt = draft.clone();
            spoilt.prevouts[1].value += bitcoin::Amount::ONE_SAT;
            for (draft, is_whole, is_good) in [(draft, true, true), (spoilt, true, false), (half, false, false)] {
                let (expected, mut noted) = (draft.clone(), None);
                let signed = finish(&secp, draft, |sighashes, signed| {
                    assert_eq!(sighashes, expected.sighashes);
                    noted = Some(signed.cloned());
                    Ok(())
                });
                let noted = noted.expect("it is told in any case");
                assert_eq!((noted.is_some(), signed.is_ok()), (is_whole, is_good), "{kind}: {signed:?}");
                assert!(signed.is_err() || signed.ok() == noted, "{kind}: what is noted is what is given out");
            }
        }
    }

    #[test]
    fn nothing_is_given_out_that_could_not_be_noted() {
        let secp = Secp256k1::new();
        let mut draft = draft("tr");
        (0..2).for_each(|at| sign(&secp, &mut draft, at as usize, at));
        let full = SignerError::Audit { path: "log".into(), why: "no space left".to_owned() };
        assert_eq!(finish(&secp, draft, |_, _| Err(full.clone())), Err(full));
    }

    #[test]
    fn refuses_the_signature_of_another_key() {
        let secp = Secp256k1::new();
        for kind in ["wpkh", "tr"] {
            let mut draft = draft(kind);
            sign(&secp, &mut draft, 0, 0);
            sign(&secp, &mut draft, 1, 0);
            assert!(matches!(finish(&secp, draft, unlogged), Err(SignerError::BadSignature { .. })));
        }
    }

    #[test]
    fn refuses_a_signature_of_something_else() {
        let secp = Secp256k1::new();
        for kind in ["wpkh", "tr"] {
            let mut draft = draft(kind);
            draft.sighashes.swap(0, 1);
            sign(&secp, &mut draft, 0, 0);
            sign(&secp, &mut draft, 1, 1);
            assert!(matches!(finish(&secp, draft, unlogged), Err(SignerError::BadSignature { .. })));
        }
    }

    #[test]
    fn refuses_high_s_although_consensus_would_take_it() {
        let verdict = verdict("wpkh", |mut items| {
            let compact = ecdsa::Signature::from_slice(&items[0]).unwrap().signature.serialize_compact();
            // s becomes n - s.
            let s = bitcoin::secp256k1::SecretKey::from_slice(&compact[32..]).unwrap().negate();
            let high = Signature::from_compact(&[&compact[..32], &s.secret_bytes()[..]].concat()).unwrap();
            items[0] = [&high.serialize_der()[..], &[1]].concat();
            items
        });
        assert!(verdict.contains("S is high"), "{verdict}");
    }

    /// safety 20.
    #[test]
    fn refuses_other_sighash_types() {
        for byte in [2, 3, 0x81, 0x82, 0x83] {
            let ecdsa = verdict("wpkh", |mut items| {
                *items[0].last_mut().unwrap() = byte;
                items
            });
            assert!(ecdsa.contains("not ALL"), "{ecdsa}");
        }
        // One byte more says the type.
        for (byte, why) in [
            (0, "DEFAULT has no byte"),
            (1, "does not verify"),
            (2, "neither DEFAULT nor ALL"),
            (3, "neither DEFAULT nor ALL"),
            (0x81, "neither DEFAULT nor ALL"),
        ] {
            let schnorr = verdict("tr", |mut items| {
                items[0].push(byte);
                items
            });
            assert!(schnorr.contains(why), "{byte}: {schnorr}");
        }
    }

    /// safety 20: signers outside may say ALL, which commits to the same.
    #[test]
    fn takes_a_taproot_signature_that_says_all() {
        let (mut transaction, txid, prevouts, scheme) = sealed("tr");
        let secp = Secp256k1::new();
        let digest = taproot_all(&transaction, 1, &prevouts).unwrap();
        let signature = secp.sign_schnorr_no_aux_rand(&message(&digest), &tweaked(&secp, 1));
        let signature = taproot::Signature { signature, sighash_type: TapSighashType::All };
        transaction.input[1].witness = Witness::from_slice(&[signature.to_vec()]);
        verify(&secp, &transaction, txid, &prevouts, scheme).unwrap();
    }

    /// safety 20: no annex, no script path.
    #[test]
    fn refuses_more_or_less_in_a_witness_than_belongs_there() {
        let annex = verdict("tr", |items| [items, vec![vec![0x50, 1]]].concat());
        assert!(annex.contains("annex"), "{annex}");
        let more = verdict("wpkh", |items| [items, vec![vec![1]]].concat());
        assert!(more.contains("a signature and a key"), "{more}");
        for kind in ["wpkh", "tr"] {
            verdict(kind, |_| Vec::new());
            verdict(kind, |items| items.into_iter().map(|item| item[1..].to_vec()).collect());
        }
    }

    #[test]
    fn refuses_a_changed_transaction() {
        let secp = Secp256k1::new();
        for kind in ["wpkh", "tr"] {
            let (transaction, txid, prevouts, scheme) = sealed(kind);
            let mut changed = transaction.clone();
            changed.output[0].value += bitcoin::Amount::ONE_SAT;
            let error = verify(&secp, &changed, txid, &prevouts, scheme).unwrap_err().to_string();
            assert!(error.contains("txid changed"), "{error}");
            let mut other = prevouts.clone();
            other[0].value += bitcoin::Amount::ONE_SAT;
            assert!(verify(&secp, &transaction, txid, &other, scheme).is_err(), "another amount");
            assert!(verify(&secp, &transaction, txid, &prevouts[..1], scheme).is_err(), "a coin too few");
        }
    }
}
