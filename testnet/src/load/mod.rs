//! Closed-loop callers that reserve and release a coin each, over and over, and what they saw of it.
//!
//! Every caller has a connection of its own and keeps the request id while an outcome is unknown, as the interface asks.
//! All that they are told goes into a [`History`] for the oracles.

mod caller;
mod gaps;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use onespend_proto::client::Client;
use onespend_proto::v1::Outpoint;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::chaos::calls::Door;
use crate::chaos::nodes::Nodes;
use crate::cluster::{Addresses, Cluster, Credentials};
use crate::grpc;
use crate::history::{History, Nanos};
use crate::oracle::answers::{self, Remains};
use crate::oracle::deaths::Deaths;
use crate::oracle::reservations;

use caller::{Caller, Way};

pub use gaps::{Ack, Spread, first_of_later_term, longest_gap, ms};

/// A request without an answer for so long has failed; its caller asks on, to learn what became of it.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long answers are waited for after an event, and by the last calls of a load.
const PATIENCE: Duration = Duration::from_mins(1);
const LIST_PATIENCE: Duration = Duration::from_secs(30);
/// Far above what two callers may be out of order by.
const DISORDER_NS: Nanos = 1_000_000_000;
const POLL: Duration = Duration::from_millis(5);

/// How callers reach the service.
#[derive(Clone, Debug)]
pub enum Route {
    /// One address, a load balancer's, with an ordinary gRPC channel that follows nobody.
    Balancer(SocketAddr),
    /// The Rust client, which knows every node.
    Client(Vec<Addresses>),
}

/// What all callers of a load write to.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    history: History,
    acks: Mutex<Vec<Ack>>,
    failed: AtomicU64,
    errors: AtomicU64,
    /// Refusals that no caller here should ever see: each has a coin of its own.
    refused: Mutex<Vec<String>>,
}

/// What happened until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Mutations with a good answer.
    pub acknowledged: u64,
    /// Requests that had no good answer within [`DEADLINE`], all tries included.
    pub failed: u64,
    /// Tries without a good answer: what a caller that does not try again would have seen.
    pub errors: u64,
}

impl Counts {
    /// What happened since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            acknowledged: self.acknowledged - earlier.acknowledged,
            failed: self.failed - earlier.failed,
            errors: self.errors - earlier.errors,
        }
    }
}

/// Callers at work. Dropping it stops them without waiting.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<Client>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts a caller for each coin. `via` is what the history calls their way, and names its file in the cluster's
    /// folder.
    ///
    /// # Errors
    /// A certificate cannot be read, or the history's file cannot be made.
    pub fn start(
        runtime: &Runtime,
        cluster: &Cluster,
        via: &'static str,
        route: &Route,
        coins: &[Outpoint],
    ) -> Result<Self> {
        let history = History::begin(&cluster.folder().join(format!("history-{via}.jsonl")))?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            history,
            acks: Mutex::default(),
            failed: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            refused: Mutex::default(),
        });
        let _inside = runtime.enter();
        let mut load = Self { shared, clients: Vec::new(), tasks: Vec::new() };
        for (number, coin) in coins.iter().enumerate() {
            let way = load.way(via, route, cluster.client())?;
            let caller = Caller::new(number, via, way, coin.clone(), Arc::clone(&load.shared));
            load.tasks.push(runtime.spawn(caller.work()));
        }
        Ok(load)
    }

    fn way(&mut self, via: &str, route: &Route, credentials: &Credentials) -> Result<Way> {
        match route {
            Route::Balancer(address) => Ok(Way::Door(Box::new(Door::new(via, *address, credentials)?))),
            Route::Client(nodes) => {
                let client = grpc::following_client(nodes, credentials)?.with_deadline(DEADLINE);
                self.clients.push(client.clone());
                Ok(Way::Client(client))
            }
        }
    }

    /// The time on the history's clock.
    pub fn now(&self) -> Nanos {
        self.shared.history.now()
    }

    /// Every acknowledgement until now.
    pub fn acks(&self) -> Vec<Ack> {
        self.shared.acks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happened until now.
    pub fn counts(&self) -> Counts {
        let acknowledged = self.shared.acks.lock().unwrap_or_else(PoisonError::into_inner).len();
        // The client hides its tries, and counts them.
        let hidden =
            self.clients.iter().map(Client::stats).map(|stats| stats.tries_without_answer + stats.tries_not_sent);
        Counts {
            acknowledged: u64::try_from(acknowledged).unwrap_or(u64::MAX),
            failed: self.shared.failed.load(Ordering::SeqCst),
            errors: self.shared.errors.load(Ordering::SeqCst) + hidden.sum::<u64>(),
        }
    }

    /// Waits until each caller has so many answers to requests that it first sent after `since`.
    ///
    /// # Errors
    /// One does not get them, or has ended.
    pub fn wait_for_answers(&self, since: Nanos, each: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answers = self.answers_since(since);
            let silent: Vec<usize> =
                answers.iter().enumerate().filter(|(_, count)| **count < each).map(|(caller, _)| caller).collect();
            if silent.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "callers {silent:?} have no answers after {PATIENCE:?}");
            let ended = self.tasks.iter().position(JoinHandle::is_finished);
            ensure!(ended.is_none(), "caller {} has ended: {:?}", ended.unwrap_or_default(), self.refused());
            thread::sleep(POLL);
        }
    }

    /// How many answers each caller has to requests that it first sent after `since`.
    fn answers_since(&self, since: Nanos) -> Vec<usize> {
        let mut counts = vec![0; self.tasks.len()];
        for ack in self.acks_since(since).iter().filter(|ack| ack.asked_ns >= since) {
            if let Some(count) = counts.get_mut(ack.caller) {
                *count += 1;
            }
        }
        counts
    }

    /// Waits for the first acknowledgement of a later term than `term` that came after `from`: when that was.
    ///
    /// # Errors
    /// There is none in time.
    pub fn wait_for_later_term(&self, from: Nanos, term: u64) -> Result<Nanos> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = first_of_later_term(&self.acks_since(from), from, term) {
                return Ok(at);
            }
            ensure!(Instant::now() < deadline, "no mutation of a term after {term} after {PATIENCE:?}");
            thread::sleep(POLL);
        }
    }

    /// The highest term that callers were told of until now; 0 if nobody was told anything.
    pub fn term(&self) -> u64 {
        self.acks_since(self.now().saturating_sub(DISORDER_NS)).iter().map(|ack| ack.term).max().unwrap_or(0)
    }

    /// Those from about then on; some are from before.
    fn acks_since(&self, from: Nanos) -> Vec<Ack> {
        let acks = self.shared.acks.lock().unwrap_or_else(PoisonError::into_inner);
        // They come in the order of time, but for callers that were overtaken on their way to the lock.
        acks.iter().rev().take_while(|ack| ack.at_ns.saturating_add(DISORDER_NS) >= from).copied().collect()
    }

    fn refused(&self) -> Vec<String> {
        self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets every caller finish what it has begun, and judges all that they were told: nothing was granted twice, nothing
    /// that was acknowledged is lost, the same request got the same answer, and every request got one. Returns every
    /// contradiction, in words.
    ///
    /// # Errors
    /// The nodes do not answer the judge, or the history cannot be written.
    pub fn finish(mut self, runtime: &Runtime, cluster: &Cluster) -> Result<Vec<String>> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut faults = Vec::new();
        for task in std::mem::take(&mut self.tasks) {
            let ended = runtime.block_on(task).context("a caller broke")?;
            faults.extend(ended.err().map(|error| format!("{error:#}")));
        }
        let history = &self.shared.history;
        history.finish()?;
        let calls = history.calls();
        let _inside = runtime.enter();
        let asked_ns = history.now();
        let active = runtime.block_on(Nodes::of(cluster)?.active(LIST_PATIENCE))?;
        let answered_ns = history.now();
        let remains = Remains { payments: Vec::new(), active, asked_ns, answered_ns };
        faults.extend(reservations::judge(&calls, &Deaths::new()));
        faults.extend(answers::judge(&calls));
        faults.extend(answers::judge_remains(&calls, &remains));
        Ok(faults)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for task in &self.tasks {
            task.abort();
        }
    }
}
