//! All oracles together: what they can say while the run goes on, and what only in the end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bitcoin::ScriptBuf;
use tokio::runtime::Runtime;

use super::ledger::Ledger;
use super::nodes::Nodes;
use super::recovery;
use super::stage::Stage;
use super::violation::{Oracle, Violation};
use crate::bitcoind::Bitcoind;
use crate::cluster::FINALITY_DEPTH;
use crate::history::{Asked, Call, History, Nanos, PaymentSeen};
use crate::hot;
use crate::oracle::answers::{self, Remains};
use crate::oracle::deaths::{self, Spends};
use crate::oracle::endpoints::{self, ELECTION_TIMEOUT};
use crate::oracle::outputs::{self, Allowed};
use crate::oracle::signer_log::{self, Signature, SignerVerdict};
use crate::oracle::{chain, hashes, intents, refusals, reservations};

/// While the run goes on, a cluster that is cut in pieces cannot list its payments; then they are judged later.
const ONLINE_PATIENCE: Duration = Duration::from_millis(200);
const FINAL_PATIENCE: Duration = Duration::from_secs(30);
/// Above the addresses that were given out before the first caller asked.
const SCRIPTS_BEFORE: u32 = 100;

/// What the oracles judge by.
#[derive(Clone, Copy, Debug)]
pub struct Witnesses<'a> {
    /// The cluster.
    pub stage: &'a Stage,
    /// What callers saw.
    pub history: &'a History,
    /// What they ordered.
    pub ledger: &'a Ledger,
    /// Whom the harness asks.
    pub nodes: &'a Nodes,
    /// Where asking happens.
    pub runtime: &'a Runtime,
}

/// What only the end shows.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// Every payment, when all was quiet.
    pub payments: Vec<PaymentSeen>,
    /// How many of them are settled, by the blocks.
    pub settled: usize,
    /// Everything that is wrong.
    pub violations: Vec<Violation>,
}

impl Witnesses<'_> {
    /// What can be said at any time.
    ///
    /// # Errors
    /// A signer's log cannot be read.
    pub fn so_far(&self) -> Result<Vec<Violation>> {
        // In this order: an intent comes before its signature, and the block that frees a coin before its next grant.
        let (calls, signatures) = (self.history.calls(), self.signatures()?);
        let listed = self.runtime.block_on(self.nodes.payments(ONLINE_PATIENCE)).ok();
        // Blocks that cannot be read now will be later.
        let spends = self.spends().ok();
        let mut found = self.stage.violations().to_vec();
        if let Some(payments) = &listed {
            found.extend(by(Oracle::Signers, &intents::judge(&signatures, payments)));
        }
        if let (Some(payments), Some(spends)) = (&listed, &spends) {
            found.extend(by(Oracle::Callers, &reservations::judge(&calls, &deaths::of(payments, spends))));
            found.extend(by(Oracle::Chain, &deaths::unexplained(payments, spends)));
        }
        if let Some(spends) = &spends {
            found.extend(by(Oracle::Signers, &signed(&signer_log::judge(&signatures, spends))));
        }
        found.extend(by(Oracle::Callers, &answers::judge(&calls)));
        found.extend(by(Oracle::Hashes, &hashes::judge(&self.nodes.hashes())));
        found.extend(self.two_primaries());
        Ok(found)
    }

    /// Everything, when all is quiet. From `calm_ns` on the harness itself reserved coins.
    ///
    /// # Errors
    /// The blocks, the payments or the reservations cannot be read.
    pub fn in_the_end(&self, payments: Vec<PaymentSeen>, calm_ns: Nanos) -> Result<End> {
        let (calls, signatures) = (self.history.calls(), self.signatures()?);
        let asked_ns = self.history.now();
        let active = self.runtime.block_on(self.nodes.active(FINAL_PATIENCE))?;
        let answered_ns = self.history.now();
        let spends = self.spends()?;
        let remains = Remains { payments, active, asked_ns, answered_ns };
        let mut found = self.stage.violations().to_vec();
        let deaths = deaths::of(&remains.payments, &spends);
        found.extend(by(Oracle::Callers, &reservations::judge(&calls, &deaths)));
        found.extend(by(Oracle::Chain, &deaths::unexplained(&remains.payments, &spends)));
        found.extend(by(Oracle::Callers, &answers::judge(&calls)));
        found.extend(by(Oracle::Callers, &answers::judge_remains(&calls, &remains)));
        found.extend(by(Oracle::Callers, &refusals::judge(&calls, &remains.payments, calm_ns)));
        found.extend(by(Oracle::Signers, &signed(&signer_log::judge(&signatures, &spends))));
        found.extend(by(Oracle::Signers, &intents::judge(&signatures, &remains.payments)));
        found.extend(by(Oracle::Hashes, &hashes::judge(&self.nodes.hashes())));
        found.extend(self.two_primaries());
        let (settled, of_chain) = self.by_the_blocks(&calls, &remains.payments, &signatures)?;
        found.extend(of_chain);
        Ok(End { payments: remains.payments, settled, violations: found })
    }

    /// The longest time during which two nodes certainly were primary.
    pub fn longest_overlap(&self) -> Duration {
        endpoints::longest_overlap(&self.stage.primaries().reigns()).map_or(Duration::ZERO, |(overlap, _, _)| overlap)
    }

    fn two_primaries(&self) -> Vec<Violation> {
        let longest = endpoints::longest_overlap(&self.stage.primaries().reigns());
        let too_long = longest.filter(|(overlap, _, _)| *overlap > ELECTION_TIMEOUT);
        let said = too_long.map(|(overlap, one, other)| {
            let at = |moment: Instant| self.history.at(moment) / 1_000_000;
            let (from, until) = (at(one.from.max(other.from)), at(one.until.min(other.until)));
            format!(
                "node {} (term {}) and node {} (term {}) were primary at once for {overlap:?}, from {from} to {until} ms",
                one.node + 1,
                one.term,
                other.node + 1,
                other.term
            )
        });
        by(Oracle::Endpoints, said.as_slice())
    }

    fn signatures(&self) -> Result<Vec<Signature>> {
        Ok(self.logs()?.concat())
    }

    /// What the signer of each node wrote.
    fn logs(&self) -> Result<Vec<Vec<Signature>>> {
        self.stage.cluster().nodes().iter().map(|node| signer_log::read(&node.signer_log())).collect()
    }

    /// Attempts that more than one node signed.
    ///
    /// # Errors
    /// A signer's log cannot be read.
    pub fn signed_by_several(&self) -> Result<usize> {
        Ok(signer_log::signed_by_several(&self.logs()?))
    }

    /// What the blocks spend now, and since when that is final at the earliest.
    fn spends(&self) -> Result<Spends> {
        let finality_depth = usize::try_from(FINALITY_DEPTH)?;
        self.stage.blocks().look(|chronicle| {
            let mined_ns = |place| chronicle.reached(place).map_or(0, |moment| self.history.at(moment));
            Spends::read(chronicle.blocks(), finality_depth, mined_ns)
        })
    }

    fn by_the_blocks(
        &self,
        calls: &[Call],
        payments: &[PaymentSeen],
        signatures: &[Signature],
    ) -> Result<(usize, Vec<Violation>)> {
        let bitcoind = self.stage.cluster().bitcoinds().first().context("no bitcoind")?;
        let blocks = chain::read_blocks(bitcoind, 1)?; // all of them: they say what every coin was worth
        let (orders, own) = (self.ledger.orders()?, self.own_scripts(bitcoind, calls, payments)?);
        let verdict = chain::judge(&blocks, &orders, usize::try_from(FINALITY_DEPTH)?);
        let mut found = Vec::new();
        found.extend(verdict.duplicates.iter().map(|payment| format!("{payment} is paid by several transactions")));
        found.extend(verdict.wrong_amounts.iter().map(|wrong| format!("wrong amount: {wrong}")));
        found.extend(verdict.double_spent.iter().map(|outpoint| format!("{outpoint} is spent for two payments")));
        found.extend(intents::unsigned(&verdict.paid_by, signatures));
        let allowed = Allowed { orders: &orders, own: &own, max_fee: hot::MAX_FEE };
        found.extend(outputs::judge(&blocks, signatures, &allowed));
        let known: BTreeSet<&str> = payments.iter().map(|payment| payment.payment_id.as_str()).collect();
        let foreign = verdict.paid_by.keys().filter(|payment| !known.contains(payment.as_str()));
        found.extend(foreign.map(|payment| format!("{payment} is paid and the service does not know of it")));
        let mut violations = by(Oracle::Chain, &found);
        for payment in payments {
            let settled = verdict.settled.contains(&payment.payment_id);
            if (payment.state == "SETTLED") != settled {
                let by_blocks = if settled { "settled" } else { "not settled" };
                let what = format!("{} is {} and by the blocks {by_blocks}", payment.payment_id, payment.state);
                violations.push(Violation::new(Oracle::Chain, &what));
            }
            if recovery::is_open(payment) {
                let what = format!("{} does not settle: it is {}", payment.payment_id, payment.state);
                violations.push(Violation::new(Oracle::Recovery, &what));
            }
        }
        Ok((verdict.settled.len(), violations))
    }

    /// The wallet's scripts, as bitcoind derives them: all that can have been given out. An index is given out by each
    /// request for an address and by each attempt at most.
    fn own_scripts(
        &self,
        bitcoind: &Bitcoind,
        calls: &[Call],
        payments: &[PaymentSeen],
    ) -> Result<BTreeSet<ScriptBuf>> {
        let asked = calls.iter().filter(|call| call.asked == Asked::Address).count();
        let attempts: usize = payments.iter().map(|payment| payment.attempts.len()).sum();
        let count = u32::try_from(asked + attempts)?.saturating_add(SCRIPTS_BEFORE);
        let mut own = BTreeSet::new();
        for branch in self.stage.cluster().wallet().branches() {
            own.extend(bitcoind.scripts(&branch, count)?);
        }
        Ok(own)
    }
}

fn signed(verdict: &SignerVerdict) -> Vec<String> {
    let twice = verdict.outpoints_for_two_payments.iter().map(|one| format!("{one} is signed away for two payments"));
    let two = verdict.attempts_with_two_transactions.iter();
    let two = two.map(|one| format!("{one} was signed with two transactions, digests or fences"));
    let apart = verdict.payments_without_anchor.iter();
    let apart = apart.map(|one| format!("{one} has attempts without a common coin: both could confirm"));
    twice.chain(two).chain(apart).collect()
}

fn by(oracle: Oracle, found: &[String]) -> Vec<Violation> {
    found.iter().map(|what| Violation::new(oracle, what)).collect()
}
