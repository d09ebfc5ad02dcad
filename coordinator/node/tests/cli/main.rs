//! The command line as a person or a script uses it: the real binary, against nodes in this process that demand
//! mutual TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backup;
mod bitcoind;
mod calls;
mod doctor;
mod failures;
mod files;
mod node;
mod payments;
mod run;
mod signer;
mod signer_log;
// The server of the adapters' suite, which uses more of it.
#[allow(dead_code)]
#[path = "../../../../adapters/tests/backup/server.rs"]
mod server;
mod status;
mod storage;
mod survivor;
