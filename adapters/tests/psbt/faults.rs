//! One case for every class of fault, each made from a PSBT that is right.

use bitcoin::base64::Engine;
use bitcoin::base64::prelude::BASE64_STANDARD;
use bitcoin::bip32::{DerivationPath, Fingerprint};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::psbt::{Psbt, PsbtSighashType, raw};
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TapNodeHash, TaprootBuilder};
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid, Witness, ecdsa, taproot};
use onespend_adapters::psbt::{
    MAX_FIELDS, MAX_NAMED_FAULTS, Place, PsbtFault, PsbtFaults, PsbtLimits, PsbtProposal, check_claims, intake,
};

use crate::specimen::{p2tr, p2wpkh, parent, public, secret, specimen, transaction, txin, txout, view, x_only};

fn read(bytes: &[u8]) -> Result<PsbtProposal, PsbtFaults> {
    intake(bytes, &PsbtLimits::default())
}

/// What intake says after the specimen was spoilt.
fn fault(spoil: impl FnOnce(&mut Psbt)) -> PsbtFault {
    faults(spoil).first().clone()
}

fn faults(spoil: impl FnOnce(&mut Psbt)) -> PsbtFaults {
    let mut psbt = specimen();
    spoil(&mut psbt);
    read(&psbt.serialize()).unwrap_err()
}

/// What the comparison with our view says after the specimen was spoilt, which intake did not mind.
fn claim_fault(spoil: impl FnOnce(&mut Psbt)) -> PsbtFault {
    let mut psbt = specimen();
    spoil(&mut psbt);
    let proposal = read(&psbt.serialize()).expect("intake has no view of the chain");
    check_claims(&proposal, view).unwrap_err().first().clone()
}

/// The specimen with one more field in front of the map that starts at `at`.
fn with_field(at: usize, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = specimen().serialize();
    let field = [&[u8::try_from(key.len()).unwrap()], key, &[u8::try_from(value.len()).unwrap()], value].concat();
    bytes.splice(at..at, field);
    bytes
}

/// Offset of the first input's map: magic, key 0x00, length of the transaction, transaction, separator.
fn first_input_at() -> usize {
    let length = bitcoin::consensus::serialize(&specimen().unsigned_tx).len();
    assert!(length < 0xfd, "the length takes one byte");
    5 + 2 + 1 + length + 1
}

const GLOBAL_AT: usize = 5;

#[test]
fn takes_what_is_right_raw_and_in_base64() {
    let psbt = specimen();
    let proposal = read(&psbt.serialize()).unwrap();
    assert_eq!(proposal.transaction, psbt.unsigned_tx);
    assert_eq!(proposal.claims.len(), 2);
    assert_eq!(proposal.claims[0].txout, Some(parent().output[0].clone()));
    assert_eq!(proposal.claims[1].tap_internal_key, Some(x_only(2)));
    check_claims(&proposal, view).unwrap();
    assert_eq!(read(format!("\n {psbt} \n").as_bytes()).unwrap(), proposal);
}

#[test]
fn takes_a_psbt_that_claims_nothing() {
    let proposal = read(&Psbt::from_unsigned_tx(specimen().unsigned_tx).unwrap().serialize()).unwrap();
    assert!(proposal.claims.iter().all(|claim| claim.txout.is_none()));
    check_claims(&proposal, view).unwrap();
}

#[test]
fn takes_the_allowed_sighash_types_and_ignores_fields_that_it_does_not_need() {
    let mut psbt = specimen();
    psbt.inputs[0].sighash_type = Some(EcdsaSighashType::All.into());
    psbt.inputs[1].sighash_type = Some(TapSighashType::All.into());
    let unknown = raw::Key { type_value: 0xf0, key: vec![1, 2, 3] };
    let proprietary = raw::ProprietaryKey { prefix: b"wallet".to_vec(), subtype: 1, key: vec![2] };
    psbt.unknown.insert(unknown.clone(), vec![4]);
    psbt.proprietary.insert(proprietary, vec![5]);
    psbt.inputs[0].unknown.insert(unknown.clone(), vec![]);
    psbt.outputs[1].unknown.insert(unknown, vec![6; 300]);
    let origin = (Fingerprint::from([1, 2, 3, 4]), "84h/1h/0h/0/0".parse::<DerivationPath>().unwrap());
    psbt.inputs[0].bip32_derivation.insert(public(77).0, origin.clone());
    psbt.inputs[1].tap_key_origins.insert(x_only(2), (Vec::new(), origin));
    check_claims(&read(&psbt.serialize()).unwrap(), view).unwrap();
    psbt.inputs[1].sighash_type = Some(TapSighashType::Default.into());
    check_claims(&read(&psbt.serialize()).unwrap(), view).unwrap();
    let version_0 = with_field(GLOBAL_AT, &[0xfb], &[0; 4]);
    assert!(read(&version_0).is_ok(), "version 0 may be written out");
}

#[test]
fn refuses_what_is_not_a_psbt() {
    let psbt = specimen();
    let transaction = bitcoin::consensus::serialize(&psbt.unsigned_tx);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "does not start with"),
        (b"hello".to_vec(), "nor is base64"),
        (transaction.clone(), "nor is base64"),
        (BASE64_STANDARD.encode(&transaction).into_bytes(), "does not start with"),
        (psbt.serialize_hex().into_bytes(), "hexadecimal"),
        (psbt.to_string().replace('c', "-").into_bytes(), "nor is base64"),
        (b"psbt\xfe".to_vec(), "nor is base64"),
        (vec![0xff; 100], "nor is base64"),
    ];
    for (bytes, expected) in cases {
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error.first(), PsbtFault::NotPsbt { why } if why.contains(expected)), "{expected}: {error}");
    }
}

#[test]
fn refuses_every_prefix_of_a_psbt() {
    let bytes = specimen().serialize();
    for end in 0..bytes.len() {
        let error = read(&bytes[..end]).unwrap_err();
        let expected = matches!(error.first(), PsbtFault::Truncated { .. } | PsbtFault::NotPsbt { .. });
        assert!(expected, "{end}: {error}");
    }
    let without_last_map = read(&bytes[..bytes.len() - 1]).unwrap_err();
    assert_eq!(without_last_map.first(), &PsbtFault::Truncated { place: Place::Output(1) });
}

#[test]
fn refuses_bytes_after_the_end() {
    let bytes = [specimen().serialize(), vec![0, 0]].concat();
    assert_eq!(read(&bytes).unwrap_err().first(), &PsbtFault::TrailingBytes { bytes: 2 });
}

#[test]
fn refuses_version_2_and_says_so() {
    // As BIP-370 has it: no unsigned transaction, counts, and the version at the end of the global map.
    let global: &[u8] = &[1, 2, 4, 2, 0, 0, 0, 1, 3, 4, 0, 0, 0, 0, 1, 4, 1, 1, 1, 5, 1, 1, 1, 0xfb, 4, 2, 0, 0, 0, 0];
    let bytes = [b"psbt\xff", global, &[0, 0]].concat();
    let error = read(&bytes).unwrap_err();
    assert_eq!(error.first(), &PsbtFault::UnsupportedVersion { version: 2 });
    assert!(error.to_string().contains("version 2; only version 0 (BIP-174)"), "{error}");
    let other = read(&with_field(GLOBAL_AT, &[0xfb], &[1, 0, 0, 0])).unwrap_err();
    assert_eq!(other.first(), &PsbtFault::UnsupportedVersion { version: 1 });
    let short = read(&with_field(GLOBAL_AT, &[0xfb], &[0])).unwrap_err();
    assert!(matches!(short.first(), PsbtFault::Malformed { place: Place::Global, .. }), "{short}");
}

#[test]
fn refuses_fields_of_version_2_in_version_0() {
    let error = read(&with_field(GLOBAL_AT, &[0x02], &[2, 0, 0, 0])).unwrap_err();
    let field = "PSBT_GLOBAL_TX_VERSION";
    assert_eq!(error.first(), &PsbtFault::OtherVersionField { place: Place::Global, field });
    let error = read(&with_field(first_input_at(), &[0x10], &[0; 4])).unwrap_err();
    let field = "PSBT_IN_SEQUENCE";
    assert_eq!(error.first(), &PsbtFault::OtherVersionField { place: Place::Input(0), field });
}

#[test]
fn refuses_the_same_key_twice() {
    let bytes = with_field(first_input_at(), &[0x01], &[]);
    let expected = PsbtFault::DuplicateKey { place: Place::Input(0), key: "01".to_owned() };
    assert_eq!(read(&bytes).unwrap_err().first(), &expected);
}

#[test]
fn refuses_a_field_that_is_not_of_its_form_and_says_where() {
    let error = read(&with_field(first_input_at(), &[0x03], &[1])).unwrap_err();
    assert!(matches!(error.first(), PsbtFault::Malformed { place: Place::Input(0), .. }), "{error}");
    let error = read(&with_field(GLOBAL_AT, &[0x01, 7], &[1])).unwrap_err();
    assert!(matches!(error.first(), PsbtFault::Malformed { place: Place::Global, .. }), "{error}");
    let mut bytes = specimen().serialize();
    let end = bytes.len() - 1;
    bytes.splice(end..end, [2, 0x05, 9, 1, 1]);
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error.first(), PsbtFault::Malformed { place: Place::Output(1), .. }), "{error}");
    assert!(error.to_string().starts_with("output 1: "), "{error}");
}

#[test]
fn shows_only_the_beginning_of_a_large_key() {
    let mut psbt = specimen();
    let key = raw::Key { type_value: 0x03, key: vec![7; 100_000] };
    psbt.inputs[1].unknown.insert(key, vec![0]);
    let error = read(&psbt.serialize()).unwrap_err();
    assert!(matches!(error.first(), PsbtFault::Malformed { place: Place::Input(1), .. }), "{error}");
    assert!(error.to_string().len() < 300, "{} bytes", error.to_string().len());
}

#[test]
fn refuses_what_is_too_large() {
    let limits = PsbtLimits::default();
    let mut psbt = specimen();
    psbt.unknown.insert(raw::Key { type_value: 0xf0, key: vec![] }, vec![0; limits.max_bytes]);
    for bytes in [psbt.serialize(), psbt.to_string().into_bytes()] {
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error.first(), PsbtFault::TooLarge { max, .. } if *max == limits.max_bytes), "{error}");
    }
    let exact = specimen().serialize();
    let limits = PsbtLimits { max_bytes: exact.len(), ..limits };
    assert!(intake(&exact, &limits).is_ok());
    assert!(intake(specimen().to_string().as_bytes(), &limits).is_ok());
    let limits = PsbtLimits { max_bytes: exact.len() - 1, ..limits };
    assert!(intake(&exact, &limits).is_err());
    assert!(intake(specimen().to_string().as_bytes(), &limits).is_err());
}

#[test]
fn refuses_too_many_fields() {
    let mut psbt = specimen();
    for number in 0..=u32::try_from(MAX_FIELDS).unwrap() {
        let key = raw::Key { type_value: 0xf0, key: number.to_le_bytes().to_vec() };
        psbt.outputs[0].unknown.insert(key, Vec::new());
    }
    assert_eq!(read(&psbt.serialize()).unwrap_err().first(), &PsbtFault::TooManyFields { max: MAX_FIELDS });
}

#[test]
fn refuses_too_few_and_too_many_inputs_and_outputs() {
    let count = |inputs: u32, outputs: u64| {
        let input = (0..inputs).map(|vout| txin(OutPoint { txid: Txid::hash(b"many"), vout })).collect();
        let output = (0..outputs).map(|sat| txout(sat, p2wpkh(1))).collect();
        read(&Psbt::from_unsigned_tx(transaction(input, output)).unwrap().serialize())
    };
    let limits = PsbtLimits::default();
    let (max_inputs, max_outputs) = (u32::try_from(limits.max_inputs).unwrap(), limits.max_outputs as u64);
    assert!(count(max_inputs, max_outputs).is_ok());
    for (inputs, outputs, what) in
        [(0, 1, "inputs"), (max_inputs + 1, 1, "inputs"), (1, 0, "outputs"), (1, max_outputs + 1, "outputs")]
    {
        let error = count(inputs, outputs).unwrap_err();
        assert!(matches!(error.first(), PsbtFault::Count { what: found, .. } if *found == what), "{error}");
    }
}

#[test]
fn refuses_a_psbt_without_transaction_or_with_a_broken_one() {
    let error = read(b"psbt\xff\x00").unwrap_err();
    assert_eq!(error.first(), &PsbtFault::NoUnsignedTransaction);
    for (value, expected) in [(vec![2, 0, 0, 0, 1], "cannot be read"), (vec![0; 11], "1 bytes follow")] {
        let bytes = [b"psbt\xff\x01\x00".to_vec(), vec![u8::try_from(value.len()).unwrap()], value, vec![0]].concat();
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error.first(), PsbtFault::Malformed { place: Place::Global, .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn refuses_a_transaction_that_is_signed() {
    let mut psbt = specimen();
    psbt.unsigned_tx.input[1].script_sig = ScriptBuf::from(vec![0x51]);
    assert_eq!(read(&psbt.serialize()).unwrap_err().first(), &PsbtFault::NotUnsigned { input: 1 });
    // In the format of BIP-144, which is how a witness would get in.
    let mut signed = specimen().unsigned_tx;
    signed.input[0].witness = Witness::from_slice(&[[1; 64]]);
    let bytes = bitcoin::consensus::serialize(&signed);
    let length = u8::try_from(bytes.len()).unwrap();
    assert!(length < 0xfd);
    let psbt = [b"psbt\xff\x01\x00".to_vec(), vec![length], bytes, vec![0; 5]].concat();
    let error = read(&psbt).unwrap_err();
    assert!(error.to_string().contains("BIP-144"), "{error}");
}

/// safety 19.
#[test]
fn refuses_the_same_coin_twice() {
    let outpoint = specimen().unsigned_tx.input[0].previous_output;
    let fault = fault(|psbt| {
        psbt.unsigned_tx.input[1] = psbt.unsigned_tx.input[0].clone();
        psbt.inputs[1] = psbt.inputs[0].clone();
    });
    assert_eq!(fault, PsbtFault::DuplicateInput { input: 1, first: 0, outpoint });
}

#[test]
fn refuses_outputs_that_cannot_be() {
    let one = fault(|psbt| psbt.unsigned_tx.output[1].value = Amount::MAX);
    assert!(matches!(one, PsbtFault::OutputInvalid { output: 1, .. }), "{one}");
    let sum = fault(|psbt| psbt.unsigned_tx.output.iter_mut().for_each(|output| output.value = Amount::MAX_MONEY));
    assert!(matches!(sum, PsbtFault::OutputInvalid { output: 1, .. }), "{sum}");
}

/// safety 20.
#[test]
fn refuses_other_sighash_types() {
    let types = [2, 3, 0x80, 0x81, 0x82, 0x83, 4, 0x101, u32::MAX];
    for sighash in types {
        for input in 0..2 {
            let fault = fault(|psbt| psbt.inputs[input].sighash_type = Some(PsbtSighashType::from_u32(sighash)));
            assert!(matches!(fault, PsbtFault::SighashNotAllowed { input: at, .. } if at == input), "{fault}");
        }
    }
    let named = fault(|psbt| psbt.inputs[0].sighash_type = Some(EcdsaSighashType::NonePlusAnyoneCanPay.into()));
    assert!(named.to_string().contains("SIGHASH_NONE|SIGHASH_ANYONECANPAY"), "{named}");
    let default = claim_fault(|psbt| psbt.inputs[0].sighash_type = Some(TapSighashType::Default.into()));
    assert!(matches!(default, PsbtFault::SighashNotAllowed { input: 0, .. }), "{default}");
}

/// safety 20: no signature beforehand, no annex.
#[test]
fn refuses_inputs_that_are_signed_already() {
    let secp = Secp256k1::new();
    let message = Message::from_digest([1; 32]);
    let ecdsa = ecdsa::Signature::sighash_all(secp.sign_ecdsa(&message, &secret(1)));
    let schnorr = taproot::Signature {
        signature: secp.sign_schnorr_no_aux_rand(&message, &secret(2).keypair(&secp)),
        sighash_type: TapSighashType::Default,
    };
    let leaf = TapLeafHash::hash(&[1]);
    let partial = |psbt: &mut Psbt| {
        psbt.inputs[0].partial_sigs.insert(public(1).0.into(), ecdsa);
    };
    let script = |psbt: &mut Psbt| {
        psbt.inputs[0].tap_script_sigs.insert((x_only(2), leaf), schnorr);
    };
    let cases: [(PsbtFault, &str); 6] = [
        (fault(partial), "a partial signature"),
        (fault(|psbt| psbt.inputs[0].tap_key_sig = Some(schnorr)), "a taproot signature"),
        (fault(script), "a taproot signature"),
        (fault(|psbt| psbt.inputs[0].final_script_sig = Some(ScriptBuf::from(vec![0x51]))), "a final scriptSig"),
        (fault(|psbt| psbt.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1]]))), "a final witness"),
        (
            fault(|psbt| psbt.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1; 64], [0x50; 64]]))),
            "a final witness with an annex",
        ),
    ];
    for (fault, field) in cases {
        assert_eq!(fault, PsbtFault::AlreadySigned { input: 0, field });
    }
}

fn assert_mismatch(fault: &PsbtFault, input: usize, expected: &str) {
    let named =
        matches!(fault, PsbtFault::PrevoutMismatch { input: at, why, .. } if *at == input && why.contains(expected));
    assert!(named, "{expected}: {fault}");
}

/// safety 18.
#[test]
fn refuses_a_lying_non_witness_utxo() {
    let wrong = fault(|psbt| psbt.inputs[0].non_witness_utxo.as_mut().unwrap().output[0].value += Amount::ONE_SAT);
    assert_mismatch(&wrong, 0, "has txid");
    // What `Psbt::sign` panics on: the output that is spent is not there.
    let txid = parent().compute_txid();
    let beyond = fault(|psbt| {
        psbt.unsigned_tx.input[0].previous_output = OutPoint { txid, vout: 7 };
        psbt.inputs[0].witness_utxo = None;
    });
    assert_mismatch(&beyond, 0, "has 2 outputs, and the input spends output 7");
    let truncated = fault(|psbt| psbt.inputs[0].non_witness_utxo.as_mut().unwrap().output.clear());
    assert_mismatch(&truncated, 0, "has txid");
    let other_output = fault(|psbt| psbt.inputs[0].witness_utxo = Some(parent().output[1].clone()));
    assert_mismatch(&other_output, 0, "witness_utxo is not the output");
}

/// safety 18.
#[test]
fn refuses_a_lying_witness_utxo() {
    let value = claim_fault(|psbt| psbt.inputs[1].witness_utxo.as_mut().unwrap().value += Amount::ONE_SAT);
    assert_mismatch(&value, 1, "is worth");
    let script = claim_fault(|psbt| psbt.inputs[1].witness_utxo.as_mut().unwrap().script_pubkey = p2wpkh(2));
    assert_mismatch(&script, 1, "another script");
}

#[test]
fn refuses_a_foreign_coin() {
    let outpoint = OutPoint { txid: Txid::hash(b"elsewhere"), vout: 0 };
    let fault = claim_fault(|psbt| psbt.unsigned_tx.input[1].previous_output = outpoint);
    assert_eq!(fault, PsbtFault::UnknownCoin { input: 1, outpoint });
}

/// safety 14: segwit and taproot alone keep the txid.
#[test]
fn refuses_legacy_coins_with_the_reason() {
    let key = public(1);
    let redeem = p2wpkh(1);
    let unknown_program = ScriptBuf::from([&[0x52, 32][..], &[1; 32]].concat());
    let cases = [
        (ScriptBuf::new_p2pkh(&key.pubkey_hash()), "P2PKH"),
        (redeem.to_p2sh(), "P2SH"),
        (ScriptBuf::new_p2pk(&key.0.into()), "P2PK"),
        (unknown_program, "a witness program that is not known yet"),
        (ScriptBuf::from(vec![0x51]), "a bare script"),
        (ScriptBuf::new(), "a bare script"),
    ];
    for (script, kind) in cases {
        let fault = fault(|psbt| psbt.inputs[1].witness_utxo = Some(txout(200_000, script.clone())));
        assert_eq!(fault, PsbtFault::LegacyInput { input: 1, kind });
        let claimless = read(&Psbt::from_unsigned_tx(specimen().unsigned_tx).unwrap().serialize()).unwrap();
        let by_view = check_claims(&claimless, |_| Some(txout(200_000, script.clone()))).unwrap_err();
        assert_eq!(by_view.first(), &PsbtFault::LegacyInput { input: 0, kind });
    }
    let nested = fault(|psbt| {
        psbt.inputs[1].witness_utxo = Some(txout(200_000, redeem.to_p2sh()));
        psbt.inputs[1].redeem_script = Some(redeem);
    });
    assert!(nested.to_string().contains("nobody can change the txid"), "{nested}");
}

#[test]
fn refuses_scripts_and_keys_that_do_not_belong() {
    let script = ScriptBuf::from(vec![0x51]);
    let mismatch = |fault: &PsbtFault| matches!(fault, PsbtFault::ScriptMismatch { input: 1, .. });
    let spoilt = [
        fault(|psbt| psbt.inputs[1].redeem_script = Some(p2wpkh(1))),
        fault(|psbt| psbt.inputs[1].witness_script = Some(script.clone())),
        fault(|psbt| {
            psbt.inputs[1].witness_utxo = Some(txout(200_000, p2wpkh(1).to_p2sh()));
            psbt.inputs[1].redeem_script = Some(p2wpkh(2));
        }),
        fault(|psbt| {
            psbt.inputs[1].witness_utxo = Some(txout(200_000, ScriptBuf::from(vec![0x52]).to_p2wsh()));
            psbt.inputs[1].witness_script = Some(script.clone());
        }),
        fault(|psbt| {
            let redeem = ScriptBuf::from(vec![0x52]).to_p2wsh();
            psbt.inputs[1].witness_utxo = Some(txout(200_000, redeem.to_p2sh()));
            psbt.inputs[1].redeem_script = Some(redeem);
            psbt.inputs[1].witness_script = Some(script.clone());
        }),
        claim_fault(|psbt| psbt.inputs[1].tap_internal_key = Some(x_only(3))),
        claim_fault(|psbt| {
            psbt.inputs[1].witness_utxo = None;
            psbt.inputs[1].witness_script = Some(script.clone());
        }),
    ];
    for fault in spoilt {
        assert!(mismatch(&fault), "{fault}");
    }
}

#[test]
fn lets_a_multisig_coin_be_claimed_with_its_own_script() {
    let script = ScriptBuf::from(vec![0x51]);
    let coin = txout(200_000, script.to_p2wsh());
    let mut psbt = specimen();
    psbt.inputs[1].witness_utxo = Some(coin.clone());
    psbt.inputs[1].witness_script = Some(script);
    psbt.inputs[1].tap_internal_key = None;
    let proposal = read(&psbt.serialize()).unwrap();
    let other = |outpoint: &OutPoint| if outpoint.vout == 1 { Some(coin.clone()) } else { view(outpoint) };
    check_claims(&proposal, other).unwrap();
}

/// safety 20: no script path.
#[test]
fn refuses_taproot_scripts() {
    let secp = Secp256k1::new();
    let leaf = ScriptBuf::from(vec![0x51]);
    let spend = TaprootBuilder::new().add_leaf(0, leaf.clone()).unwrap().finalize(&secp, x_only(2)).unwrap();
    let control = spend.control_block(&(leaf.clone(), LeafVersion::TapScript)).unwrap();
    let origin = (Fingerprint::default(), DerivationPath::default());
    let hash = TapLeafHash::from_script(&leaf, LeafVersion::TapScript);
    let cases = [
        (
            fault(|psbt| drop(psbt.inputs[1].tap_scripts.insert(control, (leaf, LeafVersion::TapScript)))),
            "a taproot leaf script",
        ),
        (fault(|psbt| psbt.inputs[1].tap_merkle_root = Some(TapNodeHash::hash(&[1]))), "a taproot merkle root"),
        (
            fault(|psbt| drop(psbt.inputs[1].tap_key_origins.insert(x_only(2), (vec![hash], origin)))),
            "a key of a taproot leaf",
        ),
        (
            fault(|psbt| drop(psbt.inputs[1].sha256_preimages.insert(sha256::Hash::hash(&[1]), vec![1]))),
            "a hash preimage",
        ),
    ];
    for (fault, field) in cases {
        assert_eq!(fault, PsbtFault::ScriptPath { input: 1, field });
    }
}

#[test]
fn names_every_fault_with_its_place() {
    let faults = faults(|psbt| {
        psbt.inputs[0].sighash_type = Some(EcdsaSighashType::None.into());
        psbt.inputs[1].final_script_witness = Some(Witness::from_slice(&[[1]]));
        psbt.unsigned_tx.output[0].value = Amount::MAX;
    });
    let places: Vec<Option<Place>> = faults.iter().map(PsbtFault::place).collect();
    assert_eq!(places, [Some(Place::Output(0)), Some(Place::Input(0)), Some(Place::Input(1))]);
    let text = faults.to_string();
    assert!(text.contains("output 0: ") && text.contains("input 0: ") && text.contains("input 1: "), "{text}");
}

#[test]
fn names_no_more_faults_than_its_bound() {
    let input = (0..100).map(|vout| txin(OutPoint { txid: Txid::hash(b"many"), vout })).collect();
    let psbt = Psbt::from_unsigned_tx(transaction(input, vec![txout(1, p2tr(1))])).unwrap();
    let error = check_claims(&read(&psbt.serialize()).unwrap(), view).unwrap_err();
    assert_eq!(error.iter().count(), MAX_NAMED_FAULTS);
}
