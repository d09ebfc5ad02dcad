//! `onespend-testnet up | down | demo | bench | chaos | chaos-selftest`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use onespend_testnet::{bench, chaos, demo, programs, seed, up};

/// Clusters of real processes on regtest.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster that keeps running, and print how to reach it.
    Up {
        /// Nodes, each with its own bitcoind.
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Where everything lies; emptied if an earlier cluster left it.
        #[arg(long, default_value = "target/up")]
        dir: PathBuf,
        /// Mine a block every so many seconds; 0: never.
        #[arg(long, default_value_t = 5)]
        block_every_s: u64,
        /// What everything random follows from.
        #[arg(long)]
        seed: Option<u64>,
        /// Return when it is ready, and let it run in the background.
        #[arg(long)]
        detach: bool,
    },
    /// Stop the cluster that `up` started.
    Down {
        /// Where it lies.
        #[arg(long, default_value = "target/up")]
        dir: PathBuf,
    },
    /// Pay while the leader is killed, and judge by the chain.
    Demo {
        /// Nodes, each with its own bitcoind.
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Payments in all.
        #[arg(long, default_value_t = 200)]
        payments: usize,
        /// Callers at the same time.
        #[arg(long, default_value_t = 8)]
        callers: usize,
        /// What everything random follows from.
        #[arg(long)]
        seed: Option<u64>,
        /// Where to write the report.
        #[arg(long, default_value = "target/demo/report.json")]
        report: PathBuf,
    },
    /// Measure reserve and release at 1, 16, 64 and 256 callers.
    Bench {
        /// Nodes, each with its own bitcoind.
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// How long each number of callers is measured.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// What everything random follows from.
        #[arg(long)]
        seed: Option<u64>,
        /// Where to write the report.
        #[arg(long, default_value = "target/bench/report.json")]
        report: PathBuf,
    },
    /// Pay, reserve and lie while faults of every kind strike, and judge.
    Chaos {
        /// How long faults strike; from 75 s on every kind of them does.
        #[arg(long, default_value_t = 90)]
        duration_s: u64,
        /// Callers at the same time.
        #[arg(long, default_value_t = 16)]
        callers: usize,
        /// What faults and operations follow from.
        #[arg(long)]
        seed: Option<u64>,
        /// Where to write the report; history and logs lie beside it.
        #[arg(long, default_value = "target/chaos/report.json")]
        report: PathBuf,
    },
    /// Take one guard of the service away after the other: chaos must notice each.
    ChaosSelftest {
        /// What faults and operations follow from.
        #[arg(long)]
        seed: Option<u64>,
        /// Where reports, histories and logs go.
        #[arg(long, default_value = "target/chaos/selftest")]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _nobody_listens = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

// Ctrl-C needs no code here: the default action ends this process at once, and the kernel ends its children.
fn run(command: Command) -> anyhow::Result<()> {
    let or_fresh = |chosen: Option<u64>| chosen.unwrap_or_else(seed::fresh);
    match command {
        Command::Up { nodes, dir, block_every_s, seed, detach } => {
            let plan = up::Plan { nodes, dir, block_every_s, seed: or_fresh(seed) };
            if detach { up::run_detached(&plan) } else { up::run(&plan) }
        }
        Command::Down { dir } => up::down(&dir),
        Command::Demo { nodes, payments, callers, seed, report } => {
            let plan = demo::Plan { nodes, payments, callers, seed: or_fresh(seed) };
            demo::run(plan, Some(&report))
        }
        Command::Bench { nodes, seconds, seed, report } => {
            bench::run(bench::Plan { nodes, seconds, seed: or_fresh(seed) }, Some(&report))
        }
        Command::Chaos { duration_s, callers, seed, report } => chaos::run(&chaos::Plan {
            seed: or_fresh(seed),
            duration: Duration::from_secs(duration_s),
            callers,
            report,
            program: programs::onespend_failpoints()?,
            variables: Vec::new(),
            until_caught: false,
        }),
        Command::ChaosSelftest { seed, dir } => chaos::selftest::run(or_fresh(seed), &dir),
    }
}
