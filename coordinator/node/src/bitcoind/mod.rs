//! What this node knows of its own bitcoind. Two threads ask it, because it answers blocking; everybody else reads
//! what they last heard, so no request ever waits for an RPC.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the two threads and what they publish |
//! | `probe.rs` | one probe: facts, and whether they can be relied on |
//! | `fees.rs` | fee estimates |
//! | `scan.rs`, `outpoints.rs` | a new wallet's coins at a tip, and single ones |
//! | `view.rs` | how callers are shown it |

mod fees;
mod outpoints;
mod probe;
mod scan;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network};
use onespend_adapters::chain::{Chain, ChainView, TipRef};
use onespend_core::state::State;
use tokio::sync::watch;
use tracing::{info, warn};

pub use outpoints::LookupError;

use crate::health::Progress;
use crate::health::bitcoind_sync::{Judgement, Rules};

/// How long one wait for a new tip lasts at most.
const TIP_WAIT: Duration = Duration::from_secs(10);
/// Wait after a failed call.
const PAUSE: Duration = Duration::from_millis(500);
/// How often fee estimates are asked for.
const FEE_INTERVAL: Duration = Duration::from_secs(30);
/// How often a thread looks whether it should end.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// Longest turn of a thread: a wait for the tip, or a few calls at their time limits.
const LONGEST_TURN: Duration = Duration::from_secs(90);

/// How long it counts what another node's bitcoind was heard to have; the others are asked every two seconds.
const HEIGHT_MAX_AGE: Duration = Duration::from_secs(10);

/// Reads the replicated state.
pub type ReadState = Arc<dyn Fn(&mut dyn FnMut(&State)) + Send + Sync>;

/// How to judge.
pub struct Settings {
    /// The cluster's network.
    pub network: Network,
    /// When it is in sync.
    pub rules: Rules,
    /// How often it is probed.
    pub poll: Duration,
}

/// What was last heard.
#[derive(Debug, Clone, Default)]
struct Heard {
    judgement: Judgement,
    view: Option<ChainView>,
    answered: Option<Instant>,
    error: Option<String>,
    fees: fees::Fees,
}

/// The watch over this node's bitcoind.
pub struct BitcoindWatch {
    chain: Arc<dyn Chain>,
    read: ReadState,
    network: Network,
    rules: Rules,
    poll: Duration,
    max_age: Duration,
    heard: ArcSwap<Heard>,
    /// The highest tip of the other nodes' bitcoinds, and when it was heard of.
    others: ArcSwapOption<(u32, Instant)>,
    tips: watch::Sender<Option<TipRef>>,
    stop: AtomicBool,
}

impl BitcoindWatch {
    /// Nothing is asked before [`BitcoindWatch::start`].
    pub fn new(chain: Arc<dyn Chain>, read: ReadState, settings: Settings) -> Arc<Self> {
        let Settings { network, rules, poll } = settings;
        Arc::new(Self {
            chain,
            read,
            network,
            max_age: rules.max_silence + poll * 2,
            rules,
            poll,
            heard: ArcSwap::default(),
            others: ArcSwapOption::empty(),
            tips: watch::channel(None).0,
            stop: AtomicBool::new(false),
        })
    }

    /// Starts the two threads.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(self: &Arc<Self>, progress: &Progress) -> std::io::Result<Threads> {
        let probing = Arc::clone(self);
        let beat = progress.register("bitcoind-probe", LONGEST_TURN);
        let probe = std::thread::Builder::new().name("bitcoind-probe".to_owned()).spawn(move || {
            probing.probe_loop(&mut || beat.beat());
            beat.finish();
        })?;
        let waiting = Arc::clone(self);
        let beat = progress.register("bitcoind-tip", LONGEST_TURN);
        let tip = std::thread::Builder::new().name("bitcoind-tip".to_owned()).spawn(move || {
            waiting.tip_loop(&mut || beat.beat());
            beat.finish();
        })?;
        Ok(Threads { watch: Arc::clone(self), threads: vec![probe, tip] })
    }

    /// Takes in the height of the highest tip that the other nodes' bitcoinds have, as heard at `at`.
    pub fn hear_of_height(&self, highest: u32, at: Instant) {
        self.others.store(Some(Arc::new((highest, at))));
    }

    /// That height, while it is fresh: a claim that nobody repeats must not keep this node out of sync.
    fn height_of_others(&self, now: Instant) -> Option<u32> {
        let heard = self.others.load_full()?;
        let (highest, at) = *heard;
        (now.saturating_duration_since(at) <= HEIGHT_MAX_AGE).then_some(highest)
    }

    /// The tips of this node's bitcoind as they come.
    pub fn tips(&self) -> watch::Receiver<Option<TipRef>> {
        self.tips.subscribe()
    }

    /// Whether coins may be given out on what this bitcoind says.
    ///
    /// # Errors
    /// The reason why not, as a stable word.
    pub fn in_sync(&self) -> Result<(), String> {
        let heard = self.heard.load();
        // A probe that hangs must not go on vouching for what it said last.
        if heard.answered.is_none_or(|at| at.elapsed() > self.max_age) {
            return Err("BITCOIND_VIEW_STALE".to_owned());
        }
        if let Some(lag) = self.log_lag(&heard) {
            return Err(format!("LOG_BEHIND_{lag}_BLOCKS"));
        }
        if heard.judgement.in_sync {
            return Ok(());
        }
        Err(heard.judgement.reason.map_or("NOT_PROBED", |reason| reason.word()).to_owned())
    }

    /// Blocks that the log lacks of what this bitcoind has, when they are more than a moment's worth: the leader cannot
    /// follow the chain, and coins must not be given out on an old view of it.
    fn log_lag(&self, heard: &Heard) -> Option<u32> {
        let height = heard.view.as_ref()?.tip.height;
        let mut logged = None;
        (self.read)(&mut |state| logged = state.tip().ok().map(|tip| tip.height.0));
        let lag = height.saturating_sub(logged?);
        (lag > self.rules.max_lag_blocks).then_some(lag)
    }

    /// Whether its blocks may go into the log: it answers, on the right chain, past its first download. A fork is
    /// for the log to follow or not.
    pub fn may_follow(&self) -> bool {
        use crate::health::bitcoind_sync::SyncReason as Reason;
        !matches!(
            self.heard.load().judgement.reason,
            Some(
                Reason::NotProbed
                    | Reason::Starting
                    | Reason::Unauthorized
                    | Reason::Timeout
                    | Reason::Unreachable
                    | Reason::WrongChain
                    | Reason::WrongGenesis
                    | Reason::InitialBlockDownload
            )
        )
    }

    /// The judgement as health shows it.
    pub fn health(&self) -> crate::health::BitcoindView {
        self.heard.load().judgement.view()
    }

    fn probe_loop(&self, beat: &mut dyn FnMut()) {
        let mut next_fees = Instant::now();
        while !self.stopping() {
            let mut heard = Heard::clone(&self.heard.load());
            let was = heard.judgement.in_sync;
            let answered = self.probe(&mut heard);
            match (was, heard.judgement.in_sync) {
                (false, true) => info!(height = heard.judgement.view().height, "bitcoind is in sync"),
                (true, false) => warn!(reason = ?heard.judgement.reason, "bitcoind is not in sync"),
                (true, true) | (false, false) => {}
            }
            let in_sync = heard.judgement.in_sync;
            self.heard.store(Arc::new(heard.clone()));
            beat();
            // Only of a bitcoind that answers: one that hangs would hold up the next probe ten times over.
            if answered && Instant::now() >= next_fees {
                heard.fees = fees::ask(self.chain.as_ref(), heard.view.as_ref());
                self.heard.store(Arc::new(heard));
                next_fees = Instant::now() + FEE_INTERVAL;
            }
            // A tip that was not heard of yet is looked at sooner.
            self.sleep(if in_sync { self.poll } else { self.poll.min(PAUSE) });
        }
    }

    fn tip_loop(&self, beat: &mut dyn FnMut()) {
        while !self.stopping() {
            let current = self.tips.borrow().map_or_else(BlockHash::all_zeros, |tip| tip.hash);
            match self.chain.wait_tip(current, TIP_WAIT) {
                Ok(tip) => self.publish(tip),
                Err(_) => self.sleep(PAUSE),
            }
            beat();
        }
    }

    fn publish(&self, tip: TipRef) {
        self.tips.send_if_modified(|known| {
            let changed = *known != Some(tip);
            *known = Some(tip);
            changed
        });
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn sleep(&self, length: Duration) {
        let end = Instant::now() + length;
        while !self.stopping() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(STOP_CHECK));
        }
    }
}

/// The running threads.
pub struct Threads {
    watch: Arc<BitcoindWatch>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Asks both to end. They may be inside a call; nobody waits for that.
    pub fn stop(self) {
        self.watch.stop.store(true, Ordering::Relaxed);
        drop(self.threads);
    }
}
