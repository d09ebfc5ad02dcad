//! Ports of onespend and their implementations: chain, signer, store, backup; and the intake of PSBTs.

pub mod backup;
pub mod chain;
#[cfg(feature = "failpoints")]
pub mod failpoints;
pub mod psbt;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod secret_file;
pub mod signer;
pub mod store;
