//! This node's bitcoind: reachable, let in, on the right chain, in sync, and able to say who spent a coin.

use bitcoin::constants::genesis_block;
use onespend_adapters::chain::{self, Bitcoind, Chain, ChainError, ChainView};

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

    use super::*;

    #[test]
    fn the_initial_download_counts_where_it_ends() {
        let regtest = FakeChain::new().probe().unwrap();
        assert!(regtest.initial_block_download && !is_downloading(&regtest));
        let signet = ChainView { network: bitcoin::Network::Signet, ..regtest };
        assert!(is_downloading(&signet));
    }
}
