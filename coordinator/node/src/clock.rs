//! The wall clock, for people to read. No decision about money rests on it (safety 16): time in the log is logical.

use std::time::SystemTime;

/// What the wall clock says. A harness can make it wrong.
#[cfg(feature = "failpoints")]
pub(crate) fn wall() -> SystemTime {
    onespend_adapters::failpoints::wall_clock()
}

/// What the wall clock says.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
