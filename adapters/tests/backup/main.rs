//! What every implementation of `backup::BackupDepot` must do, and what only the one in a bucket must.
//!
//! ```text
//! driver.rs     what a case needs beside the port: a look at what is stored, and damage to it
//! contract.rs   one function per promise, run against the folder and the bucket
//! folder.rs     the folder
//! server.rs     an S3-compatible server on loopback
//! bucket.rs     the bucket on it: parts, interrupted uploads, storages that are away
//! ```
//!
//! The server is the one that `testnet/s3.sh` makes; `$ONESPEND_S3_PYTHON` may name its Python instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod bucket;
mod contract;
mod driver;
mod folder;
mod server;
