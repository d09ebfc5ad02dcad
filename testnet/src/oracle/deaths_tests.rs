//! Deaths that the blocks explain, and those that they do not.

use super::*;
use crate::oracle::specimen::block;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};

const DEPTH: usize = 3;

fn coin(number: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([number; 32]), 0)
}

/// `salt` makes it another one.
fn spending(coins: &[OutPoint], salt: u64) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins.iter().map(|coin| TxIn { previous_output: *coin, ..TxIn::default() }).collect(),
        output: vec![TxOut { value: Amount::from_sat(salt), script_pubkey: ScriptBuf::new() }],
    }
}

fn change_of(transaction: &Transaction) -> OutPoint {
    OutPoint::new(transaction.compute_txid(), 0)
}

/// The transaction in a block, and so many more blocks that it is this deep.
fn chain(transaction: &Transaction, depth: usize) -> Spends {
    let mut blocks = vec![block(vec![]), block(vec![transaction.clone()])];
    blocks.extend((1..depth).map(|_| block(vec![])));
    Spends::read(&blocks, DEPTH, |place| u64::try_from(place).unwrap_or(0) * 100)
}

fn attempt(number: u32, state: &str, transaction: &Transaction) -> AttemptSeen {
    AttemptSeen {
        number,
        state: state.to_owned(),
        txid: transaction.compute_txid().to_string(),
        inputs: transaction.input.iter().map(|input| input.previous_output.to_string()).collect(),
        ..AttemptSeen::default()
    }
}

fn payment(id: &str, state: &str, attempts: Vec<AttemptSeen>) -> PaymentSeen {
    PaymentSeen { payment_id: id.to_owned(), state: state.to_owned(), attempts, ..PaymentSeen::default() }
}

#[test]
fn an_attempt_is_dead_once_another_one_that_spends_its_coin_is_final_and_not_before() {
    let (first, second) = (spending(&[coin(1)], 1), spending(&[coin(1), coin(2)], 2));
    let both = [payment("p1", "", vec![attempt(1, "", &first), attempt(2, "", &second)])];
    // The block is the second, so the fourth makes it three deep.
    assert_eq!(of(&both, &chain(&first, DEPTH)), Deaths::from([(("p1".to_owned(), 2), 300)]));
    assert_eq!(of(&both, &chain(&first, DEPTH - 1)), Deaths::new());
    assert_eq!(of(&both, &chain(&second, DEPTH)), Deaths::from([(("p1".to_owned(), 1), 300)]));
}

#[test]
fn what_became_of_the_coin_that_is_asked_about_kills_nothing() {
    let (first, second) = (spending(&[coin(1), coin(2)], 1), spending(&[coin(2)], 2));
    let txid = first.compute_txid().to_string();
    let attempts = [payment("p1", "", vec![attempt(1, "", &first)])];
    let (inputs, spends) = (inputs_of(&attempts), chain(&second, DEPTH));
    assert_eq!(spends.death_of(&txid, &inputs, None), Some(300));
    assert_eq!(spends.death_of(&txid, &inputs, Some(&coin(2).to_string())), None);
    assert_eq!(spends.death_of(&txid, &inputs, Some(&coin(1).to_string())), Some(300));
}

#[test]
fn an_attempt_that_is_called_dead_without_a_final_conflict_is_caught() {
    let (first, second) = (spending(&[coin(1)], 1), spending(&[coin(1)], 2));
    let paid = [payment("p1", "SETTLED", vec![attempt(1, "DEAD", &first), attempt(2, "SETTLED", &second)])];
    assert_eq!(unexplained(&paid, &chain(&second, DEPTH)), Vec::<String>::new());
    assert_eq!(unexplained(&paid, &chain(&second, DEPTH - 1)).len(), 2, "too early, both");
    assert_eq!(unexplained(&paid, &chain(&first, DEPTH)).len(), 2, "it is the one that confirmed");
}

#[test]
fn an_attempt_that_is_called_settled_and_is_in_no_final_block_is_caught() {
    let (ours, other) = (spending(&[coin(1)], 1), spending(&[coin(2)], 2));
    let paid = [payment("p1", "SETTLED", vec![attempt(1, "SETTLED", &ours)])];
    assert_eq!(unexplained(&paid, &chain(&ours, DEPTH)), Vec::<String>::new());
    assert_eq!(unexplained(&paid, &chain(&ours, DEPTH - 1)).len(), 1, "too early");
    assert_eq!(unexplained(&paid, &chain(&other, DEPTH)).len(), 1, "it is in no block");
}

/// safety 10: cancelled only when the attempt that gives the coins back is settled.
#[test]
fn a_payment_that_is_called_cancelled_without_a_final_cancellation_is_caught() {
    let (pays, returns) = (spending(&[coin(1)], 1), spending(&[coin(1)], 2));
    let with_purpose = |purpose: &str| {
        let back = AttemptSeen { purpose: purpose.to_owned(), ..attempt(2, "", &returns) };
        [payment("p1", "CANCELLED", vec![attempt(1, "", &pays), back])]
    };
    let cancelled = with_purpose("CANCEL");
    assert_eq!(unexplained(&cancelled, &chain(&returns, DEPTH)), Vec::<String>::new());
    assert_eq!(unexplained(&cancelled, &chain(&returns, DEPTH - 1)).len(), 1, "too early");
    assert_eq!(unexplained(&cancelled, &chain(&pays, DEPTH)).len(), 1, "the payment confirmed");
    assert_eq!(unexplained(&with_purpose("PAY"), &chain(&returns, DEPTH)).len(), 1, "a replacement, no cancellation");
}

#[test]
fn a_whole_payment_that_is_dead_is_caught() {
    let (ours, foreign) = (spending(&[coin(1)], 1), spending(&[coin(1)], 2));
    let dead = [payment("p1", "DEAD", vec![attempt(1, "DEAD", &ours)])];
    assert_eq!(unexplained(&dead, &chain(&foreign, DEPTH)).len(), 1, "nobody else has the keys");
    assert_eq!(unexplained(&dead, &chain(&spending(&[coin(9)], 3), DEPTH)).len(), 2, "and nothing kills it");
    assert_eq!(unexplained(&[payment("p1", "DEAD", vec![])], &Spends::default()).len(), 1);
}

#[test]
fn a_child_may_die_with_a_parent_that_was_replaced_and_with_no_other() {
    let (first, second) = (spending(&[coin(1)], 1), spending(&[coin(1)], 2));
    let child = spending(&[change_of(&first), coin(5)], 3);
    let grandchild = spending(&[change_of(&child)], 4);
    let parent = payment("p1", "SETTLED", vec![attempt(1, "DEAD", &first), attempt(2, "SETTLED", &second)]);
    let line = [
        parent.clone(),
        payment("p2", "DEAD", vec![attempt(1, "DEAD", &child)]),
        payment("p3", "DEAD", vec![attempt(1, "DEAD", &grandchild)]),
    ];
    assert_eq!(unexplained(&line, &chain(&second, DEPTH)), Vec::<String>::new());
    assert_eq!(of(&line, &chain(&second, DEPTH)).len(), 3);
    // Its parent confirmed: then its own death, and that of its child, have no reason.
    assert_eq!(unexplained(&line[1..], &chain(&first, DEPTH)).len(), 4);
    // Another attempt that hangs on no dead parent could still pay.
    let other = attempt(2, "DEAD", &spending(&[coin(5)], 5));
    let alive = [parent, payment("p2", "DEAD", vec![attempt(1, "DEAD", &child), other])];
    assert_eq!(unexplained(&alive, &chain(&second, DEPTH)).len(), 2);
}
