//! Proposes the end of reservations that are past their time. Time frees nothing by itself (safety, Time).

use std::sync::Arc;
use std::time::Duration;

use onespend_core::command::Command;
use tracing::debug;

use super::Duty;
use crate::raft::LeaderTerm;
use crate::runtime;

/// How late a reservation may end.
const INTERVAL: Duration = Duration::from_millis(200);
/// Most reservations that one entry ends.
const BATCH: usize = 500;

pub(super) async fn run(duty: Arc<Duty>, term: LeaderTerm) {
    loop {
        let now = duty.replica.now();
        let due = duty.replica.read(|state| state.due_reservations(now, BATCH));
        let full = due.len() == BATCH;
        let mut done = true;
        if !due.is_empty() {
            debug!(count = due.len(), "reservations expire");
            // Lost leadership ends this duty; anything else is tried again in the next round.
            done = duty.replica.propose_as(&term, Command::Expire { reservations: due }).await.is_ok();
        }
        // A proposal that fails may do so without a wait, and the next one would as well.
        if !(full && done) {
            runtime::sleep(INTERVAL).await;
        }
    }
}
