//! What a caller believes of the inputs: against itself, and against our own view.

use bitcoin::psbt::{Input, Psbt, PsbtSighashType};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::sighash::{EcdsaSighashType, TapSighashType};
use bitcoin::{OutPoint, Script, ScriptBuf, TxOut, Witness};

use super::fault::{PsbtFault, PsbtFaults};
use super::{InputClaim, PsbtProposal};

/// First byte of an annex (BIP-341).
const ANNEX_TAG: u8 = 0x50;

/// Reads the claims of all inputs and adds what is wrong with them to `faults`.
pub(super) fn read(psbt: &Psbt, faults: &mut Vec<PsbtFault>) -> Vec<InputClaim> {
    let outpoints = psbt.unsigned_tx.input.iter().map(|input| input.previous_output);
    let mut claims = Vec::with_capacity(psbt.inputs.len());
    for (at, (outpoint, input)) in outpoints.zip(&psbt.inputs).enumerate() {
        match read_input(at, outpoint, input) {
            Ok(claim) => claims.push(claim),
            Err(fault) => faults.push(fault),
        }
    }
    claims
}

fn read_input(at: usize, outpoint: OutPoint, input: &Input) -> Result<InputClaim, PsbtFault> {
    check_unsigned(at, input)?;
    let sighash_default = check_sighash(at, outpoint, input.sighash_type)?;
    let txout = claimed_coin(at, outpoint, input)?;
    check_scripts(at, input, txout.as_ref())?;
    if let Some(kind) = txout.as_ref().and_then(|txout| legacy_kind(&txout.script_pubkey)) {
        return Err(PsbtFault::LegacyInput { input: at, kind });
    }
    check_key_path(at, input)?;
    Ok(InputClaim {
        outpoint,
        txout,
        sighash_default,
        witness_script: input.witness_script.clone(),
        tap_internal_key: input.tap_internal_key,
    })
}

fn check_unsigned(at: usize, input: &Input) -> Result<(), PsbtFault> {
    let annex =
        |witness: &Witness| witness.len() > 1 && witness.last().is_some_and(|item| item.first() == Some(&ANNEX_TAG));
    let field = if !input.partial_sigs.is_empty() {
        "a partial signature"
    } else if input.tap_key_sig.is_some() || !input.tap_script_sigs.is_empty() {
        "a taproot signature"
    } else if input.final_script_sig.is_some() {
        "a final scriptSig"
    } else if input.final_script_witness.as_ref().is_some_and(annex) {
        "a final witness with an annex"
    } else if input.final_script_witness.is_some() {
        "a final witness"
    } else {
        return Ok(());
    };
    Err(PsbtFault::AlreadySigned { input: at, field })
}

/// Whether DEFAULT was asked for.
fn check_sighash(at: usize, outpoint: OutPoint, sighash: Option<PsbtSighashType>) -> Result<bool, PsbtFault> {
    match sighash {
        None => Ok(false),
        Some(asked) if asked == EcdsaSighashType::All.into() => Ok(false),
        Some(asked) if asked == TapSighashType::Default.into() => Ok(true),
        Some(asked) => Err(PsbtFault::SighashNotAllowed { input: at, outpoint, sighash: asked.to_string() }),
    }
}

/// The coin by the caller's account, where it gives one. Indexing is checked: the outpoint is the caller's too.
fn claimed_coin(at: usize, outpoint: OutPoint, input: &Input) -> Result<Option<TxOut>, PsbtFault> {
    let mismatch = |why: String| PsbtFault::PrevoutMismatch { input: at, outpoint, why };
    let Some(previous) = &input.non_witness_utxo else { return Ok(input.witness_utxo.clone()) };
    let txid = previous.compute_txid();
    if txid != outpoint.txid {
        return Err(mismatch(format!("non_witness_utxo has txid {txid}, and the input spends {}", outpoint.txid)));
    }
    let Some(output) = previous.output.get(outpoint.vout as usize) else {
        let (count, vout) = (previous.output.len(), outpoint.vout);
        return Err(mismatch(format!("non_witness_utxo has {count} outputs, and the input spends output {vout}")));
    };
    match &input.witness_utxo {
        Some(claimed) if claimed != output => {
            Err(mismatch("witness_utxo is not the output of non_witness_utxo".to_owned()))
        }
        _ => Ok(Some(output.clone())),
    }
}

fn check_scripts(at: usize, input: &Input, txout: Option<&TxOut>) -> Result<(), PsbtFault> {
    let mismatch = |why| PsbtFault::ScriptMismatch { input: at, why };
    let script = txout.map(|txout| txout.script_pubkey.as_script());
    let is_redeemed = match (&input.redeem_script, script) {
        (None, _) => false,
        (Some(redeem), Some(script)) if script.is_p2sh() => {
            if redeem.to_p2sh() != *script {
                return Err(mismatch("redeem_script is not the one that the coin's script commits to"));
            }
            true
        }
        (Some(_), _) => return Err(mismatch("redeem_script is there, and a native segwit coin has none")),
    };
    let Some(witness_script) = &input.witness_script else { return Ok(()) };
    let program = if is_redeemed { input.redeem_script.as_deref() } else { script };
    match program {
        Some(program) if program.is_p2wsh() && witness_script.to_p2wsh() == *program => Ok(()),
        Some(program) if program.is_p2wsh() => {
            Err(mismatch("witness_script is not the one that the coin's script commits to"))
        }
        Some(_) => Err(mismatch("witness_script is there, and the coin has none")),
        // Without a coin to compare with, our own view decides.
        None => Ok(()),
    }
}

/// What the script is, if it is not a native segwit program of version 0 or 1.
fn legacy_kind(script: &Script) -> Option<&'static str> {
    if script.is_p2wpkh() || script.is_p2wsh() || script.is_p2tr() {
        None
    } else if script.is_p2pkh() {
        Some("P2PKH")
    } else if script.is_p2sh() {
        Some("P2SH")
    } else if script.is_p2pk() {
        Some("P2PK")
    } else if script.is_witness_program() {
        Some("a witness program that is not known yet")
    } else {
        Some("a bare script")
    }
}

fn check_key_path(at: usize, input: &Input) -> Result<(), PsbtFault> {
    let has_preimages = !(input.ripemd160_preimages.is_empty()
        && input.sha256_preimages.is_empty()
        && input.hash160_preimages.is_empty()
        && input.hash256_preimages.is_empty());
    let field = if !input.tap_scripts.is_empty() {
        "a taproot leaf script"
    } else if input.tap_merkle_root.is_some() {
        "a taproot merkle root"
    } else if input.tap_key_origins.values().any(|(leaves, _)| !leaves.is_empty()) {
        "a key of a taproot leaf"
    } else if has_preimages {
        "a hash preimage"
    } else {
        return Ok(());
    };
    Err(PsbtFault::ScriptPath { input: at, field })
}

/// Compares what the caller believes with our own view of the coins. `view` gives value and script of a coin of the
/// wallet, `None` of any other.
///
/// # Errors
/// [`PsbtFaults`] names every input that is not the wallet's or differs from our view.
pub fn check_claims(proposal: &PsbtProposal, view: impl Fn(&OutPoint) -> Option<TxOut>) -> Result<(), PsbtFaults> {
    let faults = proposal.claims.iter().enumerate().filter_map(|(at, claim)| {
        let Some(own) = view(&claim.outpoint) else {
            return Some(PsbtFault::UnknownCoin { input: at, outpoint: claim.outpoint });
        };
        check_claim(at, claim, &own).err()
    });
    PsbtFaults::from_list(faults.collect()).map_or(Ok(()), Err)
}

fn check_claim(at: usize, claim: &InputClaim, own: &TxOut) -> Result<(), PsbtFault> {
    let (outpoint, script) = (claim.outpoint, &own.script_pubkey);
    if let Some(kind) = legacy_kind(script) {
        return Err(PsbtFault::LegacyInput { input: at, kind });
    }
    if let Some(claimed) = claim.txout.as_ref().filter(|claimed| *claimed != own) {
        let value = own.value;
        let why = if claimed.value == value {
            format!("the PSBT gives {outpoint} another script than {script:x}, which it has")
        } else {
            format!("the PSBT says that {outpoint} is worth {}; it is worth {value}", claimed.value)
        };
        return Err(PsbtFault::PrevoutMismatch { input: at, outpoint, why });
    }
    if claim.sighash_default && !script.is_p2tr() {
        let sighash = "SIGHASH_DEFAULT of a coin that is not taproot".to_owned();
        return Err(PsbtFault::SighashNotAllowed { input: at, outpoint, sighash });
    }
    let why = match (&claim.witness_script, claim.tap_internal_key) {
        (Some(witness_script), _) if witness_script.to_p2wsh() != *script => {
            "witness_script does not belong to the coin"
        }
        (_, Some(key)) if ScriptBuf::new_p2tr(&Secp256k1::verification_only(), key, None) != *script => {
            "tap_internal_key, without scripts, does not belong to the coin"
        }
        _ => return Ok(()),
    };
    Err(PsbtFault::ScriptMismatch { input: at, why })
}
