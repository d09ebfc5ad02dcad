//! Ports of onespend and their implementations: chain, signer, store, backup; and the intake of PSBTs.

pub mod backup;
pub mod chain;
// Under test only so that its own tests are among the others: nothing calls it there.
#[cfg(any(test, feature = "failpoints"))]
#[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
pub mod failpoints;
pub mod process_user;
pub mod psbt;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod secret_file;
pub mod signer;
pub mod store;
