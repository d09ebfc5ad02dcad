//! One probe of bitcoind: facts, compared with the chain that the log follows and with the other nodes' tips. The log
//! alone is no measure of being behind: a leader writes it from this very bitcoind.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bitcoin::Network;
use onespend_adapters::chain::{ChainError, ChainView};
use onespend_core::command::BlockRef;
use onespend_core::ids::Height;
use tracing::warn;

use super::{BitcoindWatch, Heard};
use crate::health::bitcoind_sync::{FORK_DEPTH, ProbeFacts, ProbeFailure};
use crate::metrics;

impl BitcoindWatch {
    /// Asks once, with a beat after every call; whether there was an answer.
    pub(super) fn probe(&self, heard: &mut Heard, beat: &mut dyn FnMut()) -> bool {
        let probed = self.chain.probe();
        beat();
        // Taken after the call: a call that hangs is silence.
        let now = Instant::now();
        let answered = probed.is_ok();
        let (facts, logged) = match probed {
            Ok(view) => {
                self.publish(view.tip);
                let (fork, logged) = self.fork(&view, beat);
                heard.contradicts = fork.first().copied();
                // A branch that is left is taken out of the log first.
                if logged != heard.logged {
                    heard.log_moved = heard.logged.map(|_| now);
                    heard.logged = logged;
                }
                let outnumbered = fork.is_empty() && self.most_differ(now);
                let leads = self.leads.load(Ordering::Relaxed);
                let log_lag = logged.filter(|_| leads).map_or(0, |logged| view.tip.height.saturating_sub(logged));
                let fork_depth = if outnumbered { FORK_DEPTH } else { u32::try_from(fork.len()).unwrap_or(u32::MAX) };
                let facts = ProbeFacts { fork_depth, log_lag, ..facts(&view) };
                heard.answered = Some(now);
                heard.error = None;
                warn_of_version(heard.view.as_ref(), &view);
                heard.view = Some(view);
                (Ok(facts), logged)
            }
            Err(error) => {
                heard.error = Some(error.to_string());
                (Err(failure(&error)), self.logged(0).0)
            }
        };
        let highest = logged.max(self.height_of_others(now));
        heard.judgement = heard.judgement.next(facts, highest, &self.rules, now);
        metrics::bitcoind(&heard.judgement.view());
        answered
    }

    /// Height of the log's tip, and its newest blocks up to a height, highest first.
    fn logged(&self, up_to: u32) -> (Option<u32>, Vec<BlockRef>) {
        let mut found = (None, Vec::new());
        (self.read)(&mut |state| {
            let Ok(tip) = state.tip() else { return };
            let highest = tip.height.0.min(up_to);
            let heights = (highest.saturating_sub(FORK_DEPTH)..=highest).rev().map(Height);
            let blocks = heights.filter_map(|height| Some(BlockRef { height, hash: state.block(height)?.hash }));
            found = (Some(tip.height.0), blocks.collect());
        });
        found
    }

    /// Which of the log's newest blocks this bitcoind has other blocks for, highest first, at most one more than
    /// [`FORK_DEPTH`]; and the height of the log. Blocks that it does not have yet are lag, not a fork.
    fn fork(&self, view: &ChainView, beat: &mut dyn FnMut()) -> (Vec<BlockRef>, Option<u32>) {
        let (tip, blocks) = self.logged(view.tip.height);
        let mut fork = Vec::new();
        for block in blocks {
            let asked = self.chain.block_hash_at(block.height.0);
            beat();
            match asked {
                Ok(Some(theirs)) if theirs != block.hash => fork.push(block),
                Ok(_) | Err(_) => break,
            }
        }
        (fork, tip)
    }
}

/// Once for every version that is too old.
fn warn_of_version(before: Option<&ChainView>, view: &ChainView) {
    if !view.is_supported() && before.is_none_or(|before| before.version != view.version) {
        warn!(version = %view.subversion, "this bitcoind is older than Bitcoin Core 30, which this service needs");
    }
}

fn facts(view: &ChainView) -> ProbeFacts {
    let now = crate::clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    ProbeFacts {
        chain: chain_name(view.network).to_owned(),
        genesis: view.genesis.to_string(),
        initial_block_download: view.initial_block_download,
        blocks: view.tip.height,
        headers: view.headers,
        peers: view.peers,
        tip_age: now.saturating_sub(Duration::from_secs(view.tip_time_s)),
        fork_depth: 0,
        log_lag: 0,
    }
}

/// A network by the name that Bitcoin Core gives it.
pub(super) fn chain_name(network: Network) -> &'static str {
    network.to_core_arg()
}

fn failure(error: &ChainError) -> ProbeFailure {
    match error {
        ChainError::Starting { .. } => ProbeFailure::Starting,
        ChainError::Unauthorized { .. } => ProbeFailure::Unauthorized,
        ChainError::Timeout { .. } => ProbeFailure::Timeout,
        _ => ProbeFailure::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use bitcoin::blockdata::constants::genesis_block;
    use bitcoin::hashes::Hash;
    use bitcoin::{BlockHash, Network, ScriptBuf};
    use onespend_adapters::chain::Chain;
    use onespend_adapters::chain::fake::{FakeChain, Fault};
    use onespend_core::command::Command;
    use onespend_core::state::State;

    use super::*;
    use crate::bitcoind::{HEIGHT_MAX_AGE, ReadState, Settings};
    use crate::health::bitcoind_sync::{LEAVE_AFTER, Rules, SyncReason};
    use crate::raft::{Position, StateView};
    use crate::specimen::accept;

    /// A watch over a chain of ten blocks, with a log that has none yet, as after it has judged once.
    fn watch() -> (Arc<BitcoindWatch>, Heard) {
        watch_over(FakeChain::new())
    }

    fn settings() -> Settings {
        let rules = Rules {
            chain: chain_name(Network::Regtest).to_owned(),
            genesis: genesis_block(Network::Regtest).block_hash().to_string(),
            max_lag_blocks: 2,
            min_peers: 0,
            max_silence: Duration::from_secs(14),
        };
        Settings { network: Network::Regtest, rules, poll: Duration::from_secs(1), timeout: Duration::from_secs(1) }
    }

    fn watch_over(chain: FakeChain) -> (Arc<BitcoindWatch>, Heard) {
        chain.mine(10, &ScriptBuf::new());
        let watch = BitcoindWatch::new(Arc::new(chain), Arc::new(|_| ()), settings());
        let mut heard = Heard::default();
        assert!(watch.probe(&mut heard, &mut || ()));
        assert_eq!(heard.judgement.reason, None);
        (watch, heard)
    }

    /// The judgement after as many probes as it takes to change it.
    fn judge(watch: &BitcoindWatch, heard: &mut Heard) -> Option<SyncReason> {
        for _ in 0..LEAVE_AFTER {
            watch.probe(heard, &mut || ());
        }
        heard.judgement.reason
    }

    #[test]
    fn a_bitcoind_that_is_cut_off_is_behind_what_the_other_nodes_have() {
        let (watch, mut heard) = watch();
        watch.hear_of_height(12, Instant::now());
        assert_eq!(judge(&watch, &mut heard), None, "two blocks are a matter of moments");
        watch.hear_of_height(13, Instant::now());
        assert_eq!(judge(&watch, &mut heard), Some(SyncReason::BehindCluster));
        assert_eq!(heard.judgement.lag_blocks, Some(3));
    }

    /// A watch whose log has the chain's blocks from below the tip on.
    fn watch_that_follows() -> (FakeChain, StateView, Arc<BitcoindWatch>, Heard) {
        let (chain, view) = (FakeChain::new(), StateView::new(State::default(), Position::default()));
        chain.mine(10, &ScriptBuf::new());
        let hash = |height| chain.block_hash_at(height).unwrap().unwrap();
        let tip = BlockRef { height: Height(5), hash: hash(5) };
        accept(&view, Command::Start { network: Network::Regtest, tip });
        for height in 6..=10 {
            accept(&view, next_block(BlockRef { height: Height(height), hash: hash(height) }, hash(height - 1)));
        }
        let read = view.clone();
        let read: ReadState = Arc::new(move |look: &mut dyn FnMut(&State)| read.read(|state| look(state)));
        let watch = BitcoindWatch::new(Arc::new(chain.clone()), read, settings());
        let mut heard = Heard::default();
        watch.probe(&mut heard, &mut || ());
        assert_eq!(heard.judgement.reason, None);
        watch.heard.store(Arc::new(heard.clone()));
        (chain, view, watch, heard)
    }

    fn next_block(block: BlockRef, previous: BlockHash) -> Command {
        Command::ConnectBlock { block, previous, received: vec![], spent: vec![], wallets: 0, followed: None }
    }

    /// The log has this very bitcoind's blocks, so only the others can tell; and what they said of a branch that the log has
    /// left says nothing of the next.
    #[test]
    fn a_bitcoind_that_most_others_contradict_is_on_a_fork_and_is_followed_no_further() {
        let (chain, view, watch, mut heard) = watch_that_follows();
        assert!(watch.may_follow());
        let tip = view.read(|state| state.tip().unwrap());
        watch.hear_of_fork(Some(tip), Instant::now());
        watch.probe(&mut heard, &mut || ());
        assert_eq!(heard.judgement.reason, Some(SyncReason::Fork), "at once");
        assert!(watch.is_outnumbered() && !watch.may_follow());
        let below = chain.block_hash_at(9).unwrap().unwrap();
        accept(&view, Command::DisconnectBlock { block: tip });
        accept(&view, next_block(BlockRef { height: Height(10), hash: BlockHash::from_byte_array([7; 32]) }, below));
        assert!(!watch.is_outnumbered() && watch.may_follow());
    }

    /// Only a leader's log should have each of its blocks at once.
    #[test]
    fn a_leader_whose_log_does_not_take_the_blocks_is_behind_and_one_that_takes_them_in_catches_up() {
        let (chain, view, watch, mut heard) = watch_that_follows();
        chain.mine(5, &ScriptBuf::new());
        assert_eq!(judge(&watch, &mut heard), None);
        watch.lead(true);
        assert_eq!(judge(&watch, &mut heard), Some(SyncReason::LogBehind));
        watch.heard.store(Arc::new(heard.clone()));
        assert!(watch.fit().is_err() && !watch.is_catching_up());
        let hash = |height| chain.block_hash_at(height).unwrap().unwrap();
        accept(&view, next_block(BlockRef { height: Height(11), hash: hash(11) }, hash(10)));
        watch.probe(&mut heard, &mut || ());
        watch.heard.store(Arc::new(heard));
        assert!(watch.fit().is_err() && watch.is_catching_up());
    }

    /// One that is behind the log is compared at its own height: its branch may be the shorter one.
    #[test]
    fn a_bitcoind_on_a_shorter_branch_than_the_log_is_on_a_fork() {
        let (chain, _view, watch, mut heard) = watch_that_follows();
        chain.invalidate(chain.block_hash_at(7).unwrap().unwrap());
        chain.mine(2, &ScriptBuf::from_bytes(vec![0x51]));
        watch.probe(&mut heard, &mut || ());
        assert_eq!(heard.judgement.reason, Some(SyncReason::Fork));
        assert_eq!(heard.contradicts.map(|block| block.height), Some(Height(8)));
    }

    #[test]
    fn a_probe_beats_whether_or_not_it_is_answered() {
        let chain = FakeChain::new();
        let (watch, mut heard) = watch_over(chain.clone());
        for answered in [true, false] {
            let mut beats = 0;
            assert_eq!(watch.probe(&mut heard, &mut || beats += 1), answered);
            assert_eq!(beats, 1);
            chain.inject(None, Fault::Timeout, u32::MAX);
        }
    }

    #[test]
    fn a_height_that_nobody_repeats_is_forgotten() {
        let (watch, _) = watch();
        let heard_at = Instant::now();
        watch.hear_of_height(99, heard_at);
        assert_eq!(watch.height_of_others(heard_at + HEIGHT_MAX_AGE), Some(99));
        assert_eq!(watch.height_of_others(heard_at + HEIGHT_MAX_AGE + Duration::from_secs(1)), None);
    }
}
