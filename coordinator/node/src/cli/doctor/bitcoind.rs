//! This node's bitcoind: reachable, let in, on the right chain, in sync, able to say who spent a coin, and with the blocks
//! that the log lacks.

use std::path::Path;

use bitcoin::constants::genesis_block;
use onespend_adapters::chain::{self, Bitcoind, Chain, ChainError, ChainView};
use onespend_adapters::store::sqlite::read_table;
use onespend_adapters::store::{Row, StoreError};
use onespend_core::state::State;

use super::findings::{Area, Findings};
use crate::config::{BitcoindConfig, Config};

/// Blocks that are searched for a spend to try the index with.
const BLOCKS_TO_SEARCH: usize = 12;

/// What it says of itself, if it answers.
pub fn check(config: &Config, findings: &mut Findings) -> Option<ChainView> {
    let url = &config.bitcoind.url;
    let bitcoind = match open(&config.bitcoind) {
        Ok(bitcoind) => bitcoind,
        Err(what) => {
            findings.fail(Area::Bitcoind, what, "see [bitcoind] in the configuration");
            return None;
        }
    };
    match bitcoind.probe() {
        Ok(view) => {
            judge(config, &view, findings);
            if view.network == config.cluster.network {
                pruning(&config.node.data_dir, &view, findings);
            }
            spender_index(&bitcoind, &view, findings);
            Some(view)
        }
        Err(error) => {
            let what = format!("{url}: {error}");
            match &error {
                ChainError::Starting { .. } | ChainError::Busy { .. } => findings.warn(Area::Bitcoind, what, "wait"),
                error => findings.fail(Area::Bitcoind, what, remedy(error)),
            }
            None
        }
    }
}

fn open(config: &BitcoindConfig) -> Result<Bitcoind, String> {
    let auth = config.login.as_ref().ok_or("there is no way to log in")?.auth()?;
    let settings = chain::BitcoindConfig { timeout: config.timeout, ..chain::BitcoindConfig::new(&config.url, auth) };
    Bitcoind::new(settings, None).map_err(|error| error.to_string())
}

fn remedy(error: &ChainError) -> &'static str {
    match error {
        ChainError::Unauthorized { asked: false, .. } => {
            "start bitcoind if it does not run: it writes the file then; point bitcoind.cookie_file at its .cookie, and let this user read it"
        }
        ChainError::Unauthorized { asked: true, .. } => {
            "point bitcoind.cookie_file at the .cookie of this very bitcoind, or correct user and password_file"
        }
        ChainError::Timeout { .. } => "bitcoind is overloaded or hangs: look at its debug.log; see bitcoind.timeout_ms",
        ChainError::Transport { .. } => "start bitcoind with -server=1, and check bitcoind.url and its -rpcport",
        ChainError::Decode { .. } | ChainError::Rpc { .. } => {
            "check that bitcoind.url is a Bitcoin Core of version 30 or later"
        }
        ChainError::Config { .. } | ChainError::Starting { .. } | ChainError::Busy { .. } => {
            "see [bitcoind] in the configuration"
        }
    }
}

fn judge(config: &Config, view: &ChainView, findings: &mut Findings) {
    let network = config.cluster.network;
    if view.network != network || view.genesis != genesis_block(network).block_hash() {
        let what = format!("it follows {}, but this cluster is on {network}", view.network);
        findings.fail(Area::Bitcoind, what, "point bitcoind.url at a bitcoind of the cluster's network");
        return;
    }
    let before = view.headers.saturating_sub(view.tip.height);
    let regtest = network == bitcoin::Network::Regtest;
    let doubts = [
        (!view.is_supported(), "it is older than Bitcoin Core 30", "install Bitcoin Core 30 or later"),
        (is_downloading(view), "it is in its initial block download", "wait until it has caught up"),
        (
            u64::from(before) > config.health.max_lag_blocks.into(),
            "it is behind its own headers",
            "wait until it has caught up",
        ),
        (
            !regtest && view.peers < config.bitcoind.min_peers,
            "it has too few peers",
            "look at its network; see bitcoind.min_peers",
        ),
        (!view.mempool_loaded, "it is still loading its mempool", "wait"),
    ];
    for (_, what, remedy) in doubts.iter().filter(|(doubt, _, _)| *doubt) {
        findings.warn(Area::Bitcoind, *what, *remedy);
    }
    if doubts.iter().any(|(doubt, _, _)| *doubt) {
        return;
    }
    let what = format!(
        "{} on {network} at height {}, {} peers, answers in {} ms",
        view.subversion.trim_matches('/'),
        view.tip.height,
        view.peers,
        view.latency.as_millis()
    );
    findings.ok(Area::Bitcoind, what);
}

/// A bitcoind that throws old blocks away is good enough as long as it has those that the log has not taken in.
fn pruning(data_dir: &Path, view: &ChainView, findings: &mut Findings) {
    let Some(oldest) = view.oldest_block else { return };
    let logged = match logged_height(data_dir) {
        Ok(logged) => logged,
        Err(error) => {
            let what = format!("it is pruned, and how far this node's log follows the chain cannot be read: {error}");
            let remedy = "run doctor as the node's user; a node whose data is damaged says so when it starts";
            findings.warn(Area::Bitcoind, what, remedy);
            return;
        }
    };
    if let Some(logged) = logged.filter(|logged| logged.saturating_add(1) < oldest) {
        let what = format!("it is pruned to block {oldest}, and this node's log follows the chain to {logged} only");
        let remedy = format!(
            "if another node's log is further, start this one: it catches up; else nobody can lead on but beside a \
             bitcoind that has block {}: let this one download the chain again without -prune",
            logged.saturating_add(1)
        );
        findings.fail(Area::Bitcoind, what, remedy);
        return;
    }
    let what = format!("it is pruned: it has the blocks from {oldest} to {}", view.tip.height);
    let remedy = "never let the cluster be down for longer than these blocks took: it could not go on; or end -prune";
    findings.warn(Area::Bitcoind, what, remedy);
}

/// How far the chain has been taken into the state in a data folder; `None` before that has begun.
fn logged_height(data_dir: &Path) -> Result<Option<u32>, StoreError> {
    let mut state = State::default();
    read_table(data_dir, State::FACTS, &mut |row: Row<'_>| {
        state.load_row(row.table, row.key, row.value).map_err(|unreadable| unreadable.to_string())
    })?;
    Ok(state.tip().ok().map(|tip| tip.height.0))
}

/// As the node judges it, see `health::bitcoind_sync`: a regtest chain without a recent block says so for ever.
fn is_downloading(view: &ChainView) -> bool {
    view.initial_block_download && view.network != bitcoin::Network::Regtest
}

/// Tries the index on a confirmed spend, rather than asking for its name: what counts is that it answers.
fn spender_index(chain: &dyn Chain, view: &ChainView, findings: &mut Findings) {
    let found =
        confirmed_spend(chain, view).and_then(|spend| spend.map(|spend| chain.spending_prevout(&[spend])).transpose());
    match found {
        Ok(None) => findings.ok(Area::Bitcoind, "txospenderindex was not tried: the newest blocks spend nothing"),
        Ok(Some(spenders)) if spenders.iter().any(Option::is_some) => {
            findings.ok(Area::Bitcoind, "it can say who spent a coin (txospenderindex)");
        }
        Ok(Some(_)) => findings.warn(
            Area::Bitcoind,
            "it cannot say who spent a coin in a block",
            "start bitcoind (31 or later) with -txospenderindex=1: it tells a lost conflict from a confirmed payment",
        ),
        Err(error) => {
            findings.warn(Area::Bitcoind, format!("txospenderindex cannot be tried: {error}"), "look at its debug.log");
        }
    }
}

/// An input of the newest transaction that is not a coinbase.
fn confirmed_spend(chain: &dyn Chain, view: &ChainView) -> Result<Option<bitcoin::OutPoint>, ChainError> {
    let mut hash = view.tip.hash;
    for _ in 0..BLOCKS_TO_SEARCH {
        if hash == view.genesis {
            return Ok(None);
        }
        let block = chain.block(hash)?;
        let spend = block.txdata.iter().find(|tx| !tx.is_coinbase()).and_then(|tx| tx.input.first());
        if let Some(input) = spend {
            return Ok(Some(input.previous_output));
        }
        hash = block.header.prev_blockhash;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_adapters::chain::fake::FakeChain;
    use onespend_adapters::store::sqlite::{DataFolder, SqliteState};
    use onespend_adapters::store::{Owner, RowBatch, RowChange, StateStore as _};
    use tempfile::TempDir;

    use super::super::findings::Report;
    use super::*;
    use crate::cli::exit::Exit;
    use crate::specimen::{TIP, started};

    /// The data folder of a node whose log follows the chain to [`TIP`].
    fn followed() -> TempDir {
        let folder = TempDir::new().unwrap();
        let owner = Owner { cluster_id: "test".to_owned(), node_id: 1 };
        let store = SqliteState::open(&DataFolder::open(folder.path(), &owner).unwrap()).unwrap();
        let stored = started().change(State::drain_changes);
        let rows = stored.into_iter().map(|row| RowChange { table: row.table, key: row.key, value: row.value });
        store.write(&RowBatch { marker: Vec::new(), rows: rows.collect() }).unwrap();
        folder
    }

    /// What the doctor says of a bitcoind that has the blocks from `oldest` on.
    fn said(data_dir: &Path, oldest: Option<u32>) -> (Exit, String) {
        let mut findings = Findings::default();
        let view = ChainView { oldest_block: oldest, ..FakeChain::new().probe().unwrap() };
        pruning(data_dir, &view, &mut findings);
        let report = Report::of(findings);
        (report.exit(), serde_json::to_string(&report).unwrap())
    }

    #[test]
    fn pruning_is_warned_about_and_fails_where_the_log_needs_a_block_that_is_gone() {
        let (empty, folder) = (TempDir::new().unwrap(), followed());
        for data_dir in [empty.path(), folder.path()] {
            assert_eq!(said(data_dir, None).0, Exit::Done, "it keeps all blocks");
            let (exit, text) = said(data_dir, Some(TIP + 1));
            assert!(exit == Exit::Refused && text.contains(&format!("from {} to", TIP + 1)), "{text}");
        }
        let (exit, text) = said(folder.path(), Some(TIP + 2));
        assert!(exit == Exit::Usage && text.contains(&format!("to {TIP} only")), "{text}");
        assert_eq!(said(empty.path(), Some(TIP + 2)).0, Exit::Refused, "a new node has followed nothing");
        std::fs::write(folder.path().join("state.db"), "no database").unwrap();
        let (exit, text) = said(folder.path(), Some(1));
        assert!(exit == Exit::Refused && text.contains("cannot be read"), "{text}");
    }

    #[test]
    fn the_initial_download_counts_where_it_ends() {
        let regtest = FakeChain::new().probe().unwrap();
        assert!(regtest.initial_block_download && !is_downloading(&regtest));
        let signet = ChainView { network: bitcoin::Network::Signet, ..regtest };
        assert!(is_downloading(&signet));
    }
}
