//! The mempool of the fake: who is in it and how they are related. `policy.rs` says who may enter.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid};

use super::ledger::Ledger;
use super::policy::{self, Strictness};

pub(super) struct Member {
    pub(super) tx: Transaction,
    pub(super) fee: Amount,
    pub(super) vsize: u64,
    /// Order of entry, in which parents come before children.
    order: u64,
}

#[derive(Default)]
pub(super) struct Mempool {
    members: BTreeMap<Txid, Member>,
    spenders: BTreeMap<OutPoint, Txid>,
    entered: u64,
}

impl Mempool {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn get(&self, txid: &Txid) -> Option<&Member> {
        self.members.get(txid)
    }

    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    /// An output of a member, spent or not.
    pub(super) fn output(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        let member = self.members.get(&outpoint.txid)?;
        member.tx.output.get(usize::try_from(outpoint.vout).ok()?)
    }

    pub(super) fn insert(&mut self, tx: Transaction, fee: Amount, replaced: &BTreeSet<Txid>) {
        for txid in replaced {
            self.remove(txid);
        }
        let txid = tx.compute_txid();
        for input in &tx.input {
            self.spenders.insert(input.previous_output, txid);
        }
        let vsize = policy::vsize(&tx);
        self.entered += 1;
        let member = Member { tx, fee, vsize, order: self.entered };
        self.members.insert(txid, member);
    }

    fn remove(&mut self, txid: &Txid) {
        if let Some(member) = self.members.remove(txid) {
            for input in &member.tx.input {
                self.spenders.remove(&input.previous_output);
            }
        }
    }

    /// Drops a member and its descendants, as a node does that has no room.
    pub(super) fn evict(&mut self, txid: Txid) -> bool {
        let known = self.members.contains_key(&txid);
        for gone in self.descendants([txid]) {
            self.remove(&gone);
        }
        known
    }

    /// All members, parents before children.
    pub(super) fn in_order(&self) -> Vec<Transaction> {
        let mut members: Vec<&Member> = self.members.values().collect();
        members.sort_unstable_by_key(|member| member.order);
        members.into_iter().map(|member| member.tx.clone()).collect()
    }

    /// Keeps what the ledger still allows after it has changed; `returned` are transactions that left the chain.
    pub(super) fn follow(&mut self, ledger: &Ledger, returned: Vec<Transaction>) {
        let before = self.in_order();
        self.members.clear();
        self.spenders.clear();
        for tx in returned.into_iter().chain(before) {
            if let Ok(admission) = policy::judge(&tx, ledger, self, Strictness::AfterReorg) {
                self.insert(tx, admission.fee, &BTreeSet::new());
            }
        }
    }

    pub(super) fn parents(&self, tx: &Transaction) -> BTreeSet<Txid> {
        let sources = tx.input.iter().map(|input| input.previous_output.txid);
        sources.filter(|txid| self.members.contains_key(txid)).collect()
    }

    fn children(&self, txid: Txid) -> BTreeSet<Txid> {
        let outputs = OutPoint { txid, vout: 0 }..=OutPoint { txid, vout: u32::MAX };
        self.spenders.range(outputs).map(|(_, spender)| *spender).collect()
    }

    /// These members and all that descend from them.
    pub(super) fn descendants(&self, of: impl IntoIterator<Item = Txid>) -> BTreeSet<Txid> {
        self.closure(of, |txid| self.children(txid))
    }

    /// These members and all that are connected with them in any way.
    pub(super) fn cluster(&self, of: impl IntoIterator<Item = Txid>) -> BTreeSet<Txid> {
        self.closure(of, |txid| {
            let mut near = self.children(txid);
            near.extend(self.members.get(&txid).map(|m| self.parents(&m.tx)).unwrap_or_default());
            near
        })
    }

    fn closure(&self, of: impl IntoIterator<Item = Txid>, near: impl Fn(Txid) -> BTreeSet<Txid>) -> BTreeSet<Txid> {
        let mut open: Vec<Txid> = of.into_iter().collect();
        let mut found = BTreeSet::new();
        while let Some(txid) = open.pop() {
            if self.members.contains_key(&txid) && found.insert(txid) {
                open.extend(near(txid));
            }
        }
        found
    }
}
