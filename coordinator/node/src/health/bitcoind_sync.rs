//! Whether a bitcoind is in sync: a judgement over facts that no single RPC field answers.
//!
//! Pure. `initialblockdownload` latches, `verificationprogress` never reaches 1, and a lonely node
//! is always at its own tip; so several facts are looked at, and compared with the cluster.
//! Soft reasons need [`LEAVE_AFTER`] probes in a row to take a node out, and [`ENTER_AFTER`]
//! to let it back in: blocks reach nodes at different seconds, and roles must not flap with them.

use std::time::{Duration, Instant};

use super::snapshot::BitcoindView;

/// Probes in a row that must find a soft reason before an in-sync bitcoind counts as out of sync.
pub const LEAVE_AFTER: u32 = 2;
/// Probes in a row that must find nothing before it counts as in sync again.
pub const ENTER_AFTER: u32 = 2;
/// A tip older than this is suspicious: Poisson blocks have a 90-minute gap every eight weeks.
pub const MAX_TIP_AGE: Duration = Duration::from_hours(2);
/// A fork this deep against the cluster's chain is not just a race between two blocks.
pub const FORK_DEPTH: u32 = 2;

/// What is demanded of a bitcoind; from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The `chain` that getblockchaininfo must show: `main`, `testnet4`, `signet`, `regtest`.
    pub chain: String,
    /// Hash of the genesis block, hex in display order.
    pub genesis: String,
    /// Blocks that it may lag.
    pub max_lag_blocks: u32,
    /// Connections that it must have; not judged on regtest.
    pub min_peers: u32,
    /// How long it stays trusted without answering.
    pub max_silence: Duration,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFacts {
    /// The `chain` of getblockchaininfo.
    pub chain: String,
    /// Hash of block 0, hex in display order.
    pub genesis: String,
    /// `initialblockdownload`.
    pub initial_block_download: bool,
    /// Blocks connected.
    pub blocks: u32,
    /// Headers known.
    pub headers: u32,
    /// Connections.
    pub peers: u32,
    /// Now minus the tip's time.
    pub tip_age: Duration,
    /// Blocks of its chain that are not on the cluster's; 0 if it agrees or is merely behind.
    pub fork_depth: u32,
    /// As leader: blocks of it that the log lacks, although the leader brings them there at once.
    pub log_lag: u32,
}

/// Why a probe got no facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeFailure {
    /// RPC error −28.
    Starting,
    /// Wrong credentials.
    Unauthorized,
    /// No answer in time.
    Timeout,
    /// No connection, or an answer that makes no sense.
    Unreachable,
}

/// Why a bitcoind is out of sync. The words are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncReason {
    /// It has not been probed yet.
    NotProbed,
    /// It is starting (RPC error −28).
    Starting,
    /// It refuses our credentials.
    Unauthorized,
    /// It has not answered in time lately.
    Timeout,
    /// It cannot be reached.
    Unreachable,
    /// It is on another network.
    WrongChain,
    /// Its block 0 is another one.
    WrongGenesis,
    /// It is still catching up from scratch.
    InitialBlockDownload,
    /// It knows headers of blocks that it has not connected.
    BehindHeaders,
    /// Another bitcoind of the cluster is further.
    BehindCluster,
    /// It has too few connections to hear of new blocks.
    TooFewPeers,
    /// It follows another branch than the cluster.
    Fork,
    /// The leader cannot bring its blocks into the log.
    LogBehind,
    /// Its last block is suspiciously old.
    TipOld,
}

impl SyncReason {
    /// The machine-readable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotProbed => "NOT_PROBED",
            Self::Starting => "STARTING",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Timeout => "TIMEOUT",
            Self::Unreachable => "UNREACHABLE",
            Self::WrongChain => "WRONG_CHAIN",
            Self::WrongGenesis => "WRONG_GENESIS",
            Self::InitialBlockDownload => "INITIAL_BLOCK_DOWNLOAD",
            Self::BehindHeaders => "BEHIND_HEADERS",
            Self::BehindCluster => "BEHIND_CLUSTER",
            Self::TooFewPeers => "TOO_FEW_PEERS",
            Self::Fork => "FORK",
            Self::LogBehind => "LOG_BEHIND",
            Self::TipOld => "TIP_OLD",
        }
    }

    /// Whether it is a matter of being some blocks behind, and of nothing else.
    pub fn is_lag(self) -> bool {
        matches!(self, Self::BehindHeaders | Self::BehindCluster)
    }

    /// Whether it takes effect at once: it cannot be a passing delay.
    fn is_hard(self) -> bool {
        matches!(self, Self::WrongChain | Self::WrongGenesis | Self::Fork)
    }
}

/// What is thought of a bitcoind after a probe; the input to the next judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it may be relied on.
    pub in_sync: bool,
    /// Why not.
    pub reason: Option<SyncReason>,
    /// The latest facts, even if a later probe failed.
    pub facts: Option<ProbeFacts>,
    /// Blocks behind its own headers or the cluster's best; known with the facts.
    pub lag_blocks: Option<u32>,
    /// When it last answered.
    answered_at: Option<Instant>,
    judged_at: Option<Instant>,
    /// Probes in a row that contradict `in_sync`.
    contradictions: u32,
}

impl Default for Judgement {
    fn default() -> Self {
        Self {
            in_sync: false,
            reason: Some(SyncReason::NotProbed),
            facts: None,
            lag_blocks: None,
            answered_at: None,
            judged_at: None,
            contradictions: 0,
        }
    }
}

impl Judgement {
    /// Judges anew after a probe at `now`. `highest` is the greatest height that any bitcoind of
    /// the cluster has reported, if known.
    pub fn next(
        &self,
        probe: Result<ProbeFacts, ProbeFailure>,
        highest: Option<u32>,
        rules: &Rules,
        now: Instant,
    ) -> Self {
        let mut next = Self { judged_at: Some(now), ..self.clone() };
        let found = match probe {
            Ok(facts) => {
                let lag = lag_blocks(&facts, highest);
                let found = fault(&facts, highest, rules);
                next.facts = Some(facts);
                next.lag_blocks = Some(lag);
                next.answered_at = Some(now);
                found
            }
            Err(failure) => match self.answered_at {
                // One lost probe says nothing yet.
                Some(then) if now.saturating_duration_since(then) <= rules.max_silence => {
                    return next;
                }
                _ => Some(failure.reason()),
            },
        };
        // Silence was long enough to need no second proof.
        let at_once =
            next.answered_at != Some(now) || self.answered_at.is_none() || found.is_some_and(SyncReason::is_hard);
        next.settle(found, at_once);
        next
    }

    fn settle(&mut self, found: Option<SyncReason>, at_once: bool) {
        if self.in_sync == found.is_none() {
            self.contradictions = 0;
            self.reason = found;
            return;
        }
        self.contradictions += 1;
        let needed = if self.in_sync { LEAVE_AFTER } else { ENTER_AFTER };
        if at_once || self.contradictions >= needed {
            self.in_sync = found.is_none();
            self.reason = found;
            self.contradictions = 0;
        }
    }

    /// As the health snapshot shows it.
    pub fn view(&self) -> BitcoindView {
        let facts = self.facts.as_ref();
        BitcoindView {
            judged_at: self.judged_at,
            in_sync: self.in_sync,
            reason: self.reason,
            height: facts.map(|facts| facts.blocks),
            headers: facts.map(|facts| facts.headers),
            lag_blocks: self.lag_blocks,
            peers: facts.map(|facts| facts.peers),
        }
    }
}

impl ProbeFailure {
    fn reason(self) -> SyncReason {
        match self {
            Self::Starting => SyncReason::Starting,
            Self::Unauthorized => SyncReason::Unauthorized,
            Self::Timeout => SyncReason::Timeout,
            Self::Unreachable => SyncReason::Unreachable,
        }
    }
}

fn lag_blocks(facts: &ProbeFacts, highest: Option<u32>) -> u32 {
    let best = facts.headers.max(highest.unwrap_or(0));
    best.saturating_sub(facts.blocks)
}

/// The gravest thing that one probe shows.
fn fault(facts: &ProbeFacts, highest: Option<u32>, rules: &Rules) -> Option<SyncReason> {
    let regtest = rules.chain == "regtest";
    let behind = |best: u32| best.saturating_sub(facts.blocks) > rules.max_lag_blocks;
    let faults = [
        (facts.chain != rules.chain, SyncReason::WrongChain),
        (facts.genesis != rules.genesis, SyncReason::WrongGenesis),
        (facts.fork_depth >= FORK_DEPTH, SyncReason::Fork),
        // A regtest chain without a recent block is "in IBD" for ever; that says nothing.
        (facts.initial_block_download && !regtest, SyncReason::InitialBlockDownload),
        (behind(facts.headers), SyncReason::BehindHeaders),
        (highest.is_some_and(behind), SyncReason::BehindCluster),
        (facts.log_lag > rules.max_lag_blocks, SyncReason::LogBehind),
        (!regtest && facts.peers < rules.min_peers, SyncReason::TooFewPeers),
        (!regtest && facts.tip_age > MAX_TIP_AGE, SyncReason::TipOld),
    ];
    faults.into_iter().find(|(present, _)| *present).map(|(_, reason)| reason)
}

#[cfg(test)]
#[path = "bitcoind_sync_tests.rs"]
mod tests;
