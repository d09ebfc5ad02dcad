//! A PSBT with nothing wrong: it spends a P2WPKH coin and a taproot coin of one transaction.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::Keypair;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, XOnlyPublicKey,
};

pub fn secret(seed: u8) -> SecretKey {
    SecretKey::from_slice(&[seed; 32]).unwrap()
}

pub fn public(seed: u8) -> CompressedPublicKey {
    CompressedPublicKey(secret(seed).public_key(&Secp256k1::new()))
}

pub fn x_only(seed: u8) -> XOnlyPublicKey {
    Keypair::from_secret_key(&Secp256k1::new(), &secret(seed)).x_only_public_key().0
}

pub fn p2wpkh(seed: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&public(seed).wpubkey_hash())
}

pub fn p2tr(seed: u8) -> ScriptBuf {
    ScriptBuf::new_p2tr(&Secp256k1::new(), x_only(seed), None)
}

pub fn txout(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey }
}

pub fn txin(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness: Witness::new() }
}

pub fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// The transaction that made the coins.
pub fn parent() -> Transaction {
    let from = OutPoint { txid: Txid::hash(b"grandparent"), vout: 3 };
    transaction(vec![txin(from)], vec![txout(100_000, p2wpkh(1)), txout(200_000, p2tr(2))])
}

pub fn specimen() -> Psbt {
    let parent = parent();
    let txid = parent.compute_txid();
    let inputs = (0..2).map(|vout| txin(OutPoint { txid, vout })).collect();
    let outputs = vec![txout(150_000, p2wpkh(8)), txout(149_000, p2tr(9))];
    let mut psbt = Psbt::from_unsigned_tx(transaction(inputs, outputs)).unwrap();
    psbt.inputs[0].witness_utxo = Some(parent.output[0].clone());
    psbt.inputs[0].non_witness_utxo = Some(parent.clone());
    psbt.inputs[1].witness_utxo = Some(parent.output[1].clone());
    psbt.inputs[1].tap_internal_key = Some(x_only(2));
    psbt
}

/// Our own view: the coins as they are.
pub fn view(outpoint: &OutPoint) -> Option<TxOut> {
    let parent = parent();
    (outpoint.txid == parent.compute_txid()).then(|| parent.output.get(outpoint.vout as usize).cloned())?
}
