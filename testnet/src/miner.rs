//! Mines blocks in the background, each on the next bitcoind, as the world does while payments are under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bitcoin::{Address, BlockHash, Network, ScriptBuf};
use serde_json::{Value, json};

use crate::bitcoind::{Bitcoind, Caller};

/// How long the others may take to see a block before the next one is mined all the same (one of them may be down).
const SPREAD_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// A thread that mines until it is dropped.
#[derive(Debug)]
pub struct Miner {
    stop: Arc<AtomicBool>,
    pace: Arc<Mutex<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Miner {
    /// Mines one block to `script` every `pace`.
    ///
    /// # Errors
    /// The script has no address.
    pub fn start(bitcoinds: &[Bitcoind], script: &ScriptBuf, pace: Duration) -> Result<Self> {
        let address = Address::from_script(script, Network::Regtest).context("no address for this script")?;
        let callers: Vec<Caller> = bitcoinds.iter().map(Bitcoind::caller).collect();
        let (stop, pace) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(pace)));
        let (stopped, paced) = (Arc::clone(&stop), Arc::clone(&pace));
        let thread = thread::spawn(move || {
            for caller in callers.iter().cycle() {
                if !sleep(&stopped, &paced) {
                    return;
                }
                // One that is down mines nothing; the next one will.
                let params = [json!(1), json!(address.to_string())];
                if caller.call::<Value>("generatetoaddress", &params).is_ok() {
                    wait_until_spread(&callers, caller);
                }
            }
        });
        Ok(Self { stop, pace, thread: Some(thread) })
    }

    /// From now on a block every `pace`.
    pub fn set_pace(&self, pace: Duration) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }
}

impl Drop for Miner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _it_panicked = thread.join();
        }
    }
}

/// Sleeps until the next block is due; false when the miner is to stop.
fn sleep(stop: &AtomicBool, pace: &Mutex<Duration>) -> bool {
    let started = Instant::now();
    while started.elapsed() < *pace.lock().unwrap_or_else(PoisonError::into_inner) {
        if stop.load(Ordering::SeqCst) {
            return false;
        }
        thread::sleep(POLL);
    }
    !stop.load(Ordering::SeqCst)
}

/// Two blocks mined on different tips would be a fork, and that is not what this thread is for.
fn wait_until_spread(all: &[Caller], miner: &Caller) {
    let deadline = Instant::now() + SPREAD_TIMEOUT;
    let tip = |caller: &Caller| caller.call::<BlockHash>("getbestblockhash", &[]).ok();
    while Instant::now() < deadline {
        let mined = tip(miner);
        if all.iter().all(|caller| tip(caller).is_none_or(|other| Some(other) == mined)) {
            return;
        }
        thread::sleep(POLL);
    }
}
