//! What bitcoind's blocks say: who was paid, how often, and whether an outpoint was spent twice.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Txid};

use crate::bitcoind::Bitcoind;

/// What was ordered. Every recipient has a script of its own, so an output in a block says which payment it is for.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    by_script: BTreeMap<ScriptBuf, (String, Amount)>,
}

impl Orders {
    /// Adds a recipient of a payment.
    ///
    /// # Errors
    /// The script is a recipient already: blocks could not tell the two apart.
    pub fn add(&mut self, script: ScriptBuf, payment_id: &str, amount: Amount) -> Result<()> {
        let before = self.by_script.insert(script, (payment_id.to_owned(), amount));
        ensure!(before.is_none(), "a script of {payment_id} is ordered twice");
        Ok(())
    }

    /// The payment that a script is paid for.
    pub fn payment_of(&self, script: &ScriptBuf) -> Option<&str> {
        self.by_script.get(script).map(|(id, _)| id.as_str())
    }

    /// The ids of all payments.
    pub fn payment_ids(&self) -> BTreeSet<&str> {
        self.by_script.values().map(|(id, _)| id.as_str()).collect()
    }
}

/// What the blocks say about the orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainVerdict {
    /// Paid by exactly one transaction, every recipient the exact amount, in some block.
    pub confirmed: BTreeSet<String>,
    /// Those of them whose block is at finality depth.
    pub settled: BTreeSet<String>,
    /// Per payment the transactions in blocks that pay it.
    pub paid_by: BTreeMap<String, BTreeSet<String>>,
    /// Paid by more than one transaction.
    pub duplicates: BTreeSet<String>,
    /// A recipient got another amount than was ordered; with the amounts, to read.
    pub wrong_amounts: Vec<String>,
    /// Outpoints that two transactions spend, or that one transaction spends for two payments.
    pub double_spent: BTreeSet<OutPoint>,
}

impl ChainVerdict {
    /// Whether nothing happened that never may (payments may be open still).
    pub fn is_clean(&self) -> bool {
        self.duplicates.is_empty() && self.wrong_amounts.is_empty() && self.double_spent.is_empty()
    }
}

/// Judges the blocks of one chain, the lowest first and the tip last.
pub fn judge(blocks: &[Block], orders: &Orders, finality_depth: usize) -> ChainVerdict {
    let mut ledger = Ledger::default();
    for (below, block) in blocks.iter().rev().enumerate() {
        for transaction in &block.txdata {
            ledger.read(transaction, below + 1, orders);
        }
    }
    ledger.verdict(orders, finality_depth)
}

/// All blocks of a bitcoind's active chain from `first_height` on.
///
/// # Errors
/// A call failed.
pub fn read_blocks(bitcoind: &Bitcoind, first_height: u32) -> Result<Vec<Block>> {
    let tip = bitcoind.height()?;
    (first_height..=tip).map(|height| bitcoind.block_at(height)).collect()
}

#[derive(Default)]
struct Ledger<'a> {
    received: BTreeMap<&'a ScriptBuf, Amount>,
    /// Per payment the transactions that pay it, with their depth: 1 in the tip.
    payers: BTreeMap<&'a str, BTreeMap<Txid, usize>>,
    spenders: BTreeMap<OutPoint, BTreeSet<Txid>>,
    mixed: BTreeSet<OutPoint>,
}

impl<'a> Ledger<'a> {
    fn read(&mut self, transaction: &bitcoin::Transaction, depth: usize, orders: &'a Orders) {
        let txid = transaction.compute_txid();
        let mut paid_here = BTreeSet::new();
        for output in &transaction.output {
            if let Some((script, (payment_id, _))) = orders.by_script.get_key_value(&output.script_pubkey) {
                *self.received.entry(script).or_default() += output.value;
                self.payers.entry(payment_id).or_default().insert(txid, depth);
                paid_here.insert(payment_id);
            }
        }
        if transaction.is_coinbase() {
            return;
        }
        for input in &transaction.input {
            self.spenders.entry(input.previous_output).or_default().insert(txid);
            if paid_here.len() > 1 {
                self.mixed.insert(input.previous_output);
            }
        }
    }

    fn verdict(self, orders: &Orders, finality_depth: usize) -> ChainVerdict {
        let mut verdict = ChainVerdict { double_spent: self.mixed, ..ChainVerdict::default() };
        verdict.double_spent.extend(self.spenders.iter().filter(|(_, by)| by.len() > 1).map(|(outpoint, _)| *outpoint));
        let mut wrong = BTreeSet::new();
        for (script, (payment_id, ordered)) in &orders.by_script {
            let received = self.received.get(script).copied().unwrap_or_default();
            // Nothing at all is an open payment, unless another of its recipients was paid.
            if received != *ordered && self.payers.contains_key(payment_id.as_str()) {
                wrong.insert(payment_id.as_str());
                verdict.wrong_amounts.push(format!("{payment_id}: {received} instead of {ordered} to {script}"));
            }
        }
        for (payment_id, transactions) in &self.payers {
            let txids = transactions.keys().map(Txid::to_string).collect();
            verdict.paid_by.insert((*payment_id).to_owned(), txids);
            if transactions.len() > 1 {
                verdict.duplicates.insert((*payment_id).to_owned());
            } else if !wrong.contains(payment_id) {
                verdict.confirmed.insert((*payment_id).to_owned());
                if transactions.values().all(|depth| *depth >= finality_depth) {
                    verdict.settled.insert((*payment_id).to_owned());
                }
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::oracle::specimen::block;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{Transaction, TxIn, TxOut};

    const DEPTH: usize = 3;

    fn script(number: u8) -> ScriptBuf {
        ScriptBuf::from_bytes(vec![0x51, 0x01, number])
    }

    fn coin(number: u8) -> OutPoint {
        OutPoint::new(Txid::from_byte_array([number; 32]), 0)
    }

    fn sats(amount: u64) -> Amount {
        Amount::from_sat(amount)
    }

    fn transaction(spends: &[u8], pays: &[(u8, u64)]) -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: spends.iter().map(|number| TxIn { previous_output: coin(*number), ..TxIn::default() }).collect(),
            output: pays
                .iter()
                .map(|(to, amount)| TxOut { value: sats(*amount), script_pubkey: script(*to) })
                .collect(),
        }
    }

    /// Payment `p1` of 1000 to script 1; `p2` of 500 and 700 to scripts 2 and 3.
    fn orders() -> Orders {
        let mut orders = Orders::default();
        orders.add(script(1), "p1", sats(1_000)).unwrap();
        orders.add(script(2), "p2", sats(500)).unwrap();
        orders.add(script(3), "p2", sats(700)).unwrap();
        orders
    }

    fn verdict_of(mut blocks: Vec<Block>) -> ChainVerdict {
        blocks.push(block(Vec::new()));
        blocks.push(block(Vec::new()));
        judge(&blocks, &orders(), DEPTH)
    }

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn exact_payments_at_depth_are_settled_and_younger_ones_confirmed() {
        let one = transaction(&[1], &[(1, 1_000), (9, 5)]); // 9: change
        let two = transaction(&[2], &[(2, 500), (3, 700)]);
        let verdict = verdict_of(vec![block(vec![one]), block(vec![two])]);
        assert!(verdict.is_clean());
        assert_eq!(verdict.settled, ids(&["p1", "p2"]));

        let young = vec![block(vec![transaction(&[1], &[(1, 1_000)])]), block(Vec::new())];
        let verdict = judge(&young, &orders(), DEPTH);
        assert_eq!((verdict.confirmed, verdict.settled), (ids(&["p1"]), ids(&[])));
    }

    #[test]
    fn an_unpaid_order_is_open_and_no_fault() {
        let verdict = verdict_of(vec![block(vec![transaction(&[1], &[(9, 1)])])]);
        assert!(verdict.is_clean());
        assert!(verdict.settled.is_empty());
    }

    #[test]
    fn a_payment_made_twice_is_caught_and_not_counted_as_settled() {
        let again = block(vec![transaction(&[2], &[(1, 1_000)])]);
        let verdict = verdict_of(vec![block(vec![transaction(&[1], &[(1, 1_000)])]), again]);
        assert_eq!(verdict.duplicates, ids(&["p1"]));
        assert!(verdict.settled.is_empty());
        assert!(!verdict.is_clean());
    }

    #[test]
    fn a_payment_made_twice_in_one_transaction_is_caught_by_its_amount() {
        let verdict = verdict_of(vec![block(vec![transaction(&[1], &[(1, 1_000), (1, 1_000)])])]);
        assert_eq!(verdict.wrong_amounts.len(), 1);
        assert!(verdict.settled.is_empty());
    }

    #[test]
    fn too_little_too_much_and_a_forgotten_recipient_are_caught() {
        for wrong in [&[(1, 999)][..], &[(1, 1_001)], &[(2, 500)], &[(3, 700)]] {
            let verdict = verdict_of(vec![block(vec![transaction(&[1], wrong)])]);
            assert_eq!(verdict.wrong_amounts.len(), 1, "{wrong:?}");
            assert!(verdict.settled.is_empty(), "{wrong:?}");
        }
    }

    #[test]
    fn an_outpoint_spent_by_two_transactions_is_caught() {
        let first = transaction(&[1, 4], &[(1, 1_000)]);
        let second = transaction(&[2, 4], &[(2, 500), (3, 700)]);
        let verdict = verdict_of(vec![block(vec![first]), block(vec![second])]);
        assert_eq!(verdict.double_spent, BTreeSet::from([coin(4)]));
    }

    #[test]
    fn one_transaction_for_two_payments_is_caught() {
        let verdict = verdict_of(vec![block(vec![transaction(&[1], &[(1, 1_000), (2, 500), (3, 700)])])]);
        assert_eq!(verdict.double_spent, BTreeSet::from([coin(1)]));
    }

    #[test]
    fn coinbases_share_an_input_and_that_is_no_double_spend() {
        let mut coinbase = transaction(&[], &[(9, 1)]);
        coinbase.input = vec![TxIn { previous_output: OutPoint::null(), ..TxIn::default() }];
        let mut other = coinbase.clone();
        other.lock_time = LockTime::from_consensus(7);
        assert!(verdict_of(vec![block(vec![coinbase]), block(vec![other])]).is_clean());
    }

    #[test]
    fn a_script_cannot_stand_for_two_payments() {
        assert!(orders().add(script(1), "p3", sats(1)).is_err());
    }
}
