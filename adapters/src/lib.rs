//! Ports of onespend and their implementations: chain, signer, store.

pub mod store;
