//! The judges. None of them asks the service: they read what it cannot talk its way out of.

pub mod chain;
pub mod signer_log;
