//! The wall clock, for people to read. No decision about money rests on it (safety 16): time in the log is logical.

use std::time::SystemTime;

/// What the wall clock says. A harness can make it wrong. (No simulation runs with this feature.)
#[cfg(feature = "failpoints")]
pub(crate) fn wall() -> SystemTime {
    onespend_adapters::failpoints::wall_clock()
}

/// What the wall clock says.
#[cfg(all(not(feature = "failpoints"), not(test)))]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// What the wall clock says; in a simulation that of its first second, so that a run can be repeated.
#[cfg(all(not(feature = "failpoints"), test))]
pub(crate) fn wall() -> SystemTime {
    match crate::simulation::executor::current() {
        Some(executor) => std::time::UNIX_EPOCH + crate::simulation::BEGINS_AT + executor.passed(),
        None => SystemTime::now(),
    }
}
