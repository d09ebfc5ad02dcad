//! `failover`: how long until a caller's mutation is acknowledged again, after the leader was killed, frozen or cut off,
//! and after a planned hand-over; by the Rust client, through HAProxy, and by etcd beside it. And how soon a node says at
//! `/primary` whether it may take spends, while it is busiest.
//!
//! | file | holds |
//! |---|---|
//! | `rounds` | one fault after the other, and how long each took |
//! | `etcd` | the same with three processes of etcd |
//! | `prompt` | `/primary` under full load, on a disk that stalls, beside a bitcoind that hangs |
//! | `report` | for machines and people |
//!
//! Measured is the time from the fault to the first mutation that a waiting caller has acknowledged by a later term. So an
//! answer of the old leader that was under way counts for nothing.

mod etcd;
mod prompt;
mod report;
mod rounds;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bitcoin::Amount;
use onespend_proto::v1::Outpoint;
use tokio::runtime::Runtime;

use crate::bench;
use crate::cluster::{Addresses, Cluster, Folder, Node, Setup};
use crate::hot;
use crate::load::{Load, Route};
use crate::programs;
use crate::progress::{Progress, say};

use rounds::Fault;

pub use report::{Answers, Figure, Goal, Onespend, Primary, Report};

/// Nodes of each cluster.
pub const NODES: usize = 3;
/// Callers at the same time, each with a coin and a connection of its own.
const CALLERS: usize = 4;
const COIN: Amount = Amount::from_sat(100_000);
/// etcd's defaults: heartbeat and election timeout, in milliseconds.
const ETCD_DEFAULT_MS: (u64, u64) = (100, 1_000);
/// About as quick as onespend's defaults.
const ETCD_TUNED_MS: (u64, u64) = (30, 300);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Faults of each kind; at least 1.
    pub rounds: usize,
    /// Keys, coins and who takes over follow from it.
    pub seed: u64,
    /// Where to write the report.
    pub report: PathBuf,
}

/// Runs it, prints a table and writes the report.
///
/// # Errors
/// The plan is none, something did not come up, or the judges found a contradiction (the report is written first).
pub fn run(plan: &Plan) -> Result<()> {
    say(&format!("seed {}", plan.seed));
    ensure!(plan.rounds >= 1, "one round at least");
    programs::check_all()?;
    // Before anything is measured in vain.
    programs::onespend_failpoints()?;
    let runtime = Runtime::new().context("no threads")?;
    say(&Figure::heading("to the next mutation, ms"));
    let (mut onespend, haproxy_kill, mut violations) = direct(plan, &runtime)?;
    let (blackhole, more) = cut_off(plan, &runtime)?;
    onespend.blackhole = blackhole;
    violations.extend(more);
    let (etcd_default, etcd_tuned, etcd_missing) = beside(plan)?;
    say(&Figure::heading("to an answer, ms"));
    let primary = prompt::measure(plan, &runtime)?;
    let report = Report {
        seed: plan.seed,
        rounds: plan.rounds,
        goals: Report::goals(&onespend, &haproxy_kill, &primary),
        onespend,
        haproxy_kill,
        primary,
        etcd_default,
        etcd_tuned,
        etcd_missing,
        violations,
    };
    report.write(&plan.report)?;
    say(&format!("  report: {}", plan.report.display()));
    let faults = report.violations;
    ensure!(faults.is_empty(), "{} contradictions:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

/// Everything that strikes a process: without relays in the way.
fn direct(plan: &Plan, runtime: &Runtime) -> Result<(Onespend, Figure, Vec<String>)> {
    let mut stage = Stage::start(plan, runtime, Setting::ordinary(false)?)?;
    let client = Route::Client(stage.cluster.nodes().iter().map(Node::addresses).collect());
    let haproxy = Route::Balancer(stage.cluster.primary_address());
    let onespend = Onespend {
        kill: stage.measure("kill", &client, Fault::Kill)?,
        pause: stage.measure("pause", &client, Fault::Pause)?,
        handover: stage.measure("handover", &client, Fault::Handover)?,
        ..Onespend::default()
    };
    let haproxy_kill = stage.measure("haproxy_kill", &haproxy, Fault::Kill)?;
    Ok((onespend, haproxy_kill, stage.end()?))
}

/// What strikes connections: relays lie in every path.
fn cut_off(plan: &Plan, runtime: &Runtime) -> Result<(Figure, Vec<String>)> {
    let mut stage = Stage::start(plan, runtime, Setting::ordinary(true)?)?;
    let reached =
        |node: &Node| Addresses { data: node.advertised(), control: node.advertised_control(), ..node.addresses() };
    let client = Route::Client(stage.cluster.nodes().iter().map(reached).collect());
    let blackhole = stage.measure("blackhole", &client, Fault::Blackhole)?;
    Ok((blackhole, stage.end()?))
}

type Beside = (Option<Figure>, Option<Figure>, Option<String>);

/// etcd, where it is installed; else why not.
fn beside(plan: &Plan) -> Result<Beside> {
    let Ok(program) = programs::in_path("etcd") else {
        let why = "etcd is not installed (Debian: etcd-server)".to_owned();
        say(&format!("  etcd is not measured: {why}"));
        return Ok((None, None, Some(why)));
    };
    let measure = |name: &'static str, (heartbeat_ms, election_ms)| -> Result<Option<Figure>> {
        let figure = etcd::measure(&program, name, heartbeat_ms, election_ms, plan.rounds)?;
        say(&figure.line(name));
        Ok(Some(figure))
    };
    Ok((measure("etcd_default", ETCD_DEFAULT_MS)?, measure("etcd_tuned", ETCD_TUNED_MS)?, None))
}

/// What a cluster is measured with.
struct Setting {
    program: PathBuf,
    /// Whether relays lie in every path.
    wired: bool,
    /// One for each caller.
    coins: usize,
}

impl Setting {
    /// What is deployed.
    fn ordinary(wired: bool) -> Result<Self> {
        Ok(Self { program: programs::onespend()?, wired, coins: CALLERS })
    }
}

/// A cluster with a wallet, and what its judges found until now.
struct Stage<'a> {
    plan: &'a Plan,
    runtime: &'a Runtime,
    cluster: Cluster,
    coins: Vec<Outpoint>,
    violations: Vec<String>,
}

impl<'a> Stage<'a> {
    fn start(plan: &'a Plan, runtime: &'a Runtime, setting: Setting) -> Result<Self> {
        let mut steps = Progress::steps();
        let Setting { program, wired, coins } = setting;
        let setup = Setup { nodes: NODES, seed: plan.seed, program, variables: Vec::new(), wired };
        let folder = Folder::temporary("failover")?;
        let mut cluster = Cluster::start_as(folder, &setup, &mut |step| steps.step(step))?;
        steps.step("a wallet with coins");
        runtime.block_on(hot::prepare(&mut cluster, coins, COIN))?;
        let coins = runtime.block_on(bench::list_outpoints(&cluster))?;
        Ok(Self { plan, runtime, cluster, coins, violations: Vec::new() })
    }

    fn measure(&mut self, name: &'static str, route: &Route, fault: Fault) -> Result<Figure> {
        let load = Load::start(self.runtime, &self.cluster, name, route, &self.coins)?;
        let times = rounds::strike(fault, self.plan, name, &mut self.cluster, &load, self.runtime)
            .with_context(|| name.to_owned())?;
        let figure = Figure::of(&times, load.counts().failed)?;
        say(&figure.line(name));
        let found = load.finish(self.runtime, &self.cluster)?;
        self.violations.extend(found.into_iter().map(|fault| format!("{name}: {fault}")));
        Ok(figure)
    }

    /// Logs stay where something contradicts.
    fn end(self) -> Result<Vec<String>> {
        if self.violations.is_empty() {
            self.cluster.finish()?;
        }
        Ok(self.violations)
    }
}
