//! Three nodes in one process: Raft over real stores, real TLS and real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
// Figures, for whoever runs the tests with --nocapture; nothing is decided on them.
#![allow(clippy::print_stdout)]

mod certificates;
mod cluster;
mod failover;
mod relay;
mod replication;
mod strangers;
mod wallet;
