//! The signer's port: one suite for every implementation, and what is special to each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod contract;
mod golden;
mod ledger;
mod memory;
mod memory_copy;
mod memory_epoch;
mod memory_file;
mod memory_merge;
mod proposal;
mod software;
mod witnesses;
