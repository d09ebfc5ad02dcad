//! How callers are shown this node's bitcoind.

use std::time::Instant;

use onespend_proto::v1::{self, BitcoindState};

use super::{BitcoindWatch, probe::chain_name};
use crate::health::bitcoind_sync::SyncReason;

impl BitcoindWatch {
    /// This node's view of its own bitcoind.
    pub fn view(&self) -> v1::BitcoindView {
        let heard = self.heard.load();
        let shown = heard.judgement.view();
        let chain = heard.view.as_ref();
        v1::BitcoindView {
            state: state(shown.in_sync, shown.reason).into(),
            chain: chain_name(chain.map_or(self.network, |view| view.network)).to_owned(),
            tip: chain.map(|view| v1::BlockRef {
                height: view.tip.height,
                hash: view.tip.hash.to_string(),
                time: Some(prost_types::Timestamp { seconds: i64::try_from(view.tip_time_s).unwrap_or(0), nanos: 0 }),
            }),
            headers: shown.headers.unwrap_or(0),
            lag_blocks: shown.lag_blocks.unwrap_or(0),
            peers: shown.peers.unwrap_or(0),
            initial_block_download: chain.is_some_and(|view| view.initial_block_download),
            version: chain.map(|view| view.subversion.clone()).unwrap_or_default(),
            mempool_transactions: chain.map_or(0, |view| view.mempool_txs),
            age: heard
                .answered
                .and_then(|then| prost_types::Duration::try_from(Instant::now().saturating_duration_since(then)).ok()),
            rpc_latency: chain.and_then(|view| prost_types::Duration::try_from(view.latency).ok()),
            last_error: heard.error.clone().unwrap_or_default(),
        }
    }
}

fn state(in_sync: bool, reason: Option<SyncReason>) -> BitcoindState {
    match reason {
        None if in_sync => BitcoindState::InSync,
        None => BitcoindState::Unspecified,
        Some(SyncReason::NotProbed | SyncReason::Starting) => BitcoindState::Starting,
        Some(SyncReason::Unauthorized | SyncReason::Timeout | SyncReason::Unreachable) => BitcoindState::Unreachable,
        Some(SyncReason::WrongChain | SyncReason::WrongGenesis) => BitcoindState::WrongChain,
        Some(
            SyncReason::InitialBlockDownload
            | SyncReason::BehindHeaders
            | SyncReason::BehindCluster
            | SyncReason::LogBehind,
        ) => BitcoindState::Behind,
        Some(SyncReason::TooFewPeers) => BitcoindState::FewPeers,
        Some(SyncReason::Fork) => BitcoindState::Forked,
        Some(SyncReason::TipOld) => BitcoindState::TipOld,
    }
}
