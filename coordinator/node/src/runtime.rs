//! What tasks run on: tokio. Under test, a task of a simulation runs on the simulation's executor instead, with a clock and
//! an order of its own (`simulation/`); a production build contains none of that.
//!
//! What the simulation runs (Raft, the replica, the leader's duties) starts tasks and waits through here alone, and asks here
//! for every time that it acts on. How long something took, for the metrics, may be real.

#[cfg(test)]
pub(crate) use crate::simulation::tasks::{TaskSet, blocking, now, sleep, sleep_until, spawn, timeout, timeout_at};
#[cfg(not(test))]
pub(crate) use on_tokio::{blocking, now};
#[cfg(not(test))]
pub(crate) use tokio::spawn;
#[cfg(not(test))]
pub(crate) use tokio::task::JoinSet as TaskSet;
#[cfg(not(test))]
pub(crate) use tokio::time::{sleep, sleep_until, timeout, timeout_at};

/// Work that was given away has no result: it panicked, or the node stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work ended without a result")]
pub struct WorkLost;

#[cfg(not(test))]
mod on_tokio {
    use tokio::time::Instant;

    use super::WorkLost;

    /// The time, which only moves forward.
    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Does work that may block on a thread for that. It goes on when nobody waits for it any more.
    pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkLost> {
        tokio::task::spawn_blocking(work).await.map_err(|_| WorkLost)
    }
}
