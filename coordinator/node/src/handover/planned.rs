//! Hand-overs that somebody has planned: an operator who names nobody, a drain, the end of the process.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{HandOverReason, hand_to, willing};
use crate::metrics;
use crate::peers::{Peers, Report};
use crate::raft::{LeaderHint, TransferError};
use crate::replica::Replica;
use crate::runtime;

/// Longest hand-over before the end: requests under way need the rest of the time.
const BEFORE_THE_END: Duration = Duration::from_secs(2);
/// How long the others are asked of themselves where the lead goes anyhow: they answer within milliseconds.
const ASK_WITHIN: Duration = Duration::from_millis(200);
/// How often a node that stops looks whether it leads, or nobody does.
const LATE_WIN_POLL: Duration = Duration::from_millis(200);
/// For so many election timeouts no leader is heard before a node that stops stands for election: others need one or two.
const VACANT_FOR: u32 = 5;

/// Whom planned work hands over to: the voters that would take the lead, asked now, those whose bitcoind is in sync
/// first.
pub async fn preferred(replica: &Replica, peers: &Peers) -> Vec<u64> {
    let status = replica.status();
    let reports = peers.reports(&status.others(), ASK_WITHIN).await;
    willing(&status, &reports)
}

/// Whether another member says that it stands for no election; one that does not answer may.
pub async fn abstains(replica: &Replica, peers: &Peers, node_id: u64) -> bool {
    report_of(replica, peers, node_id, ASK_WITHIN).await.is_some_and(|report| report.abstains)
}

/// What another member says of itself now; `None` of this node, and of one that does not answer at once.
pub async fn report_of(replica: &Replica, peers: &Peers, node_id: u64, within: Duration) -> Option<Report> {
    let mut others = replica.status().others();
    others.retain(|member| member.node_id == node_id);
    peers.reports(&others, within.min(ASK_WITHIN)).await.pop()
}

/// Takes this node out of rotation because an operator says so, and gives up the lead if it has it. Requests go on.
/// Tells to whom the lead went, if it did.
///
/// # Errors
/// [`TransferError`]: nobody else would lead. Then the node is in rotation as before.
pub async fn drain(replica: &Replica, peers: &Peers, deadline: Instant) -> Result<Option<u64>, TransferError> {
    if replica.is_drained() && !replica.raft().leads() {
        return Ok(None);
    }
    let status = replica.status();
    let votes = status.voters().any(|id| id == status.node_id);
    let next = preferred(replica, peers).await;
    if votes && next.is_empty() {
        return Err(TransferError::NoSuchVoter);
    }
    let (mut undo, mut handed_to) = (Undo(Some(replica)), None);
    replica.set_drained(true);
    if replica.raft().leads() {
        match hand_to(replica, &next, deadline).await {
            Ok(leader) => {
                metrics::handed_over(HandOverReason::Operator);
                info!(leader = leader.node_id, "leadership handed over: this node is drained");
                handed_to = Some(leader.node_id);
            }
            // Somebody else took over meanwhile.
            Err(_) if !replica.raft().leads() => {}
            Err(error) => return Err(error),
        }
    }
    undo.0 = None;
    Ok(handed_to)
}

/// Puts a node back into rotation whose drain was given up, or whose caller went away meanwhile.
struct Undo<'a>(Option<&'a Replica>);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(replica) = self.0 {
            replica.set_drained(false);
        }
    }
}

/// Hands over because this node stops. One that was elected just now need not be ready to lead for that.
pub async fn before_the_end(replica: &Replica, peers: &Peers, within: Duration) {
    if !replica.raft().leads() {
        return;
    }
    let deadline = Instant::now() + (within / 2).min(BEFORE_THE_END);
    let status = replica.status();
    let reports = peers.reports(&status.others(), ASK_WITHIN).await;
    let to = willing(&status, &reports);
    // One that is drained, or stops, would refuse, and nobody be asked any more.
    let handed = if to.is_empty() && !reports.iter().any(|report| report.abstains) {
        replica.transfer(None, deadline, deadline).await
    } else {
        hand_to(replica, &to, deadline).await
    };
    note_the_end(handed);
}

/// Gives the lead up for as long as this node is finishing its requests: it may have stood for election when it began
/// to stop, and win now; or nobody would take the lead before. Where nobody would, as when all nodes stop, it leads on.
pub async fn while_it_ends(replica: &Replica, peers: &Peers) {
    let mut stood = None;
    loop {
        runtime::sleep(LATE_WIN_POLL).await;
        if !replica.raft().leads() {
            stand_if_nobody_can(replica, &mut stood).await;
            continue;
        }
        let to = preferred(replica, peers).await;
        if !to.is_empty() {
            note_the_end(hand_to(replica, &to, Instant::now() + BEFORE_THE_END).await);
        }
    }
}

/// Stands for election, although this node stops, once no leader was heard for a while: its log may be the only one that
/// can win, and its requests may take long to end. `stood` is when it did so last. While there is a leader after all,
/// the voters refuse, and nothing is changed.
pub async fn stand_if_nobody_can(replica: &Replica, stood: &mut Option<Instant>) {
    let status = replica.status();
    let now = runtime::now().into_std();
    let last = replica.raft().leader_heard_at().max(*stood);
    let quiet = VACANT_FOR * replica.raft().election_timeout();
    let waits = last.is_some_and(|at| now.saturating_duration_since(at) < quiet);
    if waits || !status.voters().any(|id| id == status.node_id) {
        return;
    }
    *stood = Some(now);
    warn!("no leader is heard: this node stands for election although it stops, for its log may be the furthest");
    replica.raft().stand_once().await;
}

fn note_the_end(handed: Result<LeaderHint, TransferError>) {
    match handed {
        Ok(leader) => {
            metrics::handed_over(HandOverReason::Stop);
            info!(leader = leader.node_id, "leadership handed over");
        }
        Err(error) => warn!(%error, "leadership could not be handed over; the others elect a leader"),
    }
}
