//! All oracles together: what they can say while the run goes on, and what only in the end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use super::ledger::Ledger;
use super::nodes::Nodes;
use super::recovery;
use super::stage::Stage;
use super::violation::{Oracle, Violation};
use crate::cluster::FINALITY_DEPTH;
use crate::history::{History, PaymentSeen};
use crate::oracle::answers::{self, Remains};
use crate::oracle::endpoints::{self, ELECTION_TIMEOUT};
use crate::oracle::signer_log::{self, Signature, SignerVerdict};
use crate::oracle::{chain, hashes, intents, reservations};

/// While the run goes on, a cluster that is cut in pieces cannot list its payments; then they are judged later.
const ONLINE_PATIENCE: Duration = Duration::from_millis(200);
const FINAL_PATIENCE: Duration = Duration::from_secs(30);

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
        // In this order: an intent comes before its signature, and what frees a coin before its next grant.
        let (calls, signatures) = (self.history.calls(), self.signatures()?);
        let listed = self.runtime.block_on(self.nodes.payments(ONLINE_PATIENCE)).ok();
        let mut found = self.stage.violations().to_vec();
        if let Some(payments) = listed {
            let remains = Remains { payments, ..Remains::default() };
            found.extend(by(Oracle::Signers, &intents::judge(&signatures, &remains.payments)));
            found.extend(by(Oracle::Callers, &reservations::judge(&calls, &remains.dead())));
        }
        found.extend(by(Oracle::Callers, &answers::judge(&calls)));
        found.extend(by(Oracle::Signers, &signed(&signer_log::judge(&signatures))));
        found.extend(by(Oracle::Hashes, &hashes::judge(&self.nodes.hashes())));
        found.extend(self.two_primaries());
        Ok(found)
    }

    /// Everything, when all is quiet. `first_height` is that of the first block after the wallet was funded.
    ///
    /// # Errors
    /// The blocks, the payments or the reservations cannot be read.
    pub fn in_the_end(&self, payments: Vec<PaymentSeen>, first_height: u32) -> Result<End> {
        let (calls, signatures) = (self.history.calls(), self.signatures()?);
        let asked_ns = self.history.now();
        let active = self.runtime.block_on(self.nodes.active(FINAL_PATIENCE))?;
        let answered_ns = self.history.now();
        let remains = Remains { payments, active, asked_ns, answered_ns };
        let mut found = self.stage.violations().to_vec();
        found.extend(by(Oracle::Callers, &reservations::judge(&calls, &remains.dead())));
        found.extend(by(Oracle::Callers, &answers::judge(&calls)));
        found.extend(by(Oracle::Callers, &answers::judge_remains(&calls, &remains)));
        found.extend(by(Oracle::Signers, &signed(&signer_log::judge(&signatures))));
        found.extend(by(Oracle::Signers, &intents::judge(&signatures, &remains.payments)));
        found.extend(by(Oracle::Hashes, &hashes::judge(&self.nodes.hashes())));
        found.extend(self.two_primaries());
        let (settled, of_chain) = self.by_the_blocks(&remains.payments, &signatures, first_height)?;
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
        let logs = self.stage.cluster().nodes().iter().map(|node| signer_log::read(&node.signer_log()));
        Ok(logs.collect::<Result<Vec<_>>>()?.concat())
    }

    fn by_the_blocks(
        &self,
        payments: &[PaymentSeen],
        signatures: &[Signature],
        first_height: u32,
    ) -> Result<(usize, Vec<Violation>)> {
        let bitcoind = self.stage.cluster().bitcoinds().first().context("no bitcoind")?;
        let blocks = chain::read_blocks(bitcoind, first_height)?;
        let orders = self.ledger.orders()?;
        let verdict = chain::judge(&blocks, &orders, usize::try_from(FINALITY_DEPTH)?);
        let mut found = Vec::new();
        found.extend(verdict.duplicates.iter().map(|payment| format!("{payment} is paid by several transactions")));
        found.extend(verdict.wrong_amounts.iter().map(|wrong| format!("wrong amount: {wrong}")));
        found.extend(verdict.double_spent.iter().map(|outpoint| format!("{outpoint} is spent for two payments")));
        found.extend(intents::unsigned(&verdict.paid_by, signatures));
        let known: std::collections::BTreeSet<&str> =
            payments.iter().map(|payment| payment.payment_id.as_str()).collect();
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
