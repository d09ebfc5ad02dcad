//! Three nodes in one thread, whose every accident a seed decides: which task goes on, how long messages and disks take,
//! who dies when and loses what was not synced. What runs is the real thing (Raft, the log and state machine, proposals,
//! the replica, the leader's duties, the software signer, the core) on stores in memory and a chain that is imagined.
//! The same seed gives the same run, step by step.
//!
//! | file | holds |
//! |---|---|
//! | `executor`, `tasks` | tasks, time and chance; `crate::runtime` under test |
//! | `sky` | what happens to messages; `raft/simulated` carries them |
//! | `machine` | one node and its disk: started, stopped, killed, paused |
//! | `world` | the machines, the chain and the signers of one run |
//! | `callers` | who pays |
//! | `faults` | what goes wrong |
//! | `judge` | what must hold, at every moment and at the end |
//! | `primaries` | who says at the same time that it may take spends |
//! | `story` | one run from its seed to its verdict |
//! | `membership` | members that come and go, on nodes of which nothing runs but Raft |
//! | `stopping` | a node that is about to stop, on such nodes |
//!
//! ```text
//! ONESPEND_SIMULATION_SEED=7 ONESPEND_SIMULATIONS=1000   the first seed and how many, of `make simulate`
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod callers;
pub(crate) mod executor;
mod faults;
mod judge;
mod machine;
mod membership;
mod primaries;
mod sky;
mod stopping;
mod story;
pub(crate) mod tasks;
mod verdict;
mod world;

use std::time::Duration;

/// The wall clock when a simulation begins, since 1970: in 2027.
pub(crate) const BEGINS_AT: Duration = Duration::from_hours(500_000);
