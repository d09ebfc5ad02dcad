//! Blocks: mined all the while, on a bitcoind that no fault has hit, and now and then taken back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::{Address, BlockHash, Network, ScriptBuf};
use serde_json::{Value, json};

use super::chronicle::Chronicle;
use crate::bitcoind::{Bitcoind, Caller};

/// A frozen bitcoind must not hold up the others.
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the others may take to see a block before the next one is mined all the same.
const SPREAD_TIMEOUT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

/// Mines until it is dropped.
#[derive(Debug)]
pub struct Blocks {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    pace: Mutex<Duration>,
    chain: Mutex<Chain>,
}

/// Held while blocks are made: one who mines and one who takes blocks back at the same time would make forks.
#[derive(Debug)]
struct Chain {
    bitcoinds: Vec<Caller>,
    /// Those that a fault has hit; they are not mined on.
    faulty: Vec<bool>,
    address: Address,
    next: usize,
    reorgs: u64,
    chronicle: Chronicle,
}

impl Blocks {
    /// Mines a block to `script` every `pace`. Nobody else mines from now on.
    ///
    /// # Errors
    /// The script has no address.
    pub fn start(bitcoinds: &[Bitcoind], script: &ScriptBuf, pace: Duration, chronicle: Chronicle) -> Result<Self> {
        let address = Address::from_script(script, Network::Regtest).context("no address for this script")?;
        let bitcoinds: Vec<Caller> = bitcoinds.iter().map(|bitcoind| bitcoind.caller().within(RPC_TIMEOUT)).collect();
        let faulty = vec![false; bitcoinds.len()];
        let chain = Mutex::new(Chain { bitcoinds, faulty, address, next: 0, reorgs: 0, chronicle });
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), pace: Mutex::new(pace), chain });
        let for_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while for_thread.wait_for_turn() {
                // One that fails mines nothing; the next one will.
                let _tried_again = for_thread.chain().mine_next();
            }
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on a block every `pace`.
    pub fn set_pace(&self, pace: Duration) {
        *self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// Whether a fault has hit a bitcoind: then it is not mined on.
    pub fn set_faulty(&self, index: usize, faulty: bool) {
        if let Some(known) = self.shared.chain().faulty.get_mut(index) {
            *known = faulty;
        }
    }

    /// Replaces the last `depth` blocks by `depth` others and one more. With `empty` the others hold no transactions,
    /// which then are unconfirmed for a while.
    ///
    /// # Errors
    /// No bitcoind is free of faults, or it refuses.
    pub fn reorganise(&self, depth: u32, empty: bool) -> Result<()> {
        self.shared.chain().reorganise(depth, empty)
    }

    /// What the blocks are now, and when they came.
    ///
    /// # Errors
    /// No bitcoind that is free of faults has the longest chain.
    pub fn look<T>(&self, look: impl FnOnce(&Chronicle) -> T) -> Result<T> {
        let mut chain = self.shared.chain();
        chain.follow()?;
        Ok(look(&chain.chronicle))
    }

    /// Reorganisations until now.
    pub fn reorgs(&self) -> u64 {
        self.shared.chain().reorgs
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _it_panicked = thread.join();
        }
    }
}

impl Shared {
    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until the next block is due; false when it is to stop.
    fn wait_for_turn(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < *self.pace.lock().unwrap_or_else(PoisonError::into_inner) {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            thread::sleep(POLL);
        }
        !self.stop.load(Ordering::SeqCst)
    }
}

/// A block with the content of one that was just taken back, mined within the same second, is that very block, which
/// bitcoind refuses. A second later it is another.
fn insist(miner: &Caller, method: &str, parameters: &[Value]) -> Result<()> {
    let deadline = Instant::now() + SPREAD_TIMEOUT;
    loop {
        match miner.call::<Value>(method, parameters) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(POLL),
        }
    }
}

impl Chain {
    fn sound(&self) -> Vec<&Caller> {
        self.bitcoinds.iter().zip(&self.faulty).filter(|(_, faulty)| !**faulty).map(|(caller, _)| caller).collect()
    }

    /// Those without faults that have the longest chain there ever was, and its height. One that was hit by a fault until
    /// now may be behind, on blocks that a reorganisation has replaced meanwhile: a block mined on those would make a
    /// deeper reorganisation of it than anybody asked for.
    fn longest(&self) -> Result<(u32, Vec<Caller>)> {
        let heights = self.sound().into_iter().filter_map(|one| Some((one.call::<u32>("getblockcount", &[]).ok()?, one)));
        let heights: Vec<_> = heights.collect();
        let tip = heights.iter().map(|(height, _)| *height).max().context("every bitcoind is faulty")?;
        ensure!(tip >= self.chronicle.highest(), "no bitcoind has more than {tip} blocks");
        Ok((tip, heights.into_iter().filter(|(height, _)| *height == tip).map(|(_, one)| one.clone()).collect()))
    }

    /// Mines one block, each time on the next of them.
    fn mine_next(&mut self) -> Result<()> {
        self.wait_until_spread();
        self.next = self.next.wrapping_add(1);
        let (_, longest) = self.longest()?;
        let miner = longest.get(self.next % longest.len()).context("every bitcoind is faulty")?;
        self.chronicle.expect();
        miner.call::<Value>("generatetoaddress", &[json!(1), json!(self.address.to_string())])?;
        self.chronicle.made(miner.call("getblockcount", &[])?, RPC_TIMEOUT);
        self.wait_until_spread();
        Ok(())
    }

    /// A chain that is shorter than one that was seen would say of what is final that it is not.
    fn follow(&mut self) -> Result<()> {
        let (tip, longest) = self.longest()?;
        self.chronicle.follow(tip, longest.first().context("every bitcoind is faulty")?)
    }

    fn reorganise(&mut self, depth: u32, empty: bool) -> Result<()> {
        self.wait_until_spread(); // else blocks would be taken back that some have not seen
        let (tip, longest) = self.longest()?;
        let miner = longest.first().context("every bitcoind is faulty")?;
        ensure!(tip > depth, "there are only {tip} blocks");
        let first: BlockHash = miner.call("getblockhash", &[json!(tip + 1 - depth)])?;
        miner.call::<Value>("invalidateblock", &[json!(first)])?;
        let address = json!(self.address.to_string());
        self.chronicle.expect();
        if empty {
            for _ in 0..depth {
                insist(miner, "generateblock", &[address.clone(), json!([])])?;
            }
        } else {
            for _ in 0..depth {
                insist(miner, "generatetoaddress", &[json!(1), address.clone()])?;
            }
        }
        insist(miner, "generatetoaddress", &[json!(1), address])?;
        self.chronicle.made(miner.call("getblockcount", &[])?, RPC_TIMEOUT);
        // The new chain is longer, so the old one stays behind without being forbidden.
        miner.call::<Value>("reconsiderblock", &[json!(first)])?;
        let tip: BlockHash = miner.call("getbestblockhash", &[])?;
        self.wait_until_spread();
        for bitcoind in self.sound() {
            let seen: BlockHash = bitcoind.call("getbestblockhash", &[])?;
            ensure!(seen == tip, "a bitcoind stays at {seen} instead of going over to {tip}");
        }
        self.reorgs += 1;
        Ok(())
    }

    /// Two blocks mined on different tips would be a fork that nobody asked for.
    fn wait_until_spread(&self) {
        let deadline = Instant::now() + SPREAD_TIMEOUT;
        while Instant::now() < deadline {
            let tips = self.sound().into_iter().map(|caller| caller.call::<BlockHash>("getbestblockhash", &[]).ok());
            let tips: Vec<BlockHash> = tips.flatten().collect();
            if tips.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            thread::sleep(POLL);
        }
    }
}
