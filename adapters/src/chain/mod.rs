//! What this service asks of a Bitcoin node, and the nodes that answer.
//!
//! ```text
//! mod.rs         the port: Chain
//! error.rs       ChainError: which call failed, and what a caller may do about it
//! view.rs        what a node says about its chain, its coins and its mempool
//! submission.rs  what a node says about a transaction that it is given
//! bitcoind/      Bitcoin Core over JSON-RPC
//! fake/          an in-memory regtest chain for tests; checks no scripts
//! ```
//!
//! Every implementation passes the suite in `tests/chain/`.
//!
//! Nothing here decides anything: no call of this port guards a coin. Bitcoin Core replaces whatever pays more, so
//! the mempool guards nothing; the log does.

mod bitcoind;
mod error;
pub mod fake;
mod submission;
mod view;

use std::time::Duration;

use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};

pub use self::bitcoind::{Bitcoind, BitcoindAuth, BitcoindConfig};
pub use self::error::{ChainError, Retry};
pub use self::submission::{BroadcastOutcome, Conflict};
pub use self::view::{
    ChainTxOut, ChainView, HeaderInfo, OLDEST_SUPPORTED_VERSION, ScanDescriptor, ScanResult, ScanUtxo, TipRef,
};

/// The longest that one [`Chain::wait_tip`] waits; longer timeouts are cut to this.
pub const MAX_TIP_WAIT: Duration = Duration::from_mins(1);

/// Called after every RPC with its name, how long it took, and how it ended. Must not block: it runs on the caller's
/// thread.
pub type RpcObserver = std::sync::Arc<dyn Fn(&'static str, Duration, Result<(), &ChainError>) + Send + Sync>;

/// A Bitcoin node, as this service uses it.
///
/// Every method blocks the calling thread for at most the timeout that the implementation was made with (except
/// [`wait_tip`](Chain::wait_tip), which adds its own, and [`scan`](Chain::scan), which has a longer one). Call from
/// dedicated threads or `spawn_blocking`. A call never waits for a call of another kind: the long poll, the probe,
/// broadcasting, scanning and the remaining reads each have their own connection.
pub trait Chain: Send + Sync + 'static {
    /// One look at the node's chain, network and mempool, for health decisions.
    fn probe(&self) -> Result<ChainView, ChainError>;

    /// Waits until the tip differs from `current`, also when the height stays the same, and answers with the tip.
    ///
    /// After `timeout` (at most [`MAX_TIP_WAIT`]) answers with the tip as it is then. Bursts coalesce: walk back by
    /// previous hash. A node that is stopping answers early, so an unchanged tip says nothing about elapsed time.
    fn wait_tip(&self, current: BlockHash, timeout: Duration) -> Result<TipRef, ChainError>;

    /// The header of a block that the node knows, in the active chain or not. [`ChainError::is_not_found`] if it
    /// does not know it.
    fn header(&self, hash: BlockHash) -> Result<HeaderInfo, ChainError>;

    /// A whole block, whose hash and merkle root have been checked. [`ChainError::is_not_found`] if the node does
    /// not know it.
    fn block(&self, hash: BlockHash) -> Result<Block, ChainError>;

    /// The hash at a height of the active chain; `None` above the tip.
    fn block_hash_at(&self, height: u32) -> Result<Option<BlockHash>, ChainError>;

    /// An unspent output; `None` if it is unknown or spent. With `include_mempool`, outputs of mempool transactions
    /// count as unspent and outputs that mempool transactions spend count as spent.
    fn tx_out(&self, outpoint: OutPoint, include_mempool: bool) -> Result<Option<ChainTxOut>, ChainError>;

    /// All confirmed unspent outputs of the scripts that the descriptors describe, at one block. The mempool does not
    /// count. Minutes on mainnet; a node runs one scan at a time and is [`ChainError::Busy`] meanwhile.
    fn scan(&self, descriptors: &[ScanDescriptor]) -> Result<ScanResult, ChainError>;

    /// Hands a transaction to the node, which announces it to its peers. Harmless to repeat with the same bytes.
    ///
    /// On an error for which [`ChainError::is_unknown`] holds, the transaction may be in the mempool.
    fn broadcast(&self, tx: &Transaction) -> Result<BroadcastOutcome, ChainError>;

    /// For each outpoint, in order, the transaction that spends it: one in the mempool, or a confirmed one where the
    /// node has `-txospenderindex`. `None` means that no spender is known, which without the index says nothing
    /// about confirmed ones.
    fn spending_prevout(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Txid>>, ChainError>;

    /// The feerate in sat/vB for confirmation within `target_blocks` (1..=1008). Never below the mempool's minimum.
    /// `None` if the node has too little data, as on regtest and just after a start; use
    /// [`ChainView::mempool_min_feerate_sat_vb`] as floor then.
    fn estimate_fee(&self, target_blocks: u16) -> Result<Option<f64>, ChainError>;
}
