//! Recovery mode: how a node learns that its state may be older than what the cluster did, and tells the others
//! (safety 30).
//!
//! A folder that came out of a backup carries a mark. While it does, an alarm stands from before the node is reachable: it
//! gives out no coins and calls no signer. The node that leads puts the cluster into recovery mode by an entry of the log,
//! and each takes its mark away once it has applied such an entry. `leader/recover.rs` compares the state with bitcoind
//! from there on, and an operator ends it.

use std::sync::Arc;
use std::time::Duration;

use onespend_adapters::store::sqlite::RestoredMark;
use onespend_core::command::Command;
use onespend_core::ids::LogIndex;
use onespend_core::state::State;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::alarms::Alarms;
use crate::health::Alarm;
use crate::replica::Replica;

/// The alarm while the state is not confirmed.
pub const RECOVERY: &str = "RECOVERY_MODE";
/// The alarm while this node's folder is marked.
pub const RESTORED: &str = "RESTORED_FOLDER";
/// How often a mark is looked after, beside at each change of leadership.
const INTERVAL: Duration = Duration::from_millis(500);
/// The event of the audit that says that recovery mode began.
const ENTERED: &str = "enter_recovery";

/// What a human must look at while the state is not confirmed.
pub fn alarm(state: &State) -> Option<Alarm> {
    let recovery = state.recovery()?;
    let compared = match recovery.reconciled {
        Some(at) => format!("compared with bitcoind at height {}", at.height),
        None => "not compared with bitcoind yet".to_owned(),
    };
    let message = format!("nothing is signed until an operator confirms the state ({compared}): {}", recovery.why);
    Some(Alarm { code: RECOVERY, message })
}

/// Puts the cluster into recovery mode, if this node leads it. Whoever notices that the state is behind, such as a signer
/// that remembers more than the state has, calls this. Safe to repeat: it begins once.
pub async fn suspect(replica: &Replica, why: &str) {
    if replica.read(|state| state.recovery().is_some()) {
        return;
    }
    let Some(term) = replica.leader_term() else { return };
    error!(why, "the state may be older than what the cluster did; nothing is signed from now on");
    if let Err(error) = replica.propose_as(&term, Command::EnterRecovery { why: why.to_owned() }).await {
        warn!(%error, "recovery mode has not begun yet");
    }
}

/// Before the node does anything: raises the alarm of a folder that is marked.
pub fn resume(alarms: &Alarms, mark: &RestoredMark) {
    if mark.is_set() {
        alarms.raise(RESTORED, "the data folder came out of a backup, and the cluster is not in recovery mode yet");
    }
}

/// Looks after this node's mark until it is gone, or the token is cancelled.
pub async fn run(replica: Arc<Replica>, mark: RestoredMark, alarms: Arc<Alarms>, stop: CancellationToken) {
    let loaded = replica.read(State::applied);
    let mut leaderships = replica.leaderships();
    while mark.is_set() {
        if replica.read(|state| entered_since(state, loaded)) {
            match mark.clear() {
                Ok(()) => info!("the cluster is in recovery mode; the mark of this folder is gone"),
                Err(error) => warn!(%error, "the mark of the restored folder cannot be taken away"),
            }
        } else {
            suspect(&replica, "the data folder of a node came out of a backup").await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = leaderships.changed() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
    // Also where an operator took the mark away.
    alarms.clear(RESTORED);
}

/// Whether recovery mode is on, or began and ended after this node had loaded its state. An entry that is applied was
/// committed, so it is on the disks of a quorum (safety 29).
fn entered_since(state: &State, loaded: LogIndex) -> bool {
    state.recovery().is_some() || state.audit_after(loaded).any(|(_, record)| record.event == ENTERED)
}
