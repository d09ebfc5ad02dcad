//! The judges. None of them believes the service: they read what it cannot talk its way out of, and hold its answers
//! against each other.

pub mod answers;
pub mod chain;
pub mod deaths;
pub mod endpoints;
pub mod hashes;
pub mod intents;
pub mod outputs;
pub mod refusals;
pub mod reservations;
pub mod signer_log;
#[cfg(test)]
mod specimen;
