//! What every implementation of a port must do. One function per promise; a macro makes a test of each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A check owns its fixture, so that the store is closed when it ends.
#![allow(clippy::needless_pass_by_value)]

pub(crate) mod log;
pub(crate) mod state;
