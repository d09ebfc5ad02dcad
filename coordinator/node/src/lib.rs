//! The onespend daemon and command line.

pub mod cli;
pub mod config;
pub mod health;
pub mod identity;
pub mod metrics;
pub mod pki;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
