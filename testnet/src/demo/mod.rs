//! `demo`: a cluster pays while its leader is killed, and the chain says what came of it.
//!
//! Eight callers pay through HAProxy. In the middle the leader is killed with SIGKILL; later it comes back. Blocks are
//! mined all the while. It ends when every payment is settled on the chain and the service says so too.

mod callers;
mod orders;
mod outcome;
mod story;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bitcoin::Amount;
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, Folder};
use crate::hot;
use crate::programs;
use crate::progress::{Progress, say};

pub use outcome::Report;

/// What a demo does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Payments in all.
    pub payments: usize,
    /// Callers at the same time.
    pub callers: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// A failover that takes as long as this fails the run, in milliseconds.
    pub failover_goal_ms: u64,
}

/// What the product promises for a failover.
pub const FAILOVER_GOAL_MS: u64 = 1_500;

/// While payments are made.
const BLOCK_PACE: Duration = Duration::from_secs(1);
/// Each of them can pay the largest order.
const COIN: Amount = Amount::from_sat(5_000_000);
/// Coins beyond one per payment, for those that are exposed and unconfirmed meanwhile.
const SPARE_COINS: usize = 50;

/// Runs it, prints what a person wants to know, and writes the report.
///
/// # Errors
/// Something did not come up or did not end in time, the failover took too long, or the judges found a fault (the report
/// is written first).
pub fn run(plan: Plan, report_file: Option<&Path>) -> Result<()> {
    let started = Instant::now();
    say(&format!("seed {}", plan.seed));
    programs::check_all()?;
    let runtime = Runtime::new().context("no threads")?;
    let folder = Folder::temporary("demo")?;
    let mut steps = Progress::steps();
    let mut cluster = Cluster::start(folder, plan.nodes, plan.seed, &mut |step| steps.step(step))?;
    steps.step("a wallet with coins");
    runtime.block_on(hot::prepare(&mut cluster, plan.payments + SPARE_COINS, COIN))?;
    steps.finish();

    let orders = orders::make(plan.payments, plan.seed)?;
    let first_height = cluster.bitcoinds().first().context("no bitcoind")?.height()? + 1;
    let miner = cluster.start_miner(BLOCK_PACE)?;
    let story = story::play(&mut cluster, &runtime, &orders, plan.callers, &miner, first_height)?;
    drop(miner);

    let findings = outcome::judge(&cluster, &orders, first_height)?;
    let report = outcome::Report::new(&plan, &findings, &story, started.elapsed());
    outcome::print(&report, &findings, &story, plan.failover_goal_ms);
    if let Some(file) = report_file {
        report.write(file)?;
        say(&format!("  report: {}", file.display()));
    }
    findings.must_be_clean(&report, plan.failover_goal_ms)?;
    cluster.finish()
}
