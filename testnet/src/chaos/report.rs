//! What came of a run: for machines, and for people.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::ledger::Counts;
use super::violation::Violation;
use crate::cluster::FINALITY_DEPTH;
use crate::oracle::endpoints::ELECTION_TIMEOUT;
use crate::progress::say;

/// Violations that are printed; the report has all of them.
const PRINTED: usize = 20;
/// Faults on one line of the summary.
const PER_LINE: usize = 4;

/// `report.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Faults and operations followed from it.
    pub seed: u64,
    /// From the first operation to the end of the faults.
    pub seconds: u64,
    /// What callers did; asking again for the same is not counted again.
    pub ops: u64,
    /// Of these, with a good answer.
    pub acked: u64,
    /// Of these, without any answer to the last.
    pub unknown: u64,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// Payments that the service knows.
    pub payments: usize,
    /// Of these, settled: from the blocks.
    pub settled: usize,
    /// All attempts of all payments.
    pub attempts: usize,
    /// Attempts beyond the first of their payment.
    pub replacements: usize,
    /// Reorganisations: below finality depth, and one that is deeper when all else was judged.
    pub reorgs: u64,
    /// What never may happen and did.
    pub violations: Vec<Violation>,
    /// The longest time during which two nodes said at once that they are primary.
    pub max_primary_overlap_ms: u128,
    /// From the end of the faults until every route took a write and one node was primary; null when that never was.
    pub heal_ms: Option<u128>,
}

/// What people want to know beside the report.
#[derive(Clone, Debug, Default)]
pub struct Aside {
    /// Counts of operations.
    pub counts: Counts,
    /// Payments whose coins came back, as their callers wanted.
    pub cancelled: usize,
    /// Payments that a coin spent elsewhere ended for good, each of them judged.
    pub dead: usize,
    /// Tries in the history.
    pub calls: usize,
    /// Blocks that were judged, from the first that a reorganisation could take back.
    pub blocks: u32,
    /// State hashes that all nodes told of.
    pub hashes: usize,
    /// Everything, from the first process to the verdict.
    pub wall: Duration,
}

impl Report {
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

    /// Prints what a person wants to know first.
    pub fn print(&self, aside: &Aside, folder: &Path) {
        for line in self.summary(aside, folder) {
            say(&line);
        }
    }

    fn summary(&self, aside: &Aside, folder: &Path) -> Vec<String> {
        let count: u64 = self.faults.values().sum();
        let mut lines = vec![
            String::new(),
            format!(
                "  {} operations in {} s under {count} faults of {} kinds",
                self.ops,
                self.seconds,
                self.faults.len()
            ),
            String::new(),
        ];
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind:<20} {count:>3}")).collect();
        lines.extend(faults.chunks(PER_LINE).map(|few| format!("    {}", few.join("   "))));
        lines.extend([
            String::new(),
            format!(
                "    acknowledged   {:>7}   refused {}, and no answer to the last: {}",
                self.acked,
                self.ops - self.acked - self.unknown,
                self.unknown
            ),
            format!(
                "    asked again    {:>7}   operations whose outcome was unknown until the same request id told it",
                aside.counts.resolved
            ),
            format!(
                "    payments       {:>7}   {} attempts, {} replacements; {} blocks, {} reorganisations",
                self.payments, self.attempts, self.replacements, aside.blocks, self.reorgs
            ),
            String::new(),
        ]);
        lines.extend(self.judged(aside));
        lines.extend(self.violations.iter().take(PRINTED).map(|violation| format!("      {violation}")));
        if self.violations.len() > PRINTED {
            lines.push(format!("      and {} more", self.violations.len() - PRINTED));
        }
        lines.extend([
            String::new(),
            format!(
                "  {:.1} s in all, seed {}; history and logs: {}",
                aside.wall.as_secs_f64(),
                self.seed,
                folder.display()
            ),
        ]);
        lines
    }

    /// What must hold, each line with a mark.
    fn judged(&self, aside: &Aside) -> [String; 4] {
        let mark = |good: bool| if good { "✔" } else { "✘" };
        let election = ELECTION_TIMEOUT.as_millis();
        let heal = self.heal_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms"));
        [
            format!(
                "  {} settled        {:>7}   of {} payments, {FINALITY_DEPTH} deep in bitcoind's blocks; {} were cancelled, {} died",
                mark(self.settled + aside.cancelled + aside.dead == self.payments),
                self.settled,
                self.payments,
                aside.cancelled,
                aside.dead
            ),
            format!(
                "  {} two primaries  {:>7}   ms at most, of {election} that an election may take",
                mark(self.max_primary_overlap_ms <= election),
                self.max_primary_overlap_ms
            ),
            format!(
                "  {} healed in    {heal:>9}   after the last fault",
                mark(self.heal_ms.is_some_and(|ms| ms < 10_000))
            ),
            format!(
                "  {} violations     {:>7}   by {} calls, blocks, signers' logs and {} state hashes of all nodes",
                mark(self.violations.is_empty()),
                self.violations.len(),
                aside.calls,
                aside.hashes
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chaos::violation::Oracle;
    use std::collections::BTreeSet;

    #[test]
    fn the_report_has_the_fields_that_are_promised() {
        let json = serde_json::to_value(Report::default()).unwrap();
        let names: BTreeSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let promised = "seed seconds ops acked unknown faults payments settled attempts replacements reorgs violations \
             max_primary_overlap_ms heal_ms";
        assert_eq!(names, promised.split_whitespace().collect());
    }

    #[test]
    fn the_summary_names_every_fault_and_the_first_violations() {
        let violation = Violation::new(Oracle::Chain, "p1 is paid by several transactions");
        let report = Report {
            faults: BTreeMap::from([("kill", 3), ("reorg", 1)]),
            violations: vec![violation; 25],
            ..Report::default()
        };
        let text = report.summary(&Aside::default(), Path::new("target/chaos/run")).join("\n");
        for expected in
            ["kill", "reorg", "under 4 faults of 2 kinds", "chain: p1 is paid", "and 5 more", "healed in        never"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
