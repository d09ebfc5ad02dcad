//! Ports of onespend and their implementations: chain, signer, store.

pub mod psbt;
pub mod signer;
