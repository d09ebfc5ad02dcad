//! What this node knows of its own bitcoind. Two threads ask it, because it answers blocking; everybody else reads
//! what they last heard, so no request ever waits for an RPC.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the two threads and what they publish |
//! | `probe.rs` | one probe: facts, and whether they can be relied on |
//! | `fees.rs` | fee estimates |
//! | `scan.rs`, `outpoints.rs` | a new wallet's coins at a tip, and single ones |
//! | `conflict.rs` | whether a transaction in a block keeps another one out of the chain |
//! | `view.rs` | how callers are shown it |

mod conflict;
mod fees;
mod outpoints;
mod probe;
mod scan;
mod view;

use std::mem::Discriminant;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network};
use onespend_adapters::chain::{Chain, ChainError, ChainView, TipRef};
use onespend_core::command::BlockRef;
use onespend_core::state::State;
use tokio::sync::watch;
use tracing::{info, warn};

pub use conflict::ConflictError;
pub use fees::NoEstimate;
pub use outpoints::LookupError;

use crate::health::Progress;
use crate::health::bitcoind_sync::{Judgement, Rules, SyncReason};

/// How long one wait for a new tip lasts at most.
const TIP_WAIT: Duration = Duration::from_secs(10);
/// Wait after a failed call.
const PAUSE: Duration = Duration::from_millis(500);
/// How often fee estimates are asked for.
const FEE_INTERVAL: Duration = Duration::from_secs(30);
/// How often a thread looks whether it should end.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// RPCs that [`Chain::probe`] makes at most. They are one call of the port, so no beat comes between them.
const PROBE_RPCS: u32 = 5;
/// What a turn may take beyond its waits and its calls at their time limits: the machine may be busy.
const SLACK: Duration = Duration::from_secs(20);

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
    /// How long one RPC may take.
    pub timeout: Duration,
}

impl Settings {
    /// The longest that a thread may go without a beat: one wait, and the calls of one probe at their time limits. A
    /// bitcoind that answers nothing, or everything as late as it may, does not reach it, so `/livez` never fails for
    /// bitcoind.
    fn longest_silence(&self) -> Duration {
        TIP_WAIT.max(self.poll) + PROBE_RPCS * self.timeout + SLACK
    }
}

/// Longest that the log takes for one block, on a slow machine: fetched, searched for coins, decided.
const LONGEST_BLOCK: Duration = Duration::from_secs(10);

/// Whether a block is in the chain that the log follows.
pub fn has_block(state: &State, block: BlockRef) -> bool {
    state.block(block.height).is_some_and(|record| record.hash == block.hash)
}

/// What was last heard.
#[derive(Debug, Clone, Default)]
struct Heard {
    judgement: Judgement,
    view: Option<ChainView>,
    answered: Option<Instant>,
    error: Option<String>,
    /// The highest block of the log that it has another one for.
    contradicts: Option<BlockRef>,
    /// Height of the log.
    logged: Option<u32>,
    /// When the log was last seen to have another height than before.
    log_moved: Option<Instant>,
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
    longest_silence: Duration,
    heard: ArcSwap<Heard>,
    /// The highest tip of the other nodes' bitcoinds, and when it was heard of.
    others: ArcSwapOption<(u32, Instant)>,
    /// A block of the log that most bitcoinds of the cluster have another one for, and when that was heard.
    contradicted: ArcSwapOption<(BlockRef, Instant)>,
    leads: AtomicBool,
    tips: watch::Sender<Option<TipRef>>,
    stop: AtomicBool,
}

impl BitcoindWatch {
    /// Nothing is asked before [`BitcoindWatch::start`].
    pub fn new(chain: Arc<dyn Chain>, read: ReadState, settings: Settings) -> Arc<Self> {
        let longest_silence = settings.longest_silence();
        let Settings { network, rules, poll, timeout: _ } = settings;
        Arc::new(Self {
            chain,
            read,
            network,
            max_age: rules.max_silence + poll * 2,
            rules,
            poll,
            longest_silence,
            heard: ArcSwap::default(),
            others: ArcSwapOption::empty(),
            contradicted: ArcSwapOption::empty(),
            leads: AtomicBool::new(false),
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
        let beat = progress.register("bitcoind-probe", self.longest_silence);
        let probe = std::thread::Builder::new().name("bitcoind-probe".to_owned()).spawn(move || {
            probing.probe_loop(&mut || beat.beat());
            beat.finish();
        })?;
        let waiting = Arc::clone(self);
        let beat = progress.register("bitcoind-tip", self.longest_silence);
        let tip = std::thread::Builder::new().name("bitcoind-tip".to_owned()).spawn(move || {
            waiting.tip_loop(&mut || beat.beat());
            beat.finish();
        })?;
        Ok(Threads { watch: Arc::clone(self), threads: vec![probe, tip] })
    }

    /// The bitcoind itself, for who may wait for its answers.
    pub(crate) fn chain(&self) -> Arc<dyn Chain> {
        Arc::clone(&self.chain)
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

    /// Takes in a block of the log that most bitcoinds of the cluster have another one for, as heard at `at`.
    pub fn hear_of_fork(&self, contradicted: Option<BlockRef>, at: Instant) {
        self.contradicted.store(contradicted.map(|block| Arc::new((block, at))));
    }

    /// The highest block of the log that this bitcoind has another one for, as it was last probed.
    pub fn contradicts(&self) -> Option<BlockRef> {
        self.heard.load().contradicts
    }

    /// Whether most bitcoinds of the cluster contradict this one, which has the blocks that the log has. The log is the
    /// leader's own view, so it does not tell a leader that it is alone on a branch.
    pub fn is_outnumbered(&self) -> bool {
        self.contradicts().is_none() && self.most_differ(Instant::now())
    }

    /// Once the log has gone over to another branch, what was said of the one before counts no more.
    fn most_differ(&self, now: Instant) -> bool {
        let Some(contradicted) = self.contradicted.load_full() else { return false };
        let (block, at) = *contradicted;
        let mut in_log = false;
        (self.read)(&mut |state| in_log = has_block(state, block));
        in_log && now.saturating_duration_since(at) <= HEIGHT_MAX_AGE
    }

    /// Whether this node leads, and so brings the blocks of this bitcoind into the log.
    pub fn lead(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
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
        self.fit()?;
        self.log_lag(&self.heard.load()).map_or(Ok(()), |lag| Err(format!("LOG_BEHIND_{lag}_BLOCKS")))
    }

    /// Whether this bitcoind may be relied on, whatever the log has of its blocks.
    ///
    /// # Errors
    /// The reason why not, as a stable word.
    pub fn fit(&self) -> Result<(), &'static str> {
        let heard = self.heard.load();
        // A probe that hangs must not go on vouching for what it said last.
        if heard.answered.is_none_or(|at| at.elapsed() > self.max_age) {
            return Err("BITCOIND_VIEW_STALE");
        }
        if heard.judgement.in_sync {
            return Ok(());
        }
        Err(heard.judgement.reason.map_or("NOT_PROBED", |reason| reason.word()))
    }

    /// Whether nothing is wrong but that the log has more blocks to take in, and it takes them in.
    pub fn is_catching_up(&self) -> bool {
        let heard = self.heard.load();
        let moves = heard.log_moved.is_some_and(|at| at.elapsed() < LONGEST_BLOCK);
        heard.judgement.reason == Some(SyncReason::LogBehind) && moves
    }

    /// Blocks that the log lacks of what this bitcoind has, when they are more than a moment's worth: the leader cannot
    /// follow the chain, and coins must not be given out on an old view of it.
    fn log_lag(&self, heard: &Heard) -> Option<u32> {
        let height = heard.view.as_ref()?.tip.height;
        let lag = height.saturating_sub(self.logged_height()?);
        (lag > self.rules.max_lag_blocks).then_some(lag)
    }

    fn logged_height(&self) -> Option<u32> {
        let mut logged = None;
        (self.read)(&mut |state| logged = state.tip().ok().map(|tip| tip.height.0));
        logged
    }

    /// Whether its blocks may go into the log: it answers, on the right chain, past its first download. A fork is
    /// for the log to follow or not; but a branch that most others are not on is followed no further, for depth on it
    /// means nothing.
    pub fn may_follow(&self) -> bool {
        use SyncReason as Reason;
        if self.is_outnumbered() {
            return false;
        }
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
            let answered = self.probe(&mut heard, beat);
            match (was, heard.judgement.in_sync) {
                (false, true) => info!(height = heard.judgement.view().height, "bitcoind is in sync"),
                (true, false) => warn!(reason = ?heard.judgement.reason, "bitcoind is not in sync"),
                (true, true) | (false, false) => {}
            }
            let in_sync = heard.judgement.in_sync;
            self.heard.store(Arc::new(heard.clone()));
            // Only of a bitcoind that answers: one that hangs would hold up the next probe ten times over.
            if answered && Instant::now() >= next_fees {
                let Heard { fees, view, .. } = &mut heard;
                fees.ask(self.chain.as_ref(), view.as_ref(), beat);
                self.heard.store(Arc::new(heard));
                next_fees = Instant::now() + FEE_INTERVAL;
            }
            // A tip that was not heard of yet is looked at sooner.
            self.sleep(if in_sync { self.poll } else { self.poll.min(PAUSE) });
        }
    }

    fn tip_loop(&self, beat: &mut dyn FnMut()) {
        let mut failing = None;
        while !self.stopping() {
            let current = self.tips.borrow().map_or_else(BlockHash::all_zeros, |tip| tip.hash);
            let waited = self.chain.wait_tip(current, TIP_WAIT);
            note_wait(&mut failing, waited.as_ref().err());
            match waited {
                Ok(tip) => self.publish(tip),
                Err(_) => self.sleep(PAUSE),
            }
            beat();
        }
    }

    /// One turn of the probe, for who has no threads.
    #[cfg(test)]
    pub(crate) fn look(&self) {
        let mut heard = Heard::clone(&self.heard.load());
        self.probe(&mut heard, &mut || ());
        self.heard.store(Arc::new(heard));
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

/// Logs how a wait for a block ended if the last one ended in another way: it is tried twice a second. `failing` is the kind
/// of the last failure. Whether it was logged.
fn note_wait(failing: &mut Option<Discriminant<ChainError>>, error: Option<&ChainError>) -> bool {
    let now = error.map(std::mem::discriminant);
    let changed = std::mem::replace(failing, now) != now;
    match error {
        Some(error) if changed => warn!(%error, "bitcoind does not tell of blocks; they are seen when it is probed"),
        None if changed => info!("bitcoind tells of blocks again"),
        Some(_) | None => {}
    }
    changed
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_adapters::chain::fake::FakeChain;

    use super::*;

    fn settings(poll: Duration, timeout: Duration) -> Settings {
        let rules = Rules {
            chain: "regtest".to_owned(),
            genesis: String::new(),
            max_lag_blocks: 2,
            min_peers: 0,
            max_silence: poll + timeout,
        };
        Settings { network: Network::Regtest, rules, poll, timeout }
    }

    /// `/livez` never fails for bitcoind, whatever the configuration allows it to take.
    #[test]
    fn calls_that_all_take_as_long_as_they_may_leave_both_threads_alive() {
        for (poll_ms, timeout_ms) in [(100, 100), (2_000, 10_000), (60_000, 120_000)] {
            let (poll, timeout) = (Duration::from_millis(poll_ms), Duration::from_millis(timeout_ms));
            let watch = BitcoindWatch::new(Arc::new(FakeChain::new()), Arc::new(|_| ()), settings(poll, timeout));
            let progress = Progress::default();
            let threads = watch.start(&progress).unwrap();
            let slowest = (poll + PROBE_RPCS * timeout).max(TIP_WAIT + timeout + PAUSE);
            let pulses = progress.pulses(Instant::now() + slowest);
            threads.stop();
            assert_eq!(pulses.len(), 2);
            assert!(pulses.iter().all(|pulse| pulse.alive), "{pulses:?}");
        }
    }

    #[test]
    fn a_wait_that_fails_twice_a_second_is_logged_when_that_changes() {
        let method = "waitfornewblock";
        let refused = ChainError::Rpc { method, code: -1, message: "waitfornewblock ( timeout )".to_owned() };
        let starting = ChainError::Starting { method, message: "Loading block index…".to_owned() };
        let (mut failing, waits) = (None, [None, Some(&refused), Some(&refused), Some(&starting), None, None]);
        let logged = waits.map(|error| note_wait(&mut failing, error));
        assert_eq!(logged, [false, true, false, true, true, false]);
    }
}
