//! Intake of callers' PSBTs: own cases for every class of fault, the published vectors, and random damage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod damage;
mod faults;
mod specimen;
mod vectors;
