//! Ports of onespend and their implementations: chain, signer, store.

pub mod chain;
pub mod signer;
pub mod store;
