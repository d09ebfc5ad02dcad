//! Storage in memory, for tests and simulation: the same contracts, and power failures on demand.

mod log;
mod state;

pub use log::MemoryLog;
pub use state::MemoryState;
