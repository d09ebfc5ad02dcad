//! Signers that have not accepted the log (safety 8, 30).
//!
//! What a cluster signed after the copy that it goes on from is in no log: only the memories of the signers know it. So
//! each memory must accept the epoch that begins after it, on an operator's word that it knows what it must. The
//! memories of the node that leads do so when recovery mode is confirmed. Until those of another node have, that node
//! asks its signers for nothing, takes no spends, and is handed the lead by nobody.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::alarms::Alarms;
use crate::leader::sign::{NOT_ACCEPTED, Signing, Unaccepted};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks whether a signer of this node has not accepted the log, until the token is cancelled. No signer is asked by
/// mistake meanwhile: that is decided with each permit.
pub async fn run(signing: Arc<Signing>, alarms: Arc<Alarms>, stop: CancellationToken) {
    // What is found at the start was so before.
    let mut lacked = true;
    loop {
        lacked = look(&signing, &alarms, lacked);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Looks once, and says whether a signer lacks it. That is told once it has lasted from one look to the next: the
/// signers of a leader accept an epoch a moment after the entry that begins it is applied.
fn look(signing: &Signing, alarms: &Alarms, lacked: bool) -> bool {
    let unaccepted = signing.unaccepted();
    if unaccepted.is_empty() {
        alarms.clear(NOT_ACCEPTED);
        return false;
    }
    if lacked {
        alarms.raise(NOT_ACCEPTED, &told(&unaccepted));
    }
    true
}

fn told(unaccepted: &[Unaccepted]) -> String {
    let signers: Vec<String> = unaccepted.iter().map(ToString::to_string).collect();
    format!(
        "{}. This node signs nothing until an operator has given it what other memories know (onespend signer merge), \
         or has checked that nothing is missing (onespend signer accept): see \"A signer that has not accepted the log\" \
         in the book of operations",
        signers.join("; ")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tempfile::TempDir;

    use super::*;
    use crate::leader::broadcast;
    use crate::replica::Replica;
    use crate::specimen::{Careful, confirm, leader, recover, soon};

    fn signing(replica: &Arc<Replica>) -> Arc<Signing> {
        let (outbox, _inbox) = broadcast::queue();
        Arc::new(Signing::new(Arc::clone(replica), vec![Arc::new(Careful::default())], outbox, Arc::default()))
    }

    /// safety 8, 30.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_alarm_stands_while_a_signer_has_not_accepted_the_log_and_not_in_recovery_mode() {
        let folder = TempDir::new().unwrap();
        let replica = leader(&folder).await;
        let (signing, alarms) = (signing(&replica), Alarms::default());
        let looked = |lacked| (look(&signing, &alarms, lacked), alarms.stands(NOT_ACCEPTED));
        assert_eq!(looked(true), (false, false), "the cluster began with empty nodes");
        recover(&replica).await;
        assert_eq!(looked(true), (false, false), "the alarm of recovery mode says it");
        confirm(&replica, 1).await;
        assert_eq!(looked(false), (true, false), "its signers may be about to");
        assert_eq!(looked(true), (true, true));
        assert_eq!(alarms.stopping(), Some(NOT_ACCEPTED));
        let message = alarms.current().remove(0).message;
        for said in ["signer careful", "up to epoch 0", "in epoch 1", "onespend signer merge", "onespend signer accept"]
        {
            assert!(message.contains(said), "{said}: {message}");
        }
        recover(&replica).await;
        assert_eq!(looked(true), (false, false), "in recovery mode again");
        confirm(&replica, 2).await;
        assert_eq!(looked(true), (true, true));
        signing.accept(2, "operator/alice");
        assert_eq!(looked(true), (false, false));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_node_starts_with_is_told_and_its_end_as_well() {
        let folder = TempDir::new().unwrap();
        let replica = leader(&folder).await;
        recover(&replica).await;
        confirm(&replica, 1).await;
        let (signing, alarms, stop) = (signing(&replica), Arc::new(Alarms::default()), CancellationToken::new());
        let looking = tokio::spawn(run(Arc::clone(&signing), Arc::clone(&alarms), stop.clone()));
        tokio::time::timeout_at(soon().into(), alarms.raised(NOT_ACCEPTED)).await.unwrap();
        signing.accept(1, "operator/alice");
        let deadline = soon();
        while alarms.stands(NOT_ACCEPTED) {
            assert!(std::time::Instant::now() < deadline, "the alarm stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
        looking.await.unwrap();
    }
}
