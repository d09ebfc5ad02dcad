//! What only the leader does: read the state, act on the world, propose what came of it.
//!
//! Duties propose under the term that they were started in, so a deposed leader's duties commit nothing.
//!
//! | file | duty |
//! |---|---|
//! | `watch_chain.rs` | blocks into the log (`scripts.rs`, `block_facts.rs`: what they mean for wallets) |
//! | `expire.rs` | reservations past their time |
//! | `sign.rs` | intents without a signature, those of earlier leaders too |
//! | `broadcast.rs` | signed transactions until they are in a block |
//! | `recover.rs` | a restored state, compared with bitcoind until an operator confirms it |

pub(crate) mod block_facts;
pub mod broadcast;
mod expire;
mod recover;
pub(crate) mod scripts;
pub mod sign;
pub mod watch_chain;

use std::sync::Arc;

use bitcoin::Network;
use onespend_adapters::chain::Chain;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::agreement::MISMATCH;
use crate::alarms::Alarms;
use crate::bitcoind::BitcoindWatch;
use crate::raft::LeaderTerm;
use crate::replica::Replica;
use crate::runtime::TaskSet;

/// What duties work with.
pub struct Duty {
    /// The log and the state.
    pub replica: Arc<Replica>,
    /// This node's bitcoind.
    pub chain: Arc<dyn Chain>,
    /// What is known of it.
    pub bitcoind: Arc<BitcoindWatch>,
    /// The way to the signers.
    pub signing: Arc<sign::Signing>,
    /// Freshly signed attempts.
    pub inbox: broadcast::Inbox,
    /// What a human must look at.
    pub(crate) alarms: Arc<Alarms>,
    /// Which script belongs to which wallet.
    pub(crate) scripts: scripts::SharedScripts,
    /// The network of the cluster.
    pub network: Network,
}

/// Runs the duties whenever this node leads, until the token is cancelled.
pub async fn run(duty: Arc<Duty>, stop: CancellationToken) {
    let mut terms = duty.replica.leaderships();
    loop {
        let term = terms.borrow_and_update().leader_term().cloned();
        let mut running = TaskSet::new();
        // Facts that are gathered from a state that most others contradict must not get into the log.
        if let Some(term) = term.filter(|_| !duty.alarms.stands(MISMATCH)) {
            info!(term = term.term(), "this node leads");
            start(&mut running, &duty, &term);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = duty.alarms.raised(MISMATCH), if !running.is_empty() => {}
            changed = terms.changed() => if changed.is_err() { return },
            // Duties run for ever: one that ended has panicked. All are started again.
            Some(ended) = running.join_next() => error!(?ended, "a duty of the leader ended; all are started again"),
        }
        // Dropping the set ends the duties at their next wait; what they had begun at a signer or bitcoind is
        // harmless, because nothing is recorded under an old term.
        drop(running);
    }
}

fn start(running: &mut TaskSet<()>, duty: &Arc<Duty>, term: &LeaderTerm) {
    running.spawn(watch_chain::run(Arc::clone(duty), term.clone()));
    running.spawn(expire::run(Arc::clone(duty), term.clone()));
    running.spawn(sign::run(Arc::clone(duty)));
    running.spawn(broadcast::run(Arc::clone(duty), term.clone()));
    running.spawn(recover::run(Arc::clone(duty), term.clone()));
}
