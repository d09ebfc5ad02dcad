//! From a permit to a PSBT: everything that is signed comes from our own view, nothing from a caller (safety 18).
//!
//! `Psbt::sign` panics on truncated UTXO data, obeys any sighash type, and draws random nonces for Schnorr
//! signatures. So it is not used: the guards here come first, and signers sign the digests that are computed here.

use std::collections::BTreeSet;

use bitcoin::hashes::Hash;
use bitcoin::psbt::{Psbt, PsbtSighashType};
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{Amount, Transaction, TxOut};
use miniscript::descriptor::DescriptorType;
use miniscript::psbt::{PsbtInputExt, PsbtOutputExt};
use onespend_core::command::Change;
use onespend_core::limits::MAX_OUTPOINTS;
use onespend_core::signing::{PermittedInput, SigningPermit};
use onespend_core::wallet::WalletDescriptor;

use super::SignerError;

/// Which rule a permit broke. Permits come from the core, which checks the same; this is the second lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only wallets with a single key can be signed for here.
    #[error("only wpkh and tr with a key path alone can be signed here; wsh(sortedmulti) is signed for outside")]
    DescriptorKind,
    /// No inputs, or more than one transaction may have.
    #[error("there must be 1 to {MAX_OUTPOINTS} inputs")]
    InputCount,
    /// The coins are not the transaction's inputs, in their order (safety 19).
    #[error("the permitted coins are not the transaction's inputs")]
    InputsDiffer,
    /// The same coin twice (safety 19).
    #[error("input {input} spends a coin that another input spends")]
    DuplicateInput {
        /// Position of the second one, from 0.
        input: usize,
    },
    /// The unsigned transaction holds a signature (safety 20).
    #[error("input {input} of the unsigned transaction is not empty")]
    InputNotEmpty {
        /// Position, from 0.
        input: usize,
    },
    /// The coin's script is not the descriptor's at its chain and index.
    #[error("the script of input {input} is not the wallet's at its chain and index")]
    ForeignScript {
        /// Position, from 0.
        input: usize,
    },
    /// Values outside what can exist, or outputs above inputs.
    #[error("the amounts cannot be: inputs {input_sat} sat, outputs {output_sat} sat")]
    Amounts {
        /// Sum of the inputs in sat.
        input_sat: u64,
        /// Sum of the outputs in sat.
        output_sat: u64,
    },
    /// The change output does not go to the wallet (safety 21).
    #[error("change output {vout} does not go to the wallet's address at its chain and index")]
    ForeignChange {
        /// Which output.
        vout: u32,
    },
}

/// Which kind of signature all inputs take: a wallet has one descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// ECDSA with SIGHASH_ALL: wpkh (BIP-143).
    Ecdsa,
    /// Schnorr with SIGHASH_DEFAULT and the key tweaked without scripts: tr (BIP-341).
    Schnorr,
}

/// What is to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The PSBT (BIP-174, version 0) with values, scripts and key origins from our own view.
    pub psbt: Psbt,
    /// The coins that are spent, in the order of the inputs.
    pub prevouts: Vec<TxOut>,
    /// The kind of signature.
    pub scheme: Scheme,
    /// What each input's key signs, in the order of the inputs.
    pub sighashes: Vec<[u8; 32]>,
}

impl Draft {
    /// Checks the permit again and builds the PSBT from it.
    ///
    /// # Errors
    /// [`SignerError::Refused`] names the rule that is broken.
    pub fn new(permit: &SigningPermit) -> Result<Self, SignerError> {
        Self::from_parts(permit.descriptor(), permit.transaction(), permit.inputs(), permit.change())
            .map_err(|rule| SignerError::Refused { rule })
    }

    pub(super) fn from_parts(
        descriptor: &WalletDescriptor,
        transaction: &Transaction,
        inputs: &[PermittedInput],
        change: Option<&Change>,
    ) -> Result<Self, Refusal> {
        let scheme = scheme(descriptor)?;
        let sighash = match scheme {
            Scheme::Ecdsa => EcdsaSighashType::All.into(),
            Scheme::Schnorr => TapSighashType::Default.into(),
        };
        let psbt = unsigned(descriptor, transaction, inputs, change, sighash)?;
        let prevouts: Vec<TxOut> = inputs.iter().map(|input| input.txout.clone()).collect();
        let sighashes = sighashes(transaction, &prevouts, scheme).ok_or(Refusal::InputsDiffer)?;
        Ok(Self { psbt, prevouts, scheme, sighashes })
    }
}

/// Checks everything that does not depend on who signs, and builds the PSBT.
pub(super) fn unsigned(
    descriptor: &WalletDescriptor,
    transaction: &Transaction,
    inputs: &[PermittedInput],
    change: Option<&Change>,
    sighash: PsbtSighashType,
) -> Result<Psbt, Refusal> {
    check_inputs(transaction, inputs)?;
    check_scripts(descriptor, inputs)?;
    check_amounts(transaction, inputs)?;
    check_change(descriptor, transaction, change)?;
    let mut psbt = fill(descriptor, transaction, inputs, sighash)?;
    if let Some(change) = change {
        tell_change(&mut psbt, descriptor, change)?;
    }
    Ok(psbt)
}

fn scheme(descriptor: &WalletDescriptor) -> Result<Scheme, Refusal> {
    use onespend_core::wallet::Keychain::External;
    match descriptor.chain(External).map(miniscript::Descriptor::desc_type) {
        Some(DescriptorType::Wpkh) => Ok(Scheme::Ecdsa),
        Some(DescriptorType::Tr) => Ok(Scheme::Schnorr),
        Some(_) | None => Err(Refusal::DescriptorKind),
    }
}

fn check_inputs(transaction: &Transaction, inputs: &[PermittedInput]) -> Result<(), Refusal> {
    if inputs.is_empty() || inputs.len() > MAX_OUTPOINTS {
        return Err(Refusal::InputCount);
    }
    let same =
        transaction.input.iter().map(|input| input.previous_output).eq(inputs.iter().map(|input| input.outpoint));
    if !same {
        return Err(Refusal::InputsDiffer);
    }
    let mut seen = BTreeSet::new();
    for (position, input) in transaction.input.iter().enumerate() {
        if !seen.insert(input.previous_output) {
            return Err(Refusal::DuplicateInput { input: position });
        }
        if !input.script_sig.is_empty() || !input.witness.is_empty() {
            return Err(Refusal::InputNotEmpty { input: position });
        }
    }
    Ok(())
}

fn check_scripts(descriptor: &WalletDescriptor, inputs: &[PermittedInput]) -> Result<(), Refusal> {
    for (position, input) in inputs.iter().enumerate() {
        if descriptor.script(input.keychain, input.index).as_ref() != Some(&input.txout.script_pubkey) {
            return Err(Refusal::ForeignScript { input: position });
        }
    }
    Ok(())
}

fn check_amounts(transaction: &Transaction, inputs: &[PermittedInput]) -> Result<(), Refusal> {
    let sum = |values: &mut dyn Iterator<Item = Amount>| {
        values.fold(0_u64, |total, value| total.saturating_add(value.to_sat()))
    };
    let input_sat = sum(&mut inputs.iter().map(|input| input.txout.value));
    let output_sat = sum(&mut transaction.output.iter().map(|output| output.value));
    // Each part is at most its sum, so one bound serves both.
    if input_sat > Amount::MAX_MONEY.to_sat() || output_sat > input_sat {
        return Err(Refusal::Amounts { input_sat, output_sat });
    }
    Ok(())
}

fn check_change(
    descriptor: &WalletDescriptor,
    transaction: &Transaction,
    change: Option<&Change>,
) -> Result<(), Refusal> {
    let Some(change) = change else { return Ok(()) };
    let output = transaction.output.get(change.vout as usize).map(|output| &output.script_pubkey);
    if output.is_none() || output != descriptor.script(change.keychain, change.index).as_ref() {
        return Err(Refusal::ForeignChange { vout: change.vout });
    }
    Ok(())
}

/// The digests of BIP-143 (SIGHASH_ALL) or BIP-341 (SIGHASH_DEFAULT, key path, no annex). `None` where the prevouts
/// do not fit the transaction.
pub(super) fn sighashes(transaction: &Transaction, prevouts: &[TxOut], scheme: Scheme) -> Option<Vec<[u8; 32]>> {
    if transaction.input.len() != prevouts.len() {
        return None;
    }
    let mut cache = SighashCache::new(transaction);
    let all = Prevouts::All(prevouts);
    (0..).zip(prevouts).map(|(at, spent)| digest(&mut cache, at, spent, &all, scheme)).collect()
}

fn digest(
    cache: &mut SighashCache<&Transaction>,
    at: usize,
    spent: &TxOut,
    all: &Prevouts<'_, TxOut>,
    scheme: Scheme,
) -> Option<[u8; 32]> {
    match scheme {
        Scheme::Ecdsa => {
            let hash = cache.p2wpkh_signature_hash(at, &spent.script_pubkey, spent.value, EcdsaSighashType::All);
            Some(hash.ok()?.to_byte_array())
        }
        Scheme::Schnorr => {
            let hash = cache.taproot_key_spend_signature_hash(at, all, TapSighashType::Default);
            Some(hash.ok()?.to_byte_array())
        }
    }
}

/// The digest of BIP-341 for SIGHASH_ALL, which commits to the same as DEFAULT and is another digest.
pub(super) fn taproot_all(transaction: &Transaction, at: usize, prevouts: &[TxOut]) -> Option<[u8; 32]> {
    let mut cache = SighashCache::new(transaction);
    let hash = cache.taproot_key_spend_signature_hash(at, &Prevouts::All(prevouts), TapSighashType::All);
    Some(hash.ok()?.to_byte_array())
}

/// The digest in the form that libsecp256k1 takes.
pub(super) fn message(sighash: &[u8; 32]) -> Message {
    Message::from_digest(*sighash)
}

fn fill(
    descriptor: &WalletDescriptor,
    transaction: &Transaction,
    inputs: &[PermittedInput],
    sighash: PsbtSighashType,
) -> Result<Psbt, Refusal> {
    // Emptiness of the inputs, the only thing that this checks, was checked above.
    let mut psbt = Psbt::from_unsigned_tx(transaction.clone()).map_err(|_| Refusal::InputNotEmpty { input: 0 })?;
    for (position, (field, input)) in psbt.inputs.iter_mut().zip(inputs).enumerate() {
        let foreign = Refusal::ForeignScript { input: position };
        let definite = descriptor.definite(input.keychain, input.index).ok_or(foreign)?;
        field.witness_utxo = Some(input.txout.clone());
        field.sighash_type = Some(sighash);
        let derived = field.update_with_descriptor_unchecked(&definite).map_err(|_| foreign)?;
        if derived.script_pubkey() != input.txout.script_pubkey {
            return Err(foreign);
        }
    }
    Ok(psbt)
}

/// Tells signers which keys the change belongs to, so that they can show it as change.
fn tell_change(psbt: &mut Psbt, descriptor: &WalletDescriptor, change: &Change) -> Result<(), Refusal> {
    let foreign = Refusal::ForeignChange { vout: change.vout };
    let output = psbt.outputs.get_mut(change.vout as usize).ok_or(foreign)?;
    let definite = descriptor.definite(change.keychain, change.index).ok_or(foreign)?;
    output.update_with_descriptor_unchecked(&definite).map(drop).map_err(|_| foreign)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use bitcoin::{ScriptBuf, Witness};

    use super::*;
    use crate::signer::specimen::{Specimen, descriptor_specimen, specimen};

    const XPUBS: [&str; 2] = [
        "tpubD6NzVbkrYhZ4XHndKkuB8FifXm8r5FQHwrN6oZuWCz13qb93rtgKvD4PQsqC4HP4yhV3tA2fqr2RbY5mNXfM7RxXUoeABoDtsFUq2zJq6YK",
        "tpubD6NzVbkrYhZ4WaWSyoBvQwbpLkojyoTZPRsgXELWz3Popb3qkjcJyJUGLnL4qHHoQvao8ESaAstxYSnhyswJ76uZPStJRJCTKvosUCJZL5B",
    ];

    fn draft(specimen: &Specimen) -> Result<Draft, Refusal> {
        let Specimen { descriptor, transaction, inputs, change } = specimen;
        Draft::from_parts(descriptor, transaction, inputs, change.as_ref())
    }

    fn refusal(kind: &str, spoil: impl FnOnce(&mut Specimen)) -> Refusal {
        let mut specimen = specimen(kind);
        draft(&specimen).expect("the specimen is right before it is spoilt");
        spoil(&mut specimen);
        draft(&specimen).unwrap_err()
    }

    /// safety 18: values and scripts are the permit's.
    #[test]
    fn fills_the_psbt_from_the_permit() {
        for kind in ["wpkh", "tr"] {
            let specimen = specimen(kind);
            let draft = draft(&specimen).unwrap();
            assert_eq!(draft.psbt.unsigned_tx, specimen.transaction);
            assert_eq!(draft.sighashes.len(), 2);
            assert_ne!(draft.sighashes[0], draft.sighashes[1]);
            for (field, input) in draft.psbt.inputs.iter().zip(&specimen.inputs) {
                assert_eq!(field.witness_utxo.as_ref(), Some(&input.txout));
                assert_eq!(field.bip32_derivation.len(), usize::from(kind == "wpkh"));
                assert_eq!(field.tap_key_origins.len(), usize::from(kind == "tr"));
                assert_eq!(field.tap_internal_key.is_some(), kind == "tr");
            }
        }
    }

    #[test]
    fn refuses_a_multisig_wallet() {
        let source = format!("wsh(sortedmulti(1,{}/<0;1>/*,{}/<0;1>/*))", XPUBS[0], XPUBS[1]);
        assert_eq!(draft(&descriptor_specimen(&source)), Err(Refusal::DescriptorKind));
    }

    /// safety 19, at the signer.
    #[test]
    fn refuses_inputs_that_are_not_the_permitted_coins() {
        for kind in ["wpkh", "tr"] {
            let none = refusal(kind, |specimen| {
                specimen.inputs.clear();
                specimen.transaction.input.clear();
            });
            assert_eq!(none, Refusal::InputCount);
            assert_eq!(refusal(kind, |specimen| specimen.inputs.swap(0, 1)), Refusal::InputsDiffer);
            assert_eq!(refusal(kind, |specimen| specimen.inputs.truncate(1)), Refusal::InputsDiffer);
            assert_eq!(refusal(kind, |specimen| specimen.transaction.input.truncate(1)), Refusal::InputsDiffer);
            let twice = refusal(kind, |specimen| {
                specimen.inputs[1] = specimen.inputs[0].clone();
                specimen.transaction.input[1] = specimen.transaction.input[0].clone();
            });
            assert_eq!(twice, Refusal::DuplicateInput { input: 1 });
        }
        let many = refusal("wpkh", |specimen| specimen.inputs = vec![specimen.inputs[0].clone(); MAX_OUTPOINTS + 1]);
        assert_eq!(many, Refusal::InputCount);
    }

    /// safety 20.
    #[test]
    fn refuses_a_transaction_that_holds_a_signature() {
        let script = refusal("wpkh", |specimen| specimen.transaction.input[1].script_sig = ScriptBuf::from(vec![0x51]));
        assert_eq!(script, Refusal::InputNotEmpty { input: 1 });
        let witness = refusal("tr", |specimen| specimen.transaction.input[0].witness = Witness::from_slice(&[[1]]));
        assert_eq!(witness, Refusal::InputNotEmpty { input: 0 });
    }

    #[test]
    fn refuses_a_script_that_is_not_the_wallets_at_its_index() {
        for kind in ["wpkh", "tr"] {
            assert_eq!(refusal(kind, |specimen| specimen.inputs[1].index = 0), Refusal::ForeignScript { input: 1 });
            let beyond = refusal(kind, |specimen| specimen.inputs[0].index = 1 << 31);
            assert_eq!(beyond, Refusal::ForeignScript { input: 0 });
            let foreign = refusal(kind, |specimen| specimen.inputs[0].txout.script_pubkey = ScriptBuf::new());
            assert_eq!(foreign, Refusal::ForeignScript { input: 0 });
        }
    }

    #[test]
    fn refuses_amounts_that_cannot_be() {
        let more_out = refusal("wpkh", |specimen| specimen.transaction.output[0].value = Amount::from_sat(200_000));
        assert!(matches!(more_out, Refusal::Amounts { input_sat: 200_000, .. }), "{more_out:?}");
        let too_much = refusal("wpkh", |specimen| specimen.inputs[0].txout.value = Amount::MAX);
        assert_eq!(too_much, Refusal::Amounts { input_sat: u64::MAX, output_sat: 199_000 });
    }

    /// safety 21, at the signer.
    #[test]
    fn refuses_change_that_is_not_the_wallets() {
        for kind in ["wpkh", "tr"] {
            let index = refusal(kind, |specimen| specimen.change.as_mut().unwrap().index = 8);
            assert!(matches!(index, Refusal::ForeignChange { .. }), "{index:?}");
            let absent = refusal(kind, |specimen| specimen.change.as_mut().unwrap().vout = 2);
            assert_eq!(absent, Refusal::ForeignChange { vout: 2 });
        }
    }
}
