//! The onespend daemon and command line.
//!
//! | module | holds |
//! |---|---|
//! | `app`, `parts` | the composition root: what is built, in which order it starts and ends |
//! | `config`, [`identity`], [`pki`], [`tls`] | settings and certificates |
//! | `grpc` | the servers: who calls, wire to domain and back, refusals to status codes |
//! | `raft` | the only place that names openraft |
//! | `selection`, `replacement` | which coins and fees, over the leader's view |
//! | `leader` | what only the leader does |
//! | [`backup`] | the state of a running node in a file, and a new cluster that begins with one |
//! | `bitcoind` | what is known of this node's bitcoind |
//! | [`cli`] | the command line |
//! | [`health`], `health_feed`, `alarms`, `agreement` | who may be sent what, and why not |
//! | `checks` | configurable checks that health, and who leads, rest on |
//! | `watchdog` | ends a leader that has stalled |
//! | `handover`, `history` | who should lead instead of this node; who led |
//! | [`intake`] | the readers of what comes from outside, for fuzzers |
//! | `survivor`, `incarnation` | a new cluster from what one node is left with; what every new cluster needs that goes on from a state |
//! | `acceptance` | signers that have not accepted the log |
//! | `restored`, `reorganised` | recovery mode, and how a node learns of it; what a deep reorganisation froze |
//! | `runtime` | what tasks run on: tokio, or a simulation under test |
//! | `dial` | connections to other nodes |
//! | `clock` | the wall clock, for people to read |
//! | [`metrics`], [`telemetry`], [`shutdown`] | seeing, and ending |

mod acceptance;
mod agreement;
mod alarms;
pub mod app;
pub mod backup;
mod bitcoind;
mod checks;
pub mod cli;
mod clock;
pub mod config;
mod dial;
mod feature_level;
#[cfg(test)]
mod golden;
mod grpc;
mod handover;
pub mod health;
mod health_feed;
mod history;
pub mod identity;
mod incarnation;
pub mod intake;
mod leader;
pub mod metrics;
mod parts;
mod peers;
pub mod pki;
pub mod raft;
mod reorganised;
mod replacement;
mod replica;
mod restored;
mod room;
mod runtime;
#[cfg(feature = "sabotage")]
mod sabotage;
mod selection;
pub mod shutdown;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod specimen;
mod survivor;
pub mod telemetry;
pub mod tls;
mod watchdog;
