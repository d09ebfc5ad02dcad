//! Money that goes where it may, and money that does not.
#![allow(clippy::expect_used)]

use super::*;
use crate::oracle::specimen;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{TxIn, TxOut, WPubkeyHash};

/// Scripts: recipients of `p1` and `p2`, two of the wallet, and a stranger's.
const FIRST: u8 = 1;
const SECOND: u8 = 2;
const CHANGE: u8 = 3;
const MORE_CHANGE: u8 = 4;
const STRANGER: u8 = 5;
const COIN_SAT: u64 = 100_000;
const MAX_FEE_SAT: u64 = 2_000;

fn script(number: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([number; 20]))
}

fn transaction(spends: &[OutPoint], pays: &[(u8, u64)]) -> Transaction {
    let pay = |(to, sat): &(u8, u64)| TxOut { value: Amount::from_sat(*sat), script_pubkey: script(*to) };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: spends.iter().map(|coin| TxIn { previous_output: *coin, ..TxIn::default() }).collect(),
        output: pays.iter().map(pay).collect(),
    }
}

fn block(transaction: &Transaction) -> Block {
    specimen::block(vec![transaction.clone()])
}

fn funding() -> Transaction {
    transaction(&[OutPoint::null()], &[(CHANGE, COIN_SAT), (CHANGE, COIN_SAT)])
}

/// What is wrong with a transaction that spends one coin like this and was signed for `p1`.
fn faults(pays: &[(u8, u64)]) -> Vec<String> {
    let spend = transaction(&[OutPoint::new(funding().compute_txid(), 0)], pays);
    faults_of(&[block(&funding()), block(&spend)], &spend)
}

fn faults_of(blocks: &[Block], signed: &Transaction) -> Vec<String> {
    let mut orders = Orders::default();
    orders.add(script(FIRST), "p1", Amount::from_sat(60_000)).expect("once");
    orders.add(script(SECOND), "p2", Amount::from_sat(60_000)).expect("once");
    let signature = Signature {
        wallet: "hot".into(),
        payment_id: "p1".into(),
        attempt: 1,
        txid: signed.compute_txid().to_string(),
        digest: "d".into(),
        fence: 1,
        outpoints: Vec::new(),
    };
    let own = BTreeSet::from([script(CHANGE), script(MORE_CHANGE)]);
    judge(blocks, &[signature], &Allowed { orders: &orders, own: &own, max_fee: Amount::from_sat(MAX_FEE_SAT) })
}

#[test]
fn a_payment_its_change_and_a_cancellation_are_fine() {
    assert_eq!(faults(&[(FIRST, 60_000), (CHANGE, 38_000)]), Vec::<String>::new());
    assert_eq!(faults(&[(FIRST, 99_000)]), Vec::<String>::new(), "all of the coin");
    assert_eq!(faults(&[(MORE_CHANGE, 99_000)]), Vec::<String>::new(), "given back");
}

/// safety 21.
#[test]
fn money_to_a_stranger_to_another_payment_or_in_pieces_is_caught() {
    assert_eq!(faults(&[(FIRST, 60_000), (STRANGER, 39_000)]).len(), 1, "the change");
    assert_eq!(faults(&[(FIRST, 60_000), (CHANGE, 20_000), (STRANGER, 19_000)]).len(), 1, "one more output");
    assert_eq!(faults(&[(FIRST, 60_000), (SECOND, 39_000)]).len(), 1, "another payment's recipient");
    assert_eq!(faults(&[(FIRST, 60_000), (CHANGE, 20_000), (MORE_CHANGE, 19_000)]).len(), 1, "twice change");
    assert_eq!(faults(&[(FIRST, 99_000), (CHANGE, 100)]).len(), 1, "dust");
}

/// safety 22.
#[test]
fn a_fee_above_the_cap_is_caught() {
    assert_eq!(faults(&[(FIRST, 98_000)]).len(), 0, "the cap itself");
    assert_eq!(faults(&[(FIRST, 97_999)]).len(), 1);
    assert_eq!(faults(&[(FIRST, 50_000)]).len(), 1, "half of the coin");
}

#[test]
fn what_no_block_made_cannot_be_judged_and_is_caught() {
    let spend = transaction(&[OutPoint::new(funding().compute_txid(), 7)], &[(FIRST, 60_000)]);
    assert_eq!(faults_of(&[block(&funding()), block(&spend)], &spend).len(), 1);
}

#[test]
fn what_no_signer_signed_is_nobodys_business_here() {
    let (foreign, ours) = (transaction(&[OutPoint::null()], &[(STRANGER, 9)]), funding());
    assert_eq!(faults_of(&[block(&foreign)], &ours), Vec::<String>::new());
}
