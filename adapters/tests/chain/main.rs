//! What every implementation of `chain::Chain` must do, and what only the bitcoind adapter must.
//!
//! ```text
//! driver.rs     what a case needs beside the port: mining, forks, a look into the mempool
//! purse.rs      test keys and signed transactions
//! regtest.rs    a real bitcoind in a temporary folder
//! contract/     one case per property, run against bitcoind and the fake
//! bitcoind.rs   credentials, restarts, pauses: real bitcoind only
//! fake.rs       faults on demand: the fake only
//! transport.rs  lost, slow and strange answers: a scripted server instead of bitcoind
//! ```
//!
//! A real bitcoind is taken from `$BITCOIND_EXE` or `PATH`. Without one the tests fail, unless
//! `ONESPEND_SKIP_BITCOIND=1` is set.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    missing_docs
)]

mod bitcoind;
mod contract;
mod driver;
mod fake;
mod purse;
mod regtest;
mod transport;
