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
    /// Null before the first block, and if it is not known.
    tip: Option<Block>,
    /// Why the tip is not known; null if it is.
    tip_unknown: Option<String>,
    nodes: Vec<Node>,
}

impl NodeViews {
    /// Of two answers. Where the one about the tip is missing, its error says why, unless so few nodes answer that this is
    /// why.
    pub fn new(tip: Result<Option<v1::BlockRef>, String>, views: v1::GetNodeViewsResponse) -> Self {
        let node = |view: v1::NodeView| Node {
            node_id: view.node_id,
            reachable: view.reachable,
            bitcoind: view.bitcoind.map(Bitcoind::from),
            applied_index: view.applied_index,
            error: set(view.error),
        };
        let nodes: Vec<Node> = views.views.into_iter().map(node).collect();
        let (tip, tip_unknown) = match tip {
            Ok(tip) => (tip.map(Block::from), None),
            Err(error) => (None, Some(too_few(&nodes).unwrap_or(error))),
        };
        Self { tip, tip_unknown, nodes }
    }

    fn tip_line(&self) -> String {
        match (&self.tip, &self.tip_unknown) {
            (Some(tip), _) => tip.line(),
            (None, Some(why)) => format!("unknown: {why}"),
            (None, None) => "no block yet".to_owned(),
        }
    }
}

/// That so few nodes answer that they are no quorum.
fn too_few(nodes: &[Node]) -> Option<String> {
    let answering = nodes.iter().filter(|node| node.reachable).count();
    (answering * 2 <= nodes.len()).then(|| format!("no quorum: {answering} of {} nodes answer", nodes.len()))
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
        format!("tip  {}\n\n{list}", self.tip_line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tip: Result<Option<v1::BlockRef>, String>, reachable: [bool; 3]) -> String {
        let view = |(node_id, reachable)| v1::NodeView { node_id, reachable, ..Default::default() };
        let views = (1..).zip(reachable).map(view).collect();
        let text = NodeViews::new(tip, v1::GetNodeViewsResponse { views, ..Default::default() }).text();
        text.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_tip_that_is_not_known_is_no_missing_block() {
        let lost = || Err("no answer in 43 tries".to_owned());
        assert_eq!(shown(lost(), [true, false, false]), "tip  unknown: no quorum: 1 of 3 nodes answer");
        assert_eq!(shown(lost(), [true, true, false]), "tip  unknown: no answer in 43 tries");
        assert_eq!(shown(Ok(None), [true, true, true]), "tip  no block yet");
        let block = v1::BlockRef { height: 135, hash: "0".repeat(64), time: None };
        let known = shown(Ok(Some(block)), [true, false, false]);
        assert!(known.starts_with("tip  height 135"), "{known}");
    }
}
