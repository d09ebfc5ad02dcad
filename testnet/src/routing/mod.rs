//! `routing`: callers use a cluster through each load balancer of `docs/deploy`, and through the Rust client without one,
//! while its leader is killed, leadership is handed over, and the nodes are restarted one after the other.
//!
//! | file | holds |
//! |---|---|
//! | `events` | what is done to the cluster, and until when |
//! | `report` | for machines and people |
//!
//! The gap of an event is the longest time that one caller went without an acknowledged mutation around it. Callers keep
//! their request id and ask again, as the interface wants it; what somebody who does not would have seen is counted beside.

mod events;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bitcoin::Amount;
use onespend_proto::v1::Outpoint;
use tokio::runtime::Runtime;

use crate::balancer::{Balancer, Kind};
use crate::bench;
use crate::cluster::{Cluster, Folder, Node};
use crate::history::Nanos;
use crate::hot;
use crate::load::{Load, Route};
use crate::programs;
use crate::progress::{Progress, say};
use crate::seed::Seeded;

use events::Scene;

pub use events::cluster_is_whole;
pub use report::{Figures, Report};

/// Nodes of the cluster.
pub const NODES: usize = 3;
/// Callers at the same time, each with a coin and a connection of its own.
const CALLERS: usize = 4;
const COIN: Amount = Amount::from_sat(100_000);
/// A rolling restart takes as long as several of the other events.
const ROUNDS_PER_ROLLING_RESTART: usize = 5;
/// Answers that each caller must have before it begins, and after every event.
const SETTLED: usize = 5;
/// How long an event may take until the cluster is whole again.
const PATIENCE: Duration = Duration::from_mins(1);

/// How callers reach the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Through a load balancer.
    Balanced(Kind),
    /// By the Rust client, which knows every node.
    Client,
}

impl Way {
    /// Every way.
    pub fn all() -> Vec<Self> {
        Kind::ALL.into_iter().map(Self::Balanced).chain([Self::Client]).collect()
    }

    /// What it is called in the report and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Balanced(kind) => kind.name(),
            Self::Client => "client",
        }
    }
}

impl std::str::FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = Self::all().into_iter().map(Self::name).collect();
        let found = Self::all().into_iter().find(|way| way.name() == text);
        found.ok_or_else(|| format!("it must be one of {}", names.join(", ")))
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Kills and hand-overs for each way; at least 1. There is a rolling restart for each five of them.
    pub rounds: usize,
    /// Which ways; at least one.
    pub ways: Vec<Way>,
    /// Which node takes over follows from it, and keys and coins.
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
    let report = play(plan)?;
    report.write(&plan.report)?;
    say(&format!("  report: {}", plan.report.display()));
    let faults = report.violations();
    ensure!(faults.is_empty(), "{} contradictions:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

/// The same without printing the seed, writing or judging: what was measured.
///
/// # Errors
/// The plan is none, or something did not come up.
pub fn play(plan: &Plan) -> Result<Report> {
    ensure!(plan.rounds >= 1, "one round at least");
    ensure!(!plan.ways.is_empty(), "no way to measure");
    programs::check_all()?;
    for way in &plan.ways {
        if let Way::Balanced(kind) = way {
            kind.program()?;
        }
    }
    let runtime = Runtime::new().context("no threads")?;
    let mut steps = Progress::steps();
    let folder = Folder::temporary("routing")?;
    let mut cluster = Cluster::start(folder, NODES, plan.seed, &mut |step| steps.step(step))?;
    steps.step("a wallet with coins");
    runtime.block_on(hot::prepare(&mut cluster, CALLERS, COIN))?;
    let coins = runtime.block_on(bench::list_outpoints(&cluster))?;
    steps.finish();

    let mut report = Report::new(plan);
    let mut random = Seeded::new(plan.seed);
    say(&Figures::heading());
    for way in &plan.ways {
        let figures = measure(plan, *way, &mut cluster, &runtime, &coins, &mut random)
            .with_context(|| format!("by {}", way.name()))?;
        say(&figures.line(way.name()));
        report.add(way.name(), figures);
    }
    // Logs stay where something contradicts.
    if report.violations().is_empty() {
        cluster.finish()?;
    }
    Ok(report)
}

fn measure(
    plan: &Plan,
    way: Way,
    cluster: &mut Cluster,
    runtime: &Runtime,
    coins: &[Outpoint],
    random: &mut Seeded,
) -> Result<Figures> {
    let mut balancer = match way {
        Way::Balanced(kind) => Some(cluster.balance(kind)?),
        Way::Client => None,
    };
    let route = match &balancer {
        Some(balancer) => Route::Balancer(balancer.primary()),
        None => Route::Client(cluster.nodes().iter().map(Node::addresses).collect()),
    };
    let load = Load::start(runtime, cluster, way.name(), &route, coins)?;
    load.wait_for_answers(0, SETTLED)?;
    let file = match way {
        Way::Balanced(kind) => Some(kind.file()),
        Way::Client => None,
    };
    let mut figures = Figures::of(file);
    let mut bar = Progress::count(way.name(), u64::try_from(plan.rounds)?);
    let mut scene = Scene { cluster, load: &load };
    let (mut kills, mut hand_overs): (Vec<Nanos>, Vec<Nanos>) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let before = load.counts();
        kills.push(scene.kill()?);
        let killed = load.counts();
        hand_overs.push(scene.hand_over(random)?);
        let handed = load.counts();
        figures.kill.add(killed.since(before));
        figures.handover.add(handed.since(killed));
        if round.is_multiple_of(ROUNDS_PER_ROLLING_RESTART) {
            figures.rolling_restart_ms.push(scene.rolling_restart()?);
            figures.rolling_restart.add(load.counts().since(handed));
        }
        bar.reach(u64::try_from(round + 1)?);
    }
    bar.finish();
    figures.measured(&kills, &hand_overs)?;
    // Callers need it for what they have begun.
    figures.violations = load.finish(runtime, cluster)?;
    must_still_run(balancer.as_mut())?;
    Ok(figures)
}

/// A balancer that ended by itself would make every figure one of something else.
fn must_still_run(balancer: Option<&mut Balancer>) -> Result<()> {
    balancer.map_or(Ok(()), Balancer::must_run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_known_by_its_name() {
        for way in Way::all() {
            assert_eq!(way.name().parse::<Way>(), Ok(way));
        }
        assert_eq!(Way::all().len(), 7);
        assert!("pigeons".parse::<Way>().is_err_and(|why| why.contains("envoy_grpc")));
    }

    #[test]
    fn nothing_is_started_for_an_empty_plan() {
        let plan = |rounds, ways| Plan { rounds, ways, seed: 1, report: PathBuf::new() };
        assert!(play(&plan(0, Way::all())).is_err_and(|error| error.to_string().contains("round")));
        assert!(play(&plan(1, Vec::new())).is_err_and(|error| error.to_string().contains("no way")));
    }
}
