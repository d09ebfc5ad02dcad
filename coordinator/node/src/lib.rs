//! The onespend daemon and command line.

pub mod raft;
