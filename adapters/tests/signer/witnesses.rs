//! Witnesses checked by others than the code under test: Bitcoin Core's script interpreter, and miniscript's.

use bitcoin::secp256k1::Secp256k1;
use bitcoin::sighash::Prevouts;
use bitcoin::{Transaction, TxOut, consensus};
use miniscript::interpreter::{Interpreter, SatisfiedConstraint};

/// Panics unless every input is valid for both.
pub fn assert_valid(transaction: &Transaction, prevouts: &[TxOut]) {
    let bytes = consensus::serialize(transaction);
    let coins: Vec<bitcoinconsensus::Utxo> = prevouts
        .iter()
        .map(|coin| bitcoinconsensus::Utxo {
            script_pubkey: coin.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: u32::try_from(coin.script_pubkey.len()).unwrap(),
            value: i64::try_from(coin.value.to_sat()).unwrap(),
        })
        .collect();
    assert_eq!(transaction.input.len(), prevouts.len());
    for (at, coin) in prevouts.iter().enumerate() {
        let script = coin.script_pubkey.as_bytes();
        bitcoinconsensus::verify(script, coin.value.to_sat(), &bytes, Some(&coins), at)
            .unwrap_or_else(|error| panic!("input {at}: {error}"));
        assert_eq!(signatures(transaction, prevouts, at), 1, "input {at}");
    }
}

/// How many signatures miniscript's interpreter finds valid; panics on one that is not.
fn signatures(transaction: &Transaction, prevouts: &[TxOut], at: usize) -> usize {
    let secp = Secp256k1::verification_only();
    let input = &transaction.input[at];
    let interpreter = Interpreter::from_txdata(
        &prevouts[at].script_pubkey,
        &input.script_sig,
        &input.witness,
        input.sequence,
        transaction.lock_time,
    )
    .unwrap();
    let all = Prevouts::All(prevouts);
    let satisfied: Vec<SatisfiedConstraint> =
        interpreter.iter(&secp, transaction, at, &all).collect::<Result<_, _>>().unwrap();
    satisfied
        .iter()
        .filter(|constraint| {
            matches!(constraint, SatisfiedConstraint::PublicKey { .. } | SatisfiedConstraint::PublicKeyHash { .. })
        })
        .count()
}

/// The oracle itself must be able to fail.
#[test]
fn a_changed_amount_is_noticed() {
    use onespend_adapters::signer::Signer;

    use crate::ledger::{Ledger, account};
    let wpkh = account("wpkh", 1);
    let folder = tempfile::tempdir().unwrap();
    let signer = crate::software::from_file(folder.path(), &[&wpkh.private]);
    let mut ledger = Ledger::start();
    let coins = ledger.register("w", &wpkh.public, "hot", 1);
    let permit = ledger.pay("w", "p", &coins);
    let signed = signer.sign(&permit).unwrap();
    let mut coin = permit.inputs()[0].txout.clone();
    coin.value += bitcoin::Amount::ONE_SAT;
    assert!(std::panic::catch_unwind(|| assert_valid(&signed, &[coin])).is_err());
}
