//! Wallets that are signed for outside this service: the permit as a PSBT, and the check of what comes back.
//!
//! Whoever signs there is not trusted more than a signer here: the values, scripts and key origins of the PSBT are our
//! own, and every signature is checked against our own view before it is recorded (safety 13, 18, 20).

use std::sync::OnceLock;

use bitcoin::psbt::{Psbt, PsbtSighashType};
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, TapSighashType};
use bitcoin::{Transaction, TxOut, Txid, ecdsa};
use miniscript::Interpreter;
use miniscript::descriptor::DescriptorType;
use miniscript::interpreter::{KeySigPair, SatisfiedConstraint};
use onespend_core::signing::SigningPermit;
use onespend_core::wallet::{Keychain, WalletDescriptor};

use super::SignerError;
use super::draft::{Refusal, Scheme, unsigned};
use super::seal;

/// How the coins of a wallet are signed for.
enum Kind {
    /// One key.
    Single(Scheme),
    /// `wsh(sortedmulti)`.
    Multisig,
}

/// The permit as a BIP-174 PSBT without signatures, for the signer outside.
///
/// # Errors
/// [`SignerError::Refused`] names the rule that the permit breaks.
pub fn permit_psbt(permit: &SigningPermit) -> Result<Psbt, SignerError> {
    let refused = |rule| SignerError::Refused { rule };
    let sighash = match kind(permit.descriptor()).map_err(refused)? {
        Kind::Single(Scheme::Ecdsa) | Kind::Multisig => PsbtSighashType::from(EcdsaSighashType::All),
        Kind::Single(Scheme::Schnorr) => PsbtSighashType::from(TapSighashType::Default),
    };
    unsigned(permit.descriptor(), permit.transaction(), permit.inputs(), permit.change(), sighash).map_err(refused)
}

/// Checks a transaction that was signed outside: it is the one of this txid, and each input has exactly the witness of
/// the wallet's kind, with true signatures over everything.
///
/// # Errors
/// [`SignerError::BadSignature`] names the first input that is wrong, [`SignerError::Refused`] a wallet that nobody signs
/// for.
pub fn check_signed(
    descriptor: &WalletDescriptor,
    transaction: &Transaction,
    txid: Txid,
    prevouts: &[TxOut],
) -> Result<(), SignerError> {
    match kind(descriptor).map_err(|rule| SignerError::Refused { rule })? {
        Kind::Single(scheme) => seal::verify(secp(), transaction, txid, prevouts, scheme),
        Kind::Multisig => check_multisig(transaction, txid, prevouts),
    }
}

fn kind(descriptor: &WalletDescriptor) -> Result<Kind, Refusal> {
    match descriptor.chain(Keychain::External).map(miniscript::Descriptor::desc_type) {
        Some(DescriptorType::Wpkh) => Ok(Kind::Single(Scheme::Ecdsa)),
        Some(DescriptorType::Tr) => Ok(Kind::Single(Scheme::Schnorr)),
        Some(DescriptorType::WshSortedMulti) => Ok(Kind::Multisig),
        Some(_) | None => Err(Refusal::DescriptorKind),
    }
}

fn secp() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::new)
}

fn check_multisig(transaction: &Transaction, txid: Txid, prevouts: &[TxOut]) -> Result<(), SignerError> {
    let bad = |input, why: String| SignerError::BadSignature { input, why };
    if transaction.compute_txid() != txid {
        return Err(bad(0, "the txid changed".to_owned()));
    }
    if transaction.input.len() != prevouts.len() {
        return Err(bad(0, "the coins do not fit the inputs".to_owned()));
    }
    let all = Prevouts::All(prevouts);
    for at in 0..prevouts.len() {
        check_multisig_input(transaction, at, prevouts, &all).map_err(|why| bad(at, why))?;
    }
    Ok(())
}

/// The script hashes to the coin's program, as many keys as it asks for have signed, and each signature is over all
/// inputs and outputs, with a low S (BIP-146).
fn check_multisig_input(
    transaction: &Transaction,
    at: usize,
    prevouts: &[TxOut],
    all: &Prevouts<'_, TxOut>,
) -> Result<(), String> {
    let (Some(input), Some(spent)) = (transaction.input.get(at), prevouts.get(at)) else {
        return Err("the coins do not fit the inputs".to_owned());
    };
    if !input.script_sig.is_empty() {
        return Err("a segwit input has an empty scriptSig".to_owned());
    }
    let told = |error: miniscript::interpreter::Error| error.to_string();
    let interpreter = Interpreter::from_txdata(
        &spent.script_pubkey,
        &input.script_sig,
        &input.witness,
        input.sequence,
        transaction.lock_time,
    )
    .map_err(told)?;
    let mut signed = false;
    for constraint in interpreter.iter(secp(), transaction, at, all) {
        match constraint.map_err(told)? {
            SatisfiedConstraint::PublicKey { key_sig: KeySigPair::Ecdsa(_, signature) } => check_form(&signature)?,
            _ => return Err("the witness holds something else than signatures of the script's keys".to_owned()),
        }
        signed = true;
    }
    if signed { Ok(()) } else { Err("there is no signature".to_owned()) }
}

fn check_form(signature: &ecdsa::Signature) -> Result<(), String> {
    if signature.sighash_type != EcdsaSighashType::All {
        return Err("the sighash type is not ALL".to_owned());
    }
    let mut low = signature.signature;
    low.normalize_s();
    if low == signature.signature { Ok(()) } else { Err("S is high: nodes would not relay it".to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use bitcoin::Network;
    use bitcoin::bip32::{Xpriv, Xpub};
    use bitcoin::sighash::EcdsaSighashType;
    use miniscript::psbt::PsbtExt;

    use super::*;
    use crate::signer::specimen::{Specimen, descriptor_specimen};

    fn master(seed: u8) -> Xpriv {
        Xpriv::new_master(Network::Regtest, &[seed; 32]).unwrap()
    }

    /// A wallet of two keys of three.
    fn multisig() -> Specimen {
        let keys: Vec<String> =
            (1..=3).map(|seed| format!("{}/<0;1>/*", Xpub::from_priv(secp(), &master(seed)))).collect();
        descriptor_specimen(&format!("wsh(sortedmulti(2,{}))", keys.join(",")))
    }

    fn psbt(specimen: &Specimen) -> Psbt {
        let Specimen { descriptor, transaction, inputs, change } = specimen;
        unsigned(descriptor, transaction, inputs, change.as_ref(), EcdsaSighashType::All.into()).unwrap()
    }

    /// Signed by the masters of these seeds.
    fn signed(specimen: &Specimen, seeds: &[u8]) -> Transaction {
        let mut psbt = psbt(specimen);
        for seed in seeds {
            psbt.sign(&master(*seed), secp()).unwrap();
        }
        psbt.finalize_mut(secp()).unwrap();
        psbt.extract_tx_unchecked_fee_rate()
    }

    fn verdict(specimen: &Specimen, transaction: &Transaction) -> Result<(), SignerError> {
        let prevouts: Vec<TxOut> = specimen.inputs.iter().map(|input| input.txout.clone()).collect();
        check_signed(&specimen.descriptor, transaction, specimen.transaction.compute_txid(), &prevouts)
    }

    #[test]
    fn the_psbt_of_a_multisig_wallet_tells_its_signers_everything() {
        let specimen = multisig();
        let psbt = psbt(&specimen);
        for (field, input) in psbt.inputs.iter().zip(&specimen.inputs) {
            assert_eq!(field.witness_utxo.as_ref(), Some(&input.txout));
            let script = field.witness_script.as_ref().expect("the script that the coin's program commits to");
            assert_eq!(input.txout.script_pubkey, script.to_p2wsh());
            assert_eq!(field.bip32_derivation.len(), 3);
        }
        let change = &psbt.outputs[specimen.change.as_ref().unwrap().vout as usize];
        assert_eq!(change.bip32_derivation.len(), 3, "signers recognise the change");
    }

    #[test]
    fn takes_any_quorum_of_the_signers() {
        let specimen = multisig();
        for seeds in [[1, 2], [1, 3], [2, 3]] {
            verdict(&specimen, &signed(&specimen, &seeds)).unwrap();
        }
    }

    /// safety 20, for signers outside.
    #[test]
    fn refuses_signatures_that_are_not_over_everything_or_not_true() {
        let specimen = multisig();
        let good = signed(&specimen, &[1, 2]);
        let spoilt = |spoil: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut transaction = good.clone();
            let mut items = transaction.input[1].witness.to_vec();
            spoil(&mut items);
            transaction.input[1].witness = bitcoin::Witness::from_slice(&items);
            verdict(&specimen, &transaction).expect_err("spoilt")
        };
        let other_sighash = spoilt(&|items| *items[1].last_mut().unwrap() = 2);
        let swapped = spoilt(&|items| items.swap(1, 2));
        let one_short = spoilt(&|items| drop(items.remove(1)));
        let one_more = spoilt(&|items| items.insert(1, items[1].clone()));
        let no_script = spoilt(&|items| drop(items.pop()));
        for error in [other_sighash, swapped, one_short, one_more, no_script] {
            assert!(matches!(error, SignerError::BadSignature { input: 1, .. }), "{error:?}");
        }
    }

    /// safety 14, 18: the permitted bytes, over the amounts of our own view.
    #[test]
    fn refuses_another_transaction_and_other_coins() {
        let specimen = multisig();
        let mut changed = signed(&specimen, &[1, 2]);
        changed.output[0].value += bitcoin::Amount::ONE_SAT;
        assert!(verdict(&specimen, &changed).unwrap_err().to_string().contains("txid changed"));
        let mut poorer = specimen.clone();
        poorer.inputs[0].txout.value += bitcoin::Amount::ONE_SAT;
        assert!(verdict(&poorer, &signed(&specimen, &[1, 2])).is_err(), "another amount");
    }
}
