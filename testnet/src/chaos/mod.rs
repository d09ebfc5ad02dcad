//! `chaos`: callers use a cluster of real processes while faults of every kind strike, and oracles that do not trust the
//! service say whether anything happened that never may.
//!
//! | file | holds |
//! |---|---|
//! | `schedule` | which faults strike when: from the seed |
//! | `operation` | what callers do: from the seed |
//! | `stage`, `failpoints`, `late` | faults struck and ended; those that a node makes up; signatures that come late |
//! | `blocks`, `chronicle` | blocks and reorganisations; which blocks there are, and since when |
//! | `caller`, `calls`, `transaction`, `board`, `ledger` | a caller; one try of one call; PSBTs, also lies; coins; counts |
//! | `nodes` | what the harness asks by itself |
//! | `recovery` | until the cluster works again, and all is settled |
//! | `finale`, `frozen` | a reorganisation deeper than finality, when all else is judged; what is asked in vain then |
//! | `verdict`, `violation` | all oracles together; what they found |
//! | `report`, `folder` | for machines and people; where runs lie |
//! | `selftest` | the same with one guard taken away: the oracles must notice |
//!
//! The same seed plans the same faults and the same operations; how they interleave is up to the machine.

mod blocks;
mod board;
mod caller;
pub(crate) mod calls;
mod chronicle;
pub mod failpoints;
mod finale;
mod folder;
mod frozen;
mod late;
mod ledger;
pub(crate) mod nodes;
mod operation;
mod recovery;
mod report;
mod schedule;
pub mod selftest;
mod stage;
mod transaction;
mod verdict;
mod violation;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::Amount;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::bitcoind::wait_for_same_tip;
use crate::cluster::{Cluster, Node, Setup};
use crate::history::{History, PaymentSeen};
use crate::hot;
use crate::oracle::hashes;
use crate::programs;
use crate::progress::{Progress, say};

use blocks::Blocks;
use board::Board;
use caller::{Caller, World};
use calls::Door;
use chronicle::Chronicle;
use late::Pending;
use ledger::Ledger;
use nodes::Nodes;
use operation::Operations;
use report::Aside;
use schedule::{ALL_KINDS_FROM, Kind, Planned};
use stage::{MAX_REORG, Stage};
use verdict::{End, Witnesses};

pub use calls::payment_seen;
pub use report::Report;
pub use violation::{Oracle, Violation};

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Faults and operations follow from it.
    pub seed: u64,
    /// How long faults strike.
    pub duration: Duration,
    /// Callers at the same time, from [`MIN_CALLERS`] to [`MAX_CALLERS`].
    pub callers: usize,
    /// Where the report goes; the run's folder lies beside it.
    pub report: PathBuf,
    /// What the nodes run, and what is in their environment beside that of the harness.
    pub program: PathBuf,
    /// See `program`.
    pub variables: Vec<(String, String)>,
    /// For a run in which one of these only has to notice something: their first violation ends it, and nothing is healed
    /// or settled. What others find goes into the report. Empty: a whole run.
    pub until_caught_by: &'static [Oracle],
}

/// With fewer, hardly any two want one coin at once, and one or none is buggy: that they find nothing proves nothing.
pub const MIN_CALLERS: usize = 8;
/// More callers than that would only wait for each other.
pub const MAX_CALLERS: usize = 32;
/// Three nodes: the smallest cluster that survives the loss of one.
const NODES: usize = 3;
/// Enough for ten minutes: some are held for long, and some are paid out whole.
const COINS: usize = 1_500;
const COIN: Amount = Amount::from_sat(2_000_000);
const BLOCK_PACE: Duration = Duration::from_secs(1);
/// Fewer operations a second, faults included, mean nothing.
const LEAST_OPS_PER_S: u64 = 25;
/// A cluster that takes longer than this to work again has not healed.
const HEAL_BOUND: Duration = Duration::from_secs(10);
/// How often the oracles look while the run goes on.
const JUDGE_PACE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(10);
/// Callers that ask again give up within this; see `caller.rs`.
const CALLERS_PATIENCE: Duration = Duration::from_secs(40);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For machines.
    pub report: Report,
    /// Who found the first violation, and when, counted from the first operation.
    pub caught: Option<(Oracle, Duration)>,
}

/// Runs it, prints what a person wants to know, and writes the report.
///
/// # Errors
/// Something did not come up, or there are violations (the report is written first).
pub fn run(plan: &Plan) -> Result<()> {
    say(&format!("seed {}", plan.seed));
    let outcome = play(plan)?;
    let count = outcome.report.violations.len();
    ensure!(count == 0, "{count} violations; the first: {}", outcome.report.violations[0]);
    Ok(())
}

/// Runs it and writes the report, whatever was found.
///
/// # Errors
/// Something did not come up, or the harness itself failed.
pub fn play(plan: &Plan) -> Result<Outcome> {
    check_callers(plan.callers)?;
    programs::check_all()?;
    let began = Instant::now();
    let runtime = Runtime::new().context("no threads")?;
    let folder = folder::make(&plan.report, plan.seed)?;
    let path = folder.path().to_path_buf();
    let mut steps = Progress::steps();
    let setup = Setup {
        nodes: NODES,
        seed: plan.seed,
        program: plan.program.clone(),
        variables: plan.variables.clone(),
        wired: true,
    };
    let mut cluster = Cluster::start_as(folder, &setup, &mut |step| steps.step(step))?;
    steps.step("a wallet with coins");
    runtime.block_on(hot::prepare(&mut cluster, COINS, COIN))?;
    bury(&mut cluster)?;
    steps.finish();
    let mut run = Run::begin(plan, cluster, runtime, &path)?;
    run.endure()?;
    let outcome = if plan.until_caught_by.is_empty() { run.conclude(&path, began)? } else { run.abandon()? };
    outcome.report.write(&plan.report)?;
    Ok(outcome)
}

fn check_callers(callers: usize) -> Result<()> {
    let allowed = MIN_CALLERS..=MAX_CALLERS;
    ensure!(allowed.contains(&callers), "a run needs {MIN_CALLERS} to {MAX_CALLERS} callers, not {callers}");
    Ok(())
}

/// Puts the wallet's coins out of reach of every reorganisation: what funded it spends coinbases that had just become
/// mature, and on a shorter chain they would not be, so that the mempools would drop it for good.
fn bury(cluster: &mut Cluster) -> Result<()> {
    let (funds, bitcoind) = cluster.funds()?;
    let miner = funds.script().clone();
    bitcoind.mine(MAX_REORG, &miner)?;
    wait_for_same_tip(cluster.bitcoinds())
}

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    runtime: Runtime,
    stage: Stage,
    history: Arc<History>,
    ledger: Arc<Ledger>,
    nodes: Nodes,
    callers: Vec<JoinHandle<Result<()>>>,
    began: Instant,
    /// When the faults had ended, and links and processes were whole again.
    calm: Instant,
    first_height: u32,
    caught: Option<(Oracle, Duration)>,
    /// What was found at the last look.
    found: Vec<Violation>,
    seconds: u64,
}

impl<'a> Run<'a> {
    fn begin(plan: &'a Plan, mut cluster: Cluster, runtime: Runtime, path: &Path) -> Result<Self> {
        // The first reorganisation may take back blocks from before, and pay in those that replace them.
        let tip = cluster.bitcoinds().first().context("no bitcoind")?.height()?;
        let first_height = tip.saturating_sub(MAX_REORG);
        let script = cluster.funds()?.0.script().clone();
        let blocks = Blocks::start(cluster.bitcoinds(), &script, BLOCK_PACE, Chronicle::new(first_height, tip))?;
        let history = Arc::new(History::begin(&path.join("history.jsonl"))?);
        let (ledger, board) = (Arc::new(Ledger::default()), Board::default());
        let world = World { history: Arc::clone(&history), ledger: Arc::clone(&ledger), board: board.clone() };
        let inside = runtime.enter();
        let nodes = Nodes::of(&cluster)?;
        let data: Vec<_> = cluster.nodes().iter().map(|node| node.addresses().data).collect();
        runtime.spawn(board.follow(data, cluster.client().clone()));
        for node in 0..NODES {
            runtime.spawn(nodes.clone().follow_hashes(node));
        }
        let mut callers = Vec::new();
        for number in 0..plan.callers {
            let doors = doors(&cluster, number)?;
            let caller = Caller::new(number, plan.seed, world.clone(), doors);
            callers.push(runtime.spawn(caller.work(Operations::new(plan.seed, number))));
        }
        drop(inside);
        let stage = Stage::new(cluster, blocks, Pending::of(nodes.clone(), runtime.handle().clone()));
        let (began, caught, found, seconds) = (Instant::now(), None, Vec::new(), 0);
        Ok(Self {
            plan,
            runtime,
            stage,
            history,
            ledger,
            nodes,
            callers,
            began,
            calm: began,
            first_height,
            caught,
            found,
            seconds,
        })
    }

    /// Lets every planned fault strike in its time, and has the oracles look now and then. Ends early when they find
    /// something: then what it came from is not far.
    fn endure(&mut self) -> Result<()> {
        let faults = schedule::plan(self.plan.seed, self.plan.duration, NODES);
        let mut progress = Progress::count("chaos", self.plan.duration.as_secs());
        let mut planned = faults.iter().peekable();
        let mut judged = Instant::now();
        while self.is_to_go_on(planned.peek().is_some()) {
            // First the end of those whose time is over: the next one of their track may be due as well.
            self.stage.tend(&self.history)?;
            let owed = self.stage.take_owed();
            let (now, stage) = (self.began.elapsed(), &self.stage);
            let due = |fault: &&Planned| fault.at <= now && stage.is_ready_for(fault.kind);
            if let Some(fault) = owed.or_else(|| planned.next_if(due).cloned()) {
                self.strike(&fault, &progress)?;
            }
            if judged.elapsed() >= JUDGE_PACE {
                self.look(&progress)?;
                judged = Instant::now();
            }
            progress.reach(self.began.elapsed().as_secs());
            thread::sleep(TICK);
        }
        self.calm = self.stage.calm_down(&self.history)?;
        self.seconds = self.began.elapsed().as_secs();
        progress.finish();
        Ok(())
    }

    /// Until its time is over, every fault has struck, and a late signature has come if one was to come.
    fn is_to_go_on(&self, has_more: bool) -> bool {
        let in_time = self.began.elapsed() < self.plan.duration;
        (in_time || has_more || self.stage.owes_late_signature()) && self.caught.is_none()
    }

    fn strike(&mut self, fault: &Planned, progress: &Progress) -> Result<()> {
        self.stage.strike(fault, &self.history)?;
        let operations = self.ledger.counts().operations;
        progress.note(&format!("{operations:>6} operations  {}", self.stage.weather()));
        Ok(())
    }

    fn look(&mut self, progress: &Progress) -> Result<()> {
        let found = self.witnesses().so_far()?;
        let counts = |violation: &&Violation| {
            self.plan.until_caught_by.is_empty() || self.plan.until_caught_by.contains(&violation.oracle)
        };
        if let Some(first) = found.iter().find(counts) {
            progress.note(&format!("violation: {first}"));
            self.caught = Some((first.oracle, self.began.elapsed()));
        }
        self.found = found;
        Ok(())
    }

    fn witnesses(&self) -> Witnesses<'_> {
        Witnesses {
            stage: &self.stage,
            history: &self.history,
            ledger: &self.ledger,
            nodes: &self.nodes,
            runtime: &self.runtime,
        }
    }

    /// Ends with what was found so far.
    fn abandon(mut self) -> Result<Outcome> {
        self.stage.await_new_node(&self.history, self.calm)?;
        self.ledger.close();
        self.history.finish()?;
        let violations = std::mem::take(&mut self.found);
        let report = self.report(&End::default(), None, violations);
        let caught = self.caught;
        self.runtime.shutdown_background();
        self.stage.end()?;
        Ok(Outcome { report, caught })
    }

    /// Waits until the cluster works again and everything is settled, and judges.
    fn conclude(mut self, path: &Path, began: Instant) -> Result<Outcome> {
        let mut steps = Progress::steps();
        steps.step("until the cluster works again");
        let calm_ns = self.history.now();
        let heal = recovery::heal(self.stage.cluster(), &self.runtime, self.calm)?;
        self.stage.await_new_node(&self.history, self.calm)?;
        steps.step("until every caller has its answers");
        self.ledger.close();
        let mut violations = self.await_callers()?;
        steps.step("until every payment is settled");
        let mut tell = |done: usize, all: usize| steps.step(&format!("{done} of {all} payments are settled"));
        let payments = recovery::settle(&mut self.stage, &self.nodes, &self.runtime, &mut tell)?;
        steps.step("the verdict");
        violations.extend(self.unequal()?);
        let end = self.witnesses().in_the_end(payments, calm_ns)?;
        self.history.finish()?;
        violations.extend(end.violations.iter().chain(&self.found).cloned());
        violations.extend(self.shortcomings(heal, &end.payments)?);
        if violations.is_empty() {
            steps.step("a reorganisation deeper than finality");
            let orders = self.ledger.orders()?;
            let (stage, nodes, runtime) = (&self.stage, &self.nodes, &self.runtime);
            violations.extend(finale::reorganise(stage, nodes, runtime, orders, &end.payments)?);
        }
        steps.finish();
        let violations: BTreeSet<Violation> = violations.into_iter().collect();
        let report = self.report(&end, heal, violations.into_iter().collect());
        report.print(&self.aside(&end, began)?, path);
        if report.violations.is_empty() {
            folder::mark_clean(path)?;
        }
        let caught = self.caught.or_else(|| Some((report.violations.first()?.oracle, self.began.elapsed())));
        self.runtime.shutdown_background();
        self.stage.end()?;
        Ok(Outcome { report, caught })
    }

    /// What keeps the nodes from being the same, when all is settled.
    fn unequal(&self) -> Result<Vec<Violation>> {
        let mut found = Vec::new();
        if !recovery::compare_hashes(self.stage.cluster(), &self.nodes, &self.runtime)? {
            let what = "at no log index after the faults did all nodes tell of a state hash";
            found.push(Violation::new(Oracle::Recovery, what));
        }
        if let Err(applied) = recovery::catch_up(&self.nodes, &self.runtime) {
            let what = format!("the nodes do not come to the same index: {applied:?}");
            found.push(Violation::new(Oracle::Recovery, &what));
        }
        Ok(found)
    }

    fn await_callers(&mut self) -> Result<Vec<Violation>> {
        let mut violations = Vec::new();
        let deadline = Instant::now() + CALLERS_PATIENCE;
        for caller in self.callers.drain(..) {
            let ended = self.runtime.block_on(async { tokio::time::timeout_at(deadline.into(), caller).await });
            if let Ok(ended) = ended {
                ended.context("a caller panicked")?.context("a caller cannot go on")?;
            } else {
                let what = format!("a caller still has no answer {CALLERS_PATIENCE:?} after the faults ended");
                violations.push(Violation::new(Oracle::Recovery, &what));
            }
        }
        Ok(violations)
    }

    /// What the run itself lacked.
    fn shortcomings(&self, heal: Option<Duration>, payments: &[PaymentSeen]) -> Result<Vec<Violation>> {
        let mut found = Vec::new();
        match heal {
            None => found.push(Violation::new(Oracle::Recovery, "the cluster did not heal")),
            Some(took) if took > HEAL_BOUND => {
                let what = format!("the cluster took {took:?} to heal; the bound is {HEAL_BOUND:?}");
                found.push(Violation::new(Oracle::Recovery, &what));
            }
            Some(_) => {}
        }
        if self.caught.is_some() {
            return Ok(found); // it was ended early
        }
        let planned = schedule::plan(self.plan.seed, self.plan.duration, NODES);
        let mut wanted: BTreeSet<&str> = planned.iter().map(|fault| fault.kind.name()).collect();
        if self.plan.duration >= ALL_KINDS_FROM {
            wanted.extend(Kind::ALL.iter().map(|kind| kind.name()));
            if payments.iter().all(|payment| payment.attempts.len() < 2) {
                found.push(Violation::new(Oracle::Run, "no payment was ever replaced"));
            }
            if !self.history.calls().iter().any(|call| call.asked.names_a_time() && call.is_acknowledged()) {
                found.push(Violation::new(Oracle::Run, "nothing was ever granted until a time of the wall clock"));
            }
        }
        let missed: Vec<&str> = wanted.into_iter().filter(|kind| !self.stage.struck().contains_key(kind)).collect();
        if !missed.is_empty() {
            found.push(Violation::new(Oracle::Run, &format!("these faults never struck: {}", missed.join(", "))));
        }
        if self.stage.struck().contains_key(Kind::LateSignature.name()) && self.witnesses().signed_by_several()? == 0 {
            found.push(Violation::new(Oracle::Run, "no signature was late: no attempt was signed on two nodes"));
        }
        let (operations, least) = (self.ledger.counts().operations, self.seconds * LEAST_OPS_PER_S);
        if operations < least {
            let what = format!("only {operations} operations; {least} are the least in {} s", self.seconds);
            found.push(Violation::new(Oracle::Run, &what));
        }
        if self.ledger.counts().acknowledged * 2 < operations {
            found.push(Violation::new(Oracle::Run, "more was refused than done"));
        }
        if hashes::compared(&self.nodes.hashes(), NODES) == 0 {
            found.push(Violation::new(Oracle::Run, "at no log index did all nodes tell of a state hash"));
        }
        Ok(found)
    }

    fn report(&self, end: &End, heal: Option<Duration>, violations: Vec<Violation>) -> Report {
        let counts = self.ledger.counts();
        let attempts: usize = end.payments.iter().map(|payment| payment.attempts.len()).sum();
        let replaced = end.payments.iter().map(|payment| payment.attempts.len().saturating_sub(1));
        Report {
            seed: self.plan.seed,
            seconds: self.seconds,
            ops: counts.operations,
            acked: counts.acknowledged,
            unknown: counts.unknown,
            faults: self.stage.struck().clone(),
            payments: end.payments.len(),
            settled: end.settled,
            attempts,
            replacements: replaced.sum(),
            reorgs: self.stage.blocks().reorgs(),
            violations,
            max_primary_overlap_ms: self.witnesses().longest_overlap().as_millis(),
            heal_ms: heal.map(|took| took.as_millis()),
        }
    }

    fn aside(&self, end: &End, began: Instant) -> Result<Aside> {
        let tip = self.stage.cluster().bitcoinds().first().context("no bitcoind")?.height()?;
        let count = |state| end.payments.iter().filter(|payment| payment.state == state).count();
        Ok(Aside {
            cancelled: count("CANCELLED"),
            dead: count("DEAD"),
            counts: self.ledger.counts(),
            calls: self.history.calls().len(),
            blocks: tip + 1 - self.first_height,
            hashes: hashes::compared(&self.nodes.hashes(), NODES),
            wall: began.elapsed(),
        })
    }
}

/// A caller's ways: to every node by itself, and through HAProxy. Each caller has a certificate of its own.
fn doors(cluster: &Cluster, number: usize) -> Result<Vec<Door>> {
    let credentials = cluster.issue("client", &format!("caller-{number}"))?;
    let nodes = cluster.nodes().iter().map(|node: &Node| (node.name().to_owned(), node.advertised()));
    let all = nodes.chain([("haproxy".to_owned(), cluster.primary_address())]);
    all.map(|(name, address)| Door::new(&name, address, &credentials)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_and_too_many_callers_are_refused() {
        for callers in [0, 1, MIN_CALLERS - 1, MAX_CALLERS + 1] {
            assert!(check_callers(callers).is_err_and(|error| error.to_string().contains("8 to 32")), "{callers}");
        }
        assert!(check_callers(MIN_CALLERS).is_ok() && check_callers(MAX_CALLERS).is_ok());
    }
}
