//! `onespend-testnet up | down | demo | bench | chaos | chaos-selftest | routing | failover`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use onespend_testnet::routing::Way;
use onespend_testnet::{bench, chaos, demo, failover, programs, routing, seed, up};

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
        /// Fail when the failover takes as long as this or longer.
        #[arg(long, default_value_t = demo::FAILOVER_GOAL_MS)]
        failover_goal_ms: u64,
    },
    /// Measure reserve and release at several numbers of callers.
    Bench {
        /// Nodes, each with its own bitcoind.
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Callers at the same time, one measurement each.
        #[arg(long, value_delimiter = ',', default_values_t = bench::LEVELS)]
        callers: Vec<usize>,
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
        /// Callers at the same time, 8 to 32.
        #[arg(long, default_value_t = 16)]
        callers: usize,
        /// What faults and operations follow from.
        #[arg(long)]
        seed: Option<u64>,
        /// Where to write the report; history and logs lie beside it.
        #[arg(long, default_value = "target/chaos/report.json")]
        report: PathBuf,
    },
    /// Measure kills, hand-overs and rolling restarts through each load balancer, and without one.
    Routing {
        /// Kills and hand-overs for each way; a rolling restart comes with each five.
        #[arg(long, default_value_t = 20)]
        rounds: usize,
        /// Only these ways: haproxy, haproxy_agent, haproxy_grpc, envoy, envoy_grpc, nginx, client.
        #[arg(long, value_delimiter = ',')]
        only: Vec<Way>,
        /// What everything random follows from.
        #[arg(long)]
        seed: Option<u64>,
        /// Where to write the report.
        #[arg(long, default_value = "target/routing/report.json")]
        report: PathBuf,
    },
    /// Measure how long a caller waits after the leader is killed, frozen, cut off, or hands over, and what /primary takes
    /// while a node is busiest; etcd beside it.
    Failover {
        /// Faults of each kind.
        #[arg(long, default_value_t = 50)]
        rounds: usize,
        /// What everything random follows from.
        #[arg(long)]
        seed: Option<u64>,
        /// Where to write the report.
        #[arg(long, default_value = "target/failover/report.json")]
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
        Command::Demo { nodes, payments, callers, seed, report, failover_goal_ms } => {
            let plan = demo::Plan { nodes, payments, callers, seed: or_fresh(seed), failover_goal_ms };
            demo::run(plan, Some(&report))
        }
        Command::Bench { nodes, callers, seconds, seed, report } => {
            let plan = bench::Plan { nodes, levels: callers, seconds, seed: or_fresh(seed) };
            bench::run(&plan, Some(&report))
        }
        Command::Chaos { duration_s, callers, seed, report } => chaos::run(&chaos::Plan {
            seed: or_fresh(seed),
            duration: Duration::from_secs(duration_s),
            callers,
            report,
            program: programs::onespend_failpoints()?,
            variables: Vec::new(),
            until_caught_by: &[],
        }),
        Command::ChaosSelftest { seed, dir } => chaos::selftest::run(or_fresh(seed), &dir),
        Command::Routing { rounds, only, seed, report } => {
            let ways = if only.is_empty() { Way::all() } else { only };
            routing::run(&routing::Plan { rounds, ways, seed: or_fresh(seed), report })
        }
        Command::Failover { rounds, seed, report } => {
            failover::run(&failover::Plan { rounds, seed: or_fresh(seed), report })
        }
    }
}
