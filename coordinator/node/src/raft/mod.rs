//! Raft: the only place that names openraft.

mod codec;
mod lag;
mod log_store;
mod observer;
mod state_machine;
#[cfg(test)]
mod store_tests;
pub mod types;
mod view;

pub use observer::{NoObserver, ProposalEnd, RaftObserver};
pub use view::{HASH_EVERY, HashAt, News, Position, StateView};
