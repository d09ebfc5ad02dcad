//! An in-memory regtest chain for tests.
//!
//! ```text
//! mod.rs      what a test may do to the chain
//! answers.rs  the calls of the port
//! ledger.rs   blocks, forks, coins
//! mempool.rs  who is in the mempool
//! policy.rs   who may enter it
//! fault.rs    failures on demand
//! ```
//!
//! Txids, merkle roots, proof of work and block hashes are real, and it passes the same suite as bitcoind. **It checks
//! no scripts or signatures**, so it says nothing about whether a transaction is signed well; `policy.rs` lists what
//! else is missing. It has no peers and behaves as a node with `-txospenderindex`.

mod answers;
mod fault;
mod ledger;
mod mempool;
mod policy;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::{Block, BlockHash, Script, Transaction, Txid};

pub use self::fault::Fault;
use self::fault::Faults;
use self::ledger::Ledger;
use self::mempool::Mempool;
use super::ChainError;

/// How long a hung call takes unless the test says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// A tip older than this keeps a node in initial block download.
const MAX_TIP_AGE_S: u64 = 24 * 60 * 60;

/// What the fake says about itself; change it with [`FakeChain::configure`].
#[derive(Debug, Clone)]
pub struct FakeNode {
    /// Peers that it claims.
    pub peers: u32,
    /// Headers that it claims beyond its blocks.
    pub headers_ahead: u32,
    /// Whether it claims initial block download; becomes false by itself with the first recent block.
    pub initial_block_download: bool,
    /// The block that it claims to be the oldest that it has; it gives all of them all the same.
    pub oldest_block: Option<u32>,
    /// Whether it claims to have loaded its mempool file.
    pub mempool_loaded: bool,
    /// What it estimates for every target, in sat/vB.
    pub feerate_sat_vb: Option<f64>,
    /// How long a hung call takes.
    pub timeout: Duration,
}

struct World {
    ledger: Ledger,
    mempool: Mempool,
    node: FakeNode,
    faults: Faults,
}

struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

/// A handle to one fake chain; clones share it.
#[derive(Clone)]
pub struct FakeChain(Arc<Shared>);

impl Default for FakeChain {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeChain {
    /// A chain of the genesis block alone.
    pub fn new() -> Self {
        let node = FakeNode {
            peers: 0,
            headers_ahead: 0,
            initial_block_download: true,
            oldest_block: None,
            mempool_loaded: true,
            feerate_sat_vb: None,
            timeout: DEFAULT_TIMEOUT,
        };
        let world = World { ledger: Ledger::new(), mempool: Mempool::default(), node, faults: Faults::default() };
        Self(Arc::new(Shared { world: Mutex::new(world), changed: Condvar::new() }))
    }

    /// Mines blocks that pay to `script`, the first with all of the mempool. Answers their hashes in order.
    pub fn mine(&self, count: u32, script: &Script) -> Vec<BlockHash> {
        let mine_one = |_| {
            self.change(|world| {
                let txs = world.mempool.in_order();
                let mined = world.ledger.mine(txs, script);
                world.after_block();
                mined
            })
        };
        // What the mempool holds can be mined.
        (0..count).map_while(|index| mine_one(index).ok()).collect()
    }

    /// Mines one block with exactly these transactions, which need not be in the mempool. Says why if they are not
    /// spendable in this order.
    pub fn mine_with(&self, txs: &[Transaction], script: &Script) -> Result<BlockHash, String> {
        self.change(|world| {
            let mined = world.ledger.mine(txs.to_vec(), script)?;
            world.after_block();
            Ok(mined)
        })
    }

    /// Declares a block and all that follow it invalid. Transactions return to the mempool.
    pub fn invalidate(&self, hash: BlockHash) {
        self.change(|world| {
            let returned = world.ledger.invalidate(hash);
            world.mempool.follow(&world.ledger, returned);
        });
    }

    /// Takes that back, also for ancestors and descendants.
    pub fn reconsider(&self, hash: BlockHash) {
        self.change(|world| {
            let returned = world.ledger.reconsider(hash);
            world.mempool.follow(&world.ledger, returned);
        });
    }

    /// Prefers a block to others of the same height.
    pub fn prefer(&self, hash: BlockHash) {
        self.change(|world| {
            let returned = world.ledger.prefer(hash);
            world.mempool.follow(&world.ledger, returned);
        });
    }

    /// Drops a transaction and its descendants from the mempool. Whether it was there.
    pub fn evict(&self, txid: Txid) -> bool {
        self.change(|world| world.mempool.evict(txid))
    }

    /// The mempool, parents before children.
    pub fn mempool(&self) -> Vec<Transaction> {
        self.lock().mempool.in_order()
    }

    /// The blocks of the active chain, genesis first, whatever faults stand.
    pub fn blocks(&self) -> Vec<Block> {
        self.lock().ledger.active_blocks()
    }

    /// Sets the node's clock, in Unix seconds; it stands there.
    pub fn set_time(&self, unix_s: u64) {
        self.change(|world| world.ledger.clock_s = Some(unix_s));
    }

    /// Changes what the node says about itself.
    pub fn configure(&self, change: impl FnOnce(&mut FakeNode)) {
        self.change(|world| change(&mut world.node));
    }

    /// Makes the next `times` calls fail (`u32::MAX`: until [`clear_faults`](Self::clear_faults)); only calls of
    /// `method`, a Bitcoin Core RPC name such as `sendrawtransaction`, if one is named. Earlier injections go first.
    pub fn inject(&self, method: Option<&'static str>, fault: Fault, times: u32) {
        self.change(|world| world.faults.inject(method, fault, times));
    }

    /// Ends all faults, and all calls that hang.
    pub fn clear_faults(&self) {
        self.change(|world| world.faults.clear());
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.lock());
        self.0.changed.notify_all();
        result
    }

    /// One call of the port, which may meet a fault.
    fn answer<T>(
        &self,
        method: &'static str,
        call: impl FnOnce(&mut World) -> Result<T, ChainError>,
    ) -> Result<T, ChainError> {
        let mut world = self.lock();
        let timeout = world.node.timeout;
        match world.faults.take(method) {
            None => call(&mut world),
            Some(fault) => {
                match fault {
                    Fault::LostAnswer => {
                        call(&mut world)?;
                    }
                    Fault::Hang => self.hang(world, timeout),
                    Fault::Starting | Fault::Unauthorized | Fault::Refused | Fault::Timeout => {}
                }
                Err(fault.error(method, timeout))
            }
        }
    }

    /// Waits until faults are cleared or the timeout has passed.
    fn hang(&self, mut world: MutexGuard<'_, World>, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let clearings = world.faults.clearings();
        while world.faults.clearings() == clearings {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (world, _) = self.0.changed.wait_timeout(world, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl World {
    /// A block has come: the mempool follows, and a recent block ends the initial download.
    fn after_block(&mut self) {
        self.mempool.follow(&self.ledger, Vec::new());
        let tip_time = self.ledger.block(self.ledger.tip()).map_or(0, |(b, ..)| b.header.time);
        if u64::from(tip_time) + MAX_TIP_AGE_S > self.ledger.now_s() {
            self.node.initial_block_download = false;
        }
    }
}
