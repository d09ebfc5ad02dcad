//! What only the leader does: read the state, act on the world, propose what came of it.
//!
//! Duties propose under the term that they were started in, so a deposed leader's duties commit nothing.
//!
//! | file | duty |
//! |---|---|
//! | `watch_chain.rs` | blocks into the log (`scripts.rs`, `block_facts.rs`: what they mean for wallets) |
//! | `expire.rs` | reservations past their time |
//! | `sign.rs` | intents without a signature, those of earlier leaders too (`refusals.rs`: how often a refusal is logged) |
//! | `broadcast.rs` | signed transactions until they are in a block |
//! | `recover.rs` | a restored state, compared with bitcoind and the signers until an operator confirms it |

pub(crate) mod block_facts;
pub mod broadcast;
mod expire;
pub(crate) mod recover;
mod refusals;
pub(crate) mod scripts;
pub mod sign;
pub mod watch_chain;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use onespend_adapters::chain::Chain;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::alarms::Alarms;
use crate::bitcoind::BitcoindWatch;
use crate::raft::LeaderTerm;
use crate::replica::Replica;
use crate::runtime::{self, TaskSet};

/// Wait after a duty has panicked: one that panics each time must not keep a processor and the log of errors busy.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

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
        // Facts that are gathered from a state that is wrong, or may be, must not get into the log: what such a state
        // lacks is missing in them too, and the others, whose state may be right, would apply them.
        let doubt = duty.alarms.doubt();
        if let Some(term) = term.filter(|_| doubt.is_none()) {
            info!(term = term.term(), "this node leads");
            start(&mut running, &duty, &term);
        }
        let panicked = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = duty.alarms.doubt_is(true), if !running.is_empty() => false,
            () = duty.alarms.doubt_is(false), if doubt.is_some() => false,
            changed = terms.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
            // Duties run for ever: one that ended has panicked. All are started again.
            Some(ended) = running.join_next() => {
                error!(?ended, "a duty of the leader ended; all are started again after a pause");
                true
            }
        };
        // Dropping the set ends the duties at their next wait; what they had begun at a signer or bitcoind is
        // harmless, because nothing is recorded under an old term.
        drop(running);
        if panicked {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = runtime::sleep(RESTART_PAUSE) => {}
            }
        }
    }
}

fn start(running: &mut TaskSet<()>, duty: &Arc<Duty>, term: &LeaderTerm) {
    running.spawn(watch_chain::run(Arc::clone(duty), term.clone()));
    running.spawn(expire::run(Arc::clone(duty), term.clone()));
    running.spawn(sign::run(Arc::clone(duty)));
    running.spawn(broadcast::run(Arc::clone(duty), term.clone()));
    running.spawn(recover::run(Arc::clone(duty), term.clone()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Instant;

    use bitcoin::Transaction;
    use onespend_adapters::chain::fake::FakeChain;
    use onespend_adapters::signer::{Signer, SignerError};
    use onespend_core::ids::Fence;
    use onespend_core::signing::SigningPermit;
    use onespend_core::wallet::WalletDescriptor;
    use tempfile::TempDir;
    use tokio::sync::watch;

    use super::*;
    use crate::agreement::{MISMATCH, UNDECIDED};
    use crate::grpc::api::Api;
    use crate::specimen::{self, soon};

    /// A signer at which the duty that looks for lost signatures panics, and when it did.
    #[derive(Default)]
    struct Trap(watch::Sender<Vec<Instant>>);

    impl Signer for Trap {
        fn name(&self) -> &'static str {
            "trap"
        }

        fn holds(&self, _: &WalletDescriptor) -> bool {
            true
        }

        fn sign(&self, _: &SigningPermit) -> Result<Transaction, SignerError> {
            Err(SignerError::Unavailable { signer: "trap".to_owned(), why: "it is not asked here".to_owned() })
        }

        fn highest_fence(&self) -> Option<Fence> {
            self.0.send_modify(|times| times.push(Instant::now()));
            panic!("a duty looked");
        }
    }

    fn duty(api: &Api, chain: FakeChain, signer: Arc<dyn Signer>) -> Duty {
        let (outbox, inbox) = broadcast::queue();
        let signing = sign::Signing::new(Arc::clone(&api.replica), vec![signer], outbox, Arc::clone(&api.alarms));
        Duty {
            replica: Arc::clone(&api.replica),
            chain: Arc::new(chain),
            bitcoind: Arc::clone(&api.bitcoind),
            signing: Arc::new(signing),
            inbox,
            alarms: Arc::clone(&api.alarms),
            scripts: api.scripts.clone(),
            network: Network::Regtest,
        }
    }

    /// safety 31: a block that is read by a state that lacks a coin connects without its spend, on all nodes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_duty_runs_while_the_state_is_in_doubt_and_all_do_once_that_is_over() {
        for doubt in [UNDECIDED, MISMATCH] {
            let (folder, chain) = (TempDir::new().unwrap(), FakeChain::new());
            let api = specimen::api(specimen::leader(&folder).await, chain.clone());
            let trap = Arc::new(Trap::default());
            let mut sprung = trap.0.subscribe();
            let stop = CancellationToken::new();
            api.alarms.raise(doubt, "on purpose");
            let duties =
                tokio::spawn(run(Arc::new(duty(&api, chain, Arc::clone(&trap) as Arc<dyn Signer>)), stop.clone()));
            tokio::time::sleep(RESTART_PAUSE / 2).await;
            assert_eq!(trap.0.borrow().len(), 0, "{doubt}: a duty began");

            api.alarms.clear(doubt);
            let begun = tokio::time::timeout_at(soon().into(), sprung.wait_for(|times| !times.is_empty())).await;
            drop(begun.expect("no duty began afterwards").unwrap());
            // It has panicked, and would look again after the pause.
            api.alarms.raise(doubt, "on purpose");
            tokio::time::sleep(RESTART_PAUSE * 2).await;
            assert_eq!(trap.0.borrow().len(), 1, "{doubt}: a duty went on");
            stop.cancel();
            duties.await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_duty_that_panics_is_started_again_after_a_pause_that_ends_with_the_node() {
        let (folder, chain) = (TempDir::new().unwrap(), FakeChain::new());
        let api = specimen::api(specimen::leader(&folder).await, chain.clone());
        let trap = Arc::new(Trap::default());
        let mut sprung = trap.0.subscribe();
        let stop = CancellationToken::new();
        let duties = tokio::spawn(run(Arc::new(duty(&api, chain, trap)), stop.clone()));
        let twice = tokio::time::timeout_at(soon().into(), sprung.wait_for(|times| times.len() >= 2)).await;
        let times = twice.expect("it is not started again").unwrap().clone();
        assert!(times[1] - times[0] >= RESTART_PAUSE, "{times:?}");

        let asked = Instant::now();
        stop.cancel();
        duties.await.unwrap();
        assert!(asked.elapsed() < RESTART_PAUSE, "{:?}", asked.elapsed());
    }
}
