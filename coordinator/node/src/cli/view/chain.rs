//! Blocks and bitcoinds.

use onespend_proto::v1;
use serde::Serialize;

use super::{millis, set, time};
use crate::cli::format::{grouped, short, timestamp_ago};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};
use crate::cli::words::Word as _;

/// `v1::BlockRef`.
#[derive(Debug, Serialize)]
pub struct Block {
    /// Height.
    pub height: u32,
    hash: String,
    time: Option<String>,
    #[serde(skip)]
    age: String,
}

impl From<v1::BlockRef> for Block {
    fn from(block: v1::BlockRef) -> Self {
        Self {
            height: block.height,
            hash: block.hash,
            time: time(block.time.as_ref()),
            age: timestamp_ago(block.time.as_ref()),
        }
    }
}

impl Block {
    /// `height 812,345, 0000000000ab…, 4 min ago`.
    pub fn line(&self) -> String {
        let mut line = format!("height {}, {}", grouped(i64::from(self.height)), short(&self.hash));
        if !self.age.is_empty() {
            line = format!("{line}, {}", self.age);
        }
        line
    }
}

/// `v1::BitcoindView`.
#[derive(Debug, Serialize)]
pub struct Bitcoind {
    state: &'static str,
    chain: String,
    tip: Option<Block>,
    headers: u32,
    lag_blocks: u32,
    peers: u32,
    initial_block_download: bool,
    version: String,
    mempool_transactions: u64,
    age_ms: Option<u64>,
    rpc_latency_ms: Option<u64>,
    last_error: Option<String>,
}

impl From<v1::BitcoindView> for Bitcoind {
    fn from(view: v1::BitcoindView) -> Self {
        Self {
            state: view.state().word(),
            chain: view.chain,
            tip: view.tip.map(Block::from),
            headers: view.headers,
            lag_blocks: view.lag_blocks,
            peers: view.peers,
            initial_block_download: view.initial_block_download,
            version: view.version,
            mempool_transactions: view.mempool_transactions,
            age_ms: millis(view.age.as_ref()),
            rpc_latency_ms: millis(view.rpc_latency.as_ref()),
            last_error: set(view.last_error),
        }
    }
}

impl Bitcoind {
    /// `in sync, 812345, 8 peers`.
    pub fn line(&self) -> String {
        let state = self.state.replace('_', " ");
        match &self.tip {
            Some(tip) => format!("{state}, {}, {} peers", tip.height, self.peers),
            None => state,
        }
    }

    /// The last error, for people.
    pub fn error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

/// A node's answer to GetNodeViews.
#[derive(Debug, Serialize)]
pub struct Node {
    node_id: u64,
    reachable: bool,
    bitcoind: Option<Bitcoind>,
    applied_index: u64,
    error: Option<String>,
}

/// What the data ports alone can tell of the cluster.
#[derive(Debug, Serialize)]
pub struct NodeViews {
    tip: Option<Block>,
    nodes: Vec<Node>,
}

impl NodeViews {
    /// Of two answers.
    pub fn new(tip: Option<v1::BlockRef>, views: v1::GetNodeViewsResponse) -> Self {
        let node = |view: v1::NodeView| Node {
            node_id: view.node_id,
            reachable: view.reachable,
            bitcoind: view.bitcoind.map(Bitcoind::from),
            applied_index: view.applied_index,
            error: set(view.error),
        };
        Self { tip: tip.map(Block::from), nodes: views.views.into_iter().map(node).collect() }
    }
}

impl Show for NodeViews {
    fn text(&self) -> String {
        let columns = [Column::Number("NODE"), Column::Number("APPLIED"), Column::Whole("BITCOIND"), Column::Text("")];
        let row = |node: &Node| {
            let error = node.error.as_deref().or(node.bitcoind.as_ref().and_then(Bitcoind::error));
            let bitcoind = match &node.bitcoind {
                Some(bitcoind) => bitcoind.line(),
                None => "node unreachable".to_owned(),
            };
            let applied = if node.reachable { node.applied_index.to_string() } else { "-".to_owned() };
            [node.node_id.to_string(), applied, bitcoind, error.unwrap_or_default().to_owned()]
        };
        let list = table::list(columns, self.nodes.iter().map(row), "no nodes");
        let tip = self.tip.as_ref().map_or_else(|| "no block yet".to_owned(), Block::line);
        format!("tip  {tip}\n\n{list}")
    }
}
