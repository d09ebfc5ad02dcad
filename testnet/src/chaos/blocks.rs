//! Blocks: mined all the while, on a bitcoind that no fault has hit, and now and then taken back. A bitcoind that has no
//! peers may have a branch of its own for a while. It is longer than the chain at first, so a leader beside it follows it;
//! then the chain overtakes it, before anybody hears of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::hashes::Hash;
use bitcoin::{Address, BlockHash, Network, ScriptBuf, WPubkeyHash};
use serde_json::{Value, json};

use super::chronicle::Chronicle;
use crate::bitcoind::{Bitcoind, Caller};

/// A frozen bitcoind must not hold up the others.
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the others may take to see a block before the next one is mined all the same.
const SPREAD_TIMEOUT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
/// A bitcoind that is to leave the chain must be on it, and have no peers: within this.
const APART_PATIENCE: Duration = Duration::from_secs(20);
/// Within this the chain has overtaken a branch.
const OVERTAKE_PATIENCE: Duration = Duration::from_secs(30);
/// Far above what a block takes: one that is asked for twice would make a branch longer than it may be.
const BRANCH_RPC_TIMEOUT: Duration = Duration::from_mins(1);
/// Who mines on a branch of his own: nobody that any judge knows.
const STRANGER: [u8; 20] = [0x5a; 20];
/// Who mines what replaces blocks that are taken back, another one each time: the same miner would make the same block of
/// the same content in the same second, and that one was just forbidden.
const REPLACER: u8 = 0x5b;

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
    /// Whether no block comes by itself.
    resting: bool,
    reorgs: u64,
    /// The highest that the chain has been which is mined on. A branch may have been higher.
    highest: u32,
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
        let highest = chronicle.highest();
        let (next, resting, reorgs) = (0, false, 0);
        let chain = Mutex::new(Chain { bitcoinds, faulty, address, next, resting, reorgs, highest, chronicle });
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), pace: Mutex::new(pace), chain });
        let for_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while for_thread.wait_for_turn() {
                let mut chain = for_thread.chain();
                if !chain.resting {
                    // One that fails mines nothing; the next one will.
                    let _tried_again = chain.mine_next();
                }
            }
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on a block every `pace`.
    pub fn set_pace(&self, pace: Duration) {
        *self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// Whether blocks rest: while they do, none is mined but those that are asked for.
    pub fn set_resting(&self, resting: bool) {
        self.shared.chain().resting = resting;
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
        self.shared.chain().reorganise(depth, if empty { depth } else { 0 })
    }

    /// Replaces the last `depth` blocks by `depth` others and one more, of which none holds a transaction: what they held is
    /// unconfirmed until somebody mines again.
    ///
    /// # Errors
    /// As [`Self::reorganise`].
    pub fn take_back(&self, depth: u32) -> Result<()> {
        self.shared.chain().reorganise(depth, depth + 1)
    }

    /// Takes a bitcoind off the network, and has it mine so many blocks on the tip, which nobody else gets. With `empty`
    /// they hold no transactions. From now on it counts as hit by a fault.
    ///
    /// # Errors
    /// It is not on the chain for long, keeps its peers, or does not mine.
    pub fn branch_off(&self, index: usize, bitcoind: &Bitcoind, blocks: u32, empty: bool) -> Result<()> {
        let deadline = Instant::now() + APART_PATIENCE;
        // It may still be catching up after the fault before.
        while !self.shared.chain().branch_off(index, bitcoind, blocks, empty)? {
            ensure!(Instant::now() < deadline, "bitcoind {} is not on the chain", index + 1);
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Mines until the chain is higher than the branch of a bitcoind that is off the network.
    ///
    /// # Errors
    /// It does not become so for long.
    pub fn overtake(&self, index: usize) -> Result<()> {
        self.shared.chain().overtake(index)
    }

    /// Whether a bitcoind has the chain's tip.
    ///
    /// # Errors
    /// It does not answer, or no bitcoind without faults has the longest chain.
    pub fn has_joined(&self, index: usize) -> Result<bool> {
        self.shared.chain().has_joined(index)
    }

    /// What the blocks are now, and when they came.
    ///
    /// # Errors
    /// No bitcoind that is free of faults has the longest chain, or a branch is longer at the moment.
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

/// The address of a miner without keys, as an argument of an RPC.
fn miner_of(hash: [u8; 20]) -> Result<Value> {
    let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash));
    Ok(json!(Address::from_script(&script, Network::Regtest).context("no address for this script")?.to_string()))
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
        let heights =
            self.sound().into_iter().filter_map(|one| Some((one.call::<u32>("getblockcount", &[]).ok()?, one)));
        let heights: Vec<_> = heights.collect();
        let tip = heights.iter().map(|(height, _)| *height).max().context("every bitcoind is faulty")?;
        ensure!(tip >= self.highest, "no bitcoind has more than {tip} blocks");
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
        self.made(miner.call("getblockcount", &[])?);
        self.wait_until_spread();
        Ok(())
    }

    fn made(&mut self, height: u32) {
        self.highest = self.highest.max(height);
        self.chronicle.made(height, RPC_TIMEOUT);
    }

    /// False where it is not on the chain now, and nothing was done.
    fn branch_off(&mut self, index: usize, bitcoind: &Bitcoind, blocks: u32, empty: bool) -> Result<bool> {
        self.wait_until_spread();
        // One that does not answer is not on it yet.
        if !self.has_joined(index).unwrap_or(false) {
            return Ok(false);
        }
        *self.faulty.get_mut(index).with_context(|| format!("no bitcoind at index {index}"))? = true;
        bitcoind.set_network(false)?;
        let deadline = Instant::now() + APART_PATIENCE;
        while bitcoind.call::<u32>("getconnectioncount", &[])? > 0 {
            ensure!(Instant::now() < deadline, "bitcoind {} keeps its peers", index + 1);
            thread::sleep(POLL);
        }
        let miner = bitcoind.caller().within(BRANCH_RPC_TIMEOUT);
        let stranger = miner_of(STRANGER)?;
        // What is deep on the branch is called final by who follows it: its heights count from now on.
        self.chronicle.expect();
        for _ in 0..blocks {
            if empty {
                insist(&miner, "generateblock", &[stranger.clone(), json!([])])?;
            } else {
                insist(&miner, "generatetoaddress", &[json!(1), stranger.clone()])?;
            }
        }
        self.chronicle.made(miner.call("getblockcount", &[])?, RPC_TIMEOUT);
        Ok(true)
    }

    fn overtake(&mut self, index: usize) -> Result<()> {
        let branch: u32 = self.one(index)?.call("getblockcount", &[])?;
        let deadline = Instant::now() + OVERTAKE_PATIENCE;
        while self.highest <= branch {
            // One that fails mines nothing; the next one will.
            if let Err(error) = self.mine_next() {
                ensure!(Instant::now() < deadline, "the chain does not overtake {branch} blocks: {error:#}");
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    fn has_joined(&self, index: usize) -> Result<bool> {
        let (_, longest) = self.longest()?;
        let tip: BlockHash = longest.first().context("every bitcoind is faulty")?.call("getbestblockhash", &[])?;
        Ok(tip == self.one(index)?.call::<BlockHash>("getbestblockhash", &[])?)
    }

    fn one(&self, index: usize) -> Result<&Caller> {
        self.bitcoinds.get(index).with_context(|| format!("no bitcoind at index {index}"))
    }

    /// A chain that is shorter than one that was seen would say of what is final that it is not. That may have been a
    /// branch, so nothing is said until the chain has overtaken it.
    fn follow(&mut self) -> Result<()> {
        let (tip, longest) = self.longest()?;
        ensure!(tip >= self.chronicle.highest(), "there were more than {tip} blocks");
        self.chronicle.follow(tip, longest.first().context("every bitcoind is faulty")?)
    }

    /// The first `empty` of the new blocks hold no transactions.
    fn reorganise(&mut self, depth: u32, empty: u32) -> Result<()> {
        self.wait_until_spread(); // else blocks would be taken back that some have not seen
        let (tip, longest) = self.longest()?;
        let miner = longest.first().context("every bitcoind is faulty")?;
        ensure!(tip > depth, "there are only {tip} blocks");
        let forbidden = miner.take_back(depth)?;
        let mut replacer = [REPLACER; 20];
        replacer[..8].copy_from_slice(&self.reorgs.to_le_bytes());
        let address = miner_of(replacer)?;
        self.chronicle.expect();
        for number in 0..=depth {
            if number < empty {
                insist(miner, "generateblock", &[address.clone(), json!([])])?;
            } else {
                insist(miner, "generatetoaddress", &[json!(1), address.clone()])?;
            }
        }
        let height: u32 = miner.call("getblockcount", &[])?;
        self.made(height);
        // The new chain is longer, so the others stay behind without being forbidden.
        for block in forbidden {
            miner.call::<Value>("reconsiderblock", &[json!(block)])?;
        }
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
