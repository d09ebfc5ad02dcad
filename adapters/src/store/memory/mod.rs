//! Storage in memory, for tests and simulation: the same contracts, and power failures on demand.

mod log;

pub use log::MemoryLog;
