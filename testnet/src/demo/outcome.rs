//! What came of it: judged from blocks and signers' logs, printed for people, written for machines.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::Plan;
use super::orders::{self, Order};
use super::story::Story;
use crate::cluster::{Cluster, FINALITY_DEPTH};
use crate::oracle::chain::{self, ChainVerdict};
use crate::oracle::deaths::Spends;
use crate::oracle::signer_log::{self, SignerVerdict};
use crate::progress::say;

/// `report.json`.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Report {
    /// Everything random followed from it.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Payments that callers ordered.
    pub payments_requested: usize,
    /// Of these, paid exactly once, exactly, at finality depth: from the blocks.
    pub payments_settled: usize,
    /// Paid more than once, or signed so that they could be: from the blocks and the signers' logs.
    pub duplicate_payments: usize,
    /// Spent twice, or signed away for two payments: from the blocks and the signers' logs.
    pub double_spent_outpoints: usize,
    /// Calls that ended without an answer, and got it later with the same request id.
    pub unknown_outcomes_resolved: usize,
    /// Leaders killed with SIGKILL.
    pub leader_kills: usize,
    /// From the kill to the first mutation of a later term that a caller saw acknowledged; null when there was none.
    pub failover_ms: Option<u128>,
    /// From the start of the first process to here.
    pub wall_s: f64,
}

/// What the judges found.
#[derive(Clone, Debug)]
pub struct Findings {
    chain: ChainVerdict,
    signers: SignerVerdict,
}

impl Findings {
    fn duplicates(&self) -> BTreeSet<String> {
        let could_pay_twice =
            self.signers.payments_without_anchor.iter().chain(&self.signers.attempts_with_two_transactions);
        self.chain.duplicates.iter().chain(could_pay_twice).cloned().collect()
    }

    fn double_spends(&self) -> BTreeSet<String> {
        let on_chain = self.chain.double_spent.iter().map(ToString::to_string);
        on_chain.chain(self.signers.outpoints_for_two_payments.iter().cloned()).collect()
    }

    /// Fails when something happened that never may, or did not happen that should; names everything.
    ///
    /// # Errors
    /// There is such a thing.
    pub fn must_be_clean(&self, report: &Report, failover_goal_ms: u64) -> Result<()> {
        let (duplicates, double_spends) = (self.duplicates(), self.double_spends());
        ensure!(duplicates.is_empty(), "paid twice: {duplicates:?}");
        ensure!(double_spends.is_empty(), "spent twice: {double_spends:?}");
        ensure!(self.chain.wrong_amounts.is_empty(), "wrong amounts: {:?}", self.chain.wrong_amounts);
        let unlogged: Vec<_> = self.chain.confirmed.difference(&self.signers.payments).collect();
        ensure!(unlogged.is_empty(), "paid, but in no signer's log: {unlogged:?}");
        let (settled, requested) = (report.payments_settled, report.payments_requested);
        ensure!(settled == requested, "{settled} of {requested} payments are settled");
        ensure!(report.leader_kills >= 1, "no leader was killed");
        let failover_ms = report.failover_ms.context("no failover was seen")?;
        let quick = is_quick(failover_ms, failover_goal_ms);
        ensure!(quick, "the failover took {failover_ms} ms; it has to be below {failover_goal_ms} ms");
        Ok(())
    }
}

fn is_quick(failover_ms: u128, goal_ms: u64) -> bool {
    failover_ms < u128::from(goal_ms)
}

/// Reads the blocks since `first_height` and every node's signer log.
///
/// # Errors
/// Something cannot be read.
pub fn judge(cluster: &Cluster, orders: &[Order], first_height: u32) -> Result<Findings> {
    let bitcoind = cluster.bitcoinds().first().context("no bitcoind")?;
    let blocks = chain::read_blocks(bitcoind, first_height)?;
    let finality_depth = usize::try_from(FINALITY_DEPTH)?;
    let chain = chain::judge(&blocks, &orders::for_judge(orders)?, finality_depth);
    let mut signatures = Vec::new();
    for node in cluster.nodes() {
        signatures.extend(signer_log::read(&node.signer_log())?);
    }
    let spends = Spends::read(&blocks, finality_depth, |_| 0); // when does not matter for signatures
    Ok(Findings { chain, signers: signer_log::judge(&signatures, &spends) })
}

impl Report {
    /// Puts it together.
    pub fn new(plan: &Plan, findings: &Findings, story: &Story, wall: Duration) -> Self {
        Self {
            seed: plan.seed,
            nodes: plan.nodes,
            payments_requested: plan.payments,
            payments_settled: findings.chain.settled.len(),
            duplicate_payments: findings.duplicates().len(),
            double_spent_outpoints: findings.double_spends().len(),
            unknown_outcomes_resolved: story.unknown_resolved,
            leader_kills: story.leader_kills,
            failover_ms: story.failover.map(|failover| failover.as_millis()),
            wall_s: (wall.as_secs_f64() * 10.0).round() / 10.0,
        }
    }

    /// Writes it as JSON, making the folder when it is missing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Prints what a person wants to know first.
pub fn print(report: &Report, findings: &Findings, story: &Story, failover_goal_ms: u64) {
    for line in summary(report, findings, story, failover_goal_ms) {
        say(&line);
    }
}

fn summary(report: &Report, findings: &Findings, story: &Story, failover_goal_ms: u64) -> Vec<String> {
    let mark = |good: bool| if good { "✔" } else { "✘" };
    let all = report.payments_settled == report.payments_requested;
    let failover = report.failover_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms"));
    let quick = report.failover_ms.is_some_and(|ms| is_quick(ms, failover_goal_ms));
    let mut latencies = story.latencies.clone();
    latencies.sort_unstable();
    vec![
        String::new(),
        format!(
            "  {} nodes, {} payments, {} leader killed, {} blocks mined",
            report.nodes, report.payments_requested, report.leader_kills, story.blocks
        ),
        String::new(),
        format!(
            "  {} settled          {:>5} of {}   in bitcoind's blocks, {FINALITY_DEPTH} deep",
            mark(all),
            report.payments_settled,
            report.payments_requested
        ),
        format!(
            "  {} paid twice       {:>5}          in bitcoind's blocks and the signers' logs",
            mark(report.duplicate_payments == 0),
            report.duplicate_payments
        ),
        format!(
            "  {} coins spent twice{:>5}          of {} signatures",
            mark(report.double_spent_outpoints == 0),
            report.double_spent_outpoints,
            findings.signers.signatures
        ),
        format!(
            "  {} failover      {failover:>8}          from kill -9 to the next payment that a caller saw accepted",
            mark(quick)
        ),
        format!(
            "    unknown outcomes {:>5}          each resolved by asking again with the same request id",
            report.unknown_outcomes_resolved
        ),
        format!(
            "    a payment took {:>4} ms          in the middle, {} ms at worst; all of them {:.1} s",
            percentile(&latencies, 50).as_millis(),
            percentile(&latencies, 100).as_millis(),
            story.paying.as_secs_f64()
        ),
        String::new(),
        format!("  {:.1} s in all, seed {}", report.wall_s, report.seed),
    ]
}

/// Of a sorted list; zero when it is empty.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOAL_MS: u64 = 1_500;

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn clean() -> (Findings, Report) {
        let chain = ChainVerdict { confirmed: ids(&["p1"]), settled: ids(&["p1"]), ..ChainVerdict::default() };
        let signers = SignerVerdict { signatures: 1, payments: ids(&["p1"]), ..SignerVerdict::default() };
        let findings = Findings { chain, signers };
        (findings.clone(), report_of(&findings))
    }

    fn report_of(findings: &Findings) -> Report {
        let plan = Plan { nodes: 3, payments: 1, callers: 1, seed: 7, failover_goal_ms: GOAL_MS };
        let story = Story { leader_kills: 1, failover: Some(Duration::from_millis(420)), ..Story::default() };
        Report::new(&plan, findings, &story, Duration::from_millis(12_340))
    }

    #[test]
    fn the_report_has_the_fields_that_are_promised() {
        let json = serde_json::to_value(clean().1).unwrap();
        let names: BTreeSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let promised = "seed nodes payments_requested payments_settled duplicate_payments double_spent_outpoints \
             unknown_outcomes_resolved leader_kills failover_ms wall_s";
        assert_eq!(names, promised.split_whitespace().collect());
        assert_eq!((&json["failover_ms"], &json["wall_s"]), (&420.into(), &12.3.into()));
    }

    #[test]
    fn a_clean_run_passes_and_every_fault_fails_it() {
        let (findings, report) = clean();
        findings.must_be_clean(&report, GOAL_MS).unwrap();
        let faults: [fn(&mut Findings); 7] = [
            |findings| findings.chain.duplicates = ids(&["p1"]),
            |findings| findings.chain.wrong_amounts = vec!["p1".into()],
            |findings| findings.chain.double_spent = BTreeSet::from([bitcoin::OutPoint::null()]),
            |findings| findings.chain.settled.clear(),
            |findings| findings.signers.outpoints_for_two_payments = ids(&["c:0"]),
            |findings| findings.signers.payments_without_anchor = ids(&["hot/p1"]),
            |findings| findings.signers.payments.clear(), // the log was not read: nothing was judged
        ];
        for (number, fault) in faults.iter().enumerate() {
            let mut faulty = findings.clone();
            fault(&mut faulty);
            assert!(faulty.must_be_clean(&report_of(&faulty), GOAL_MS).is_err(), "fault {number}");
        }
        let unseen = Report { failover_ms: None, ..report };
        assert!(findings.must_be_clean(&unseen, GOAL_MS).is_err());
    }

    #[test]
    fn a_failover_that_is_not_below_its_goal_fails_the_run_and_is_marked() {
        let (findings, report) = clean(); // 420 ms
        findings.must_be_clean(&report, 421).unwrap();
        let failed = findings.must_be_clean(&report, 420).unwrap_err().to_string();
        assert!(failed.contains("420 ms"), "{failed}");
        let marked = |goal_ms| {
            let lines = summary(&report, &findings, &Story::default(), goal_ms);
            lines.into_iter().find(|line| line.contains("failover")).unwrap()
        };
        assert!(marked(421).contains('✔') && marked(420).contains('✘'));
    }

    #[test]
    fn the_report_is_written_into_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/report.json");
        clean().1.write(&file).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains("\"payments_settled\": 1"));
    }
}
