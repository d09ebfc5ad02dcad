//! What a node says about its chain, its coins and its mempool.

use std::time::Duration;

use bitcoin::{Amount, BlockHash, Network, OutPoint, ScriptBuf};

/// The oldest Bitcoin Core that is supported. `waitfornewblock` takes the tip that the caller knows since version 30, so
/// with an older one blocks are only seen by the probe; and mempools relay from 0.1 sat/vB since 29.1, so an older one
/// may refuse what this service signs for.
pub const OLDEST_SUPPORTED_VERSION: u32 = 300_000;

/// A block by height and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TipRef {
    /// Blocks below this one; the genesis block has 0.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
}

/// One look at a node. No single field says "in sync": `initial_block_download` latches false, and headers may lag
/// when there are no peers. The node's health module weighs them.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainView {
    /// Which network the node is on.
    pub network: Network,
    /// The hash of block 0.
    pub genesis: BlockHash,
    /// The tip of the active chain.
    pub tip: TipRef,
    /// The tip's header time, in seconds since 1970. Miners may set it up to two hours wrong.
    pub tip_time_s: u64,
    /// Height of the best header chain; never below the tip's height on a healthy node.
    pub headers: u32,
    /// Whether the node has not caught up since its start. Never becomes true again.
    pub initial_block_download: bool,
    /// The lowest block that the node still has, where it throws old ones away (`prune`); `None` where it keeps all.
    pub oldest_block: Option<u32>,
    /// Connected peers.
    pub peers: u32,
    /// Bitcoin Core's version number, such as 310000.
    pub version: u32,
    /// Its user agent, such as `/Satoshi:31.0.0/`.
    pub subversion: String,
    /// The least feerate that enters the mempool now, in sat/vB.
    pub mempool_min_feerate_sat_vb: f64,
    /// What a replacement must pay for its own relay beyond the fees that it replaces, in sat/vB.
    pub incremental_feerate_sat_vb: f64,
    /// Transactions in the mempool.
    pub mempool_txs: u64,
    /// Whether the mempool file of the last run has been read. Until then, absence from the mempool means nothing.
    pub mempool_loaded: bool,
    /// Round trip of the first request of this probe.
    pub latency: Duration,
}

impl ChainView {
    /// Whether the node is a Bitcoin Core of [`OLDEST_SUPPORTED_VERSION`] or later.
    pub fn is_supported(&self) -> bool {
        self.version >= OLDEST_SUPPORTED_VERSION
    }
}

/// A block header and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderInfo {
    /// The block's hash.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// The block before it; `None` for the genesis block.
    pub prev: Option<BlockHash>,
    /// Header time, seconds since 1970.
    pub time_s: u64,
    /// Depth, the tip having 1; `None` if the block is not in the active chain.
    pub confirmations: Option<u32>,
}

/// An unspent output as the node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainTxOut {
    /// Its value.
    pub value: Amount,
    /// Its script.
    pub script: ScriptBuf,
    /// Depth, the tip having 1; 0 in the mempool.
    pub confirmations: u32,
    /// Whether a coinbase made it (spendable in the 100th block after its own).
    pub coinbase: bool,
    /// The tip that this answer belongs to.
    pub best_block: BlockHash,
}

/// Which scripts to scan for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanDescriptor {
    /// A public output descriptor; the checksum may be missing.
    pub descriptor: String,
    /// First and last index of a ranged descriptor. `None` for one without `*`.
    pub range: Option<(u32, u32)>,
}

/// All matching unspent outputs at one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanResult {
    /// Height of the block.
    pub height: u32,
    /// Hash of the block.
    pub hash: BlockHash,
    /// What was found, ordered by outpoint.
    pub utxos: Vec<ScanUtxo>,
}

/// One output that a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanUtxo {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Its value.
    pub value: Amount,
    /// Its script.
    pub script: ScriptBuf,
    /// Height of the block that made it.
    pub height: u32,
    /// Whether a coinbase made it.
    pub coinbase: bool,
}
