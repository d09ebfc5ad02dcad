//! Ports of onespend and their implementations: chain, signer, store; and the intake of PSBTs.

pub mod chain;
pub mod psbt;
pub mod signer;
pub mod store;
