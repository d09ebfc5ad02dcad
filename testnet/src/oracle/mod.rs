//! The judges. None of them believes the service: they read what it cannot talk its way out of, and hold its answers
//! against each other.

pub mod chain;
pub mod endpoints;
pub mod signer_log;
