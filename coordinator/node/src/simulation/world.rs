//! The machines, the chain and the signers of one run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bitcoin::Network;
use onespend_adapters::chain::fake::FakeChain;
use onespend_adapters::signer::software::SoftwareSigner;
use onespend_core::command::BlockRef;
use onespend_core::ids::Height;
use onespend_core::wallet::Keychain;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::BEGINS_AT;
use super::executor::{Executor, Host, OUTSIDE, current};
use super::judge::Judge;
use super::machine::{CLUSTER, Lie, Machine, NODES, Running, Site, limits};
use super::sky::Sky;
use crate::leader::scripts::SharedScripts;
use crate::raft::simulated::{Lines, Weather};
use crate::runtime::{sleep, timeout};
use crate::specimen;

/// The wallet that pays.
pub(super) const WALLET: &str = "hot";
/// Coins that it begins with, of 50 BTC each.
const COINS: u32 = 24;
/// A call is given up after this.
const CALL_LIMIT: Duration = Duration::from_secs(3);

/// Everything of one run.
pub(super) struct World {
    machines: RefCell<BTreeMap<Host, Machine>>,
    pub(super) sky: Arc<Sky>,
    pub(super) chain: FakeChain,
    pub(super) judge: Arc<Judge>,
    site: Site,
    /// Whether callers and faults go on.
    pub(super) busy: Cell<bool>,
}

impl World {
    /// In every second run the signers remember what they have signed. In the others, and where something lies, the log has
    /// to do without that barrier: it would hide what the log lets through.
    pub(super) fn new(seed: u64, lie: Option<Lie>) -> Rc<Self> {
        let remembers = lie.is_none() && seed.is_multiple_of(2);
        let sky = Arc::new(Sky::default());
        let judge = Arc::new(Judge::default());
        let chain = FakeChain::new();
        chain.set_time(BEGINS_AT.as_secs());
        // So deep that the coins are mature.
        chain.mine(COINS, &specimen::script(WALLET, Keychain::External, 0));
        chain.mine(120, &miner());
        let weather: Arc<dyn Weather> = sky.clone();
        let (lines, scripts) = (Lines::new(weather), scripts().clone());
        let limits = limits(lie);
        let site = Site { lines, chain: chain.clone(), judge: Arc::clone(&judge), scripts, limits };
        let machines = NODES.map(|id| (id, Machine::new(id, lie, remembers))).into();
        Rc::new(Self { machines: RefCell::new(machines), sky, chain, judge, site, busy: Cell::new(true) })
    }

    /// Time passes for the chain, and a block comes.
    pub(super) fn mine(&self, count: u32) {
        self.chain.set_time((BEGINS_AT + executor().passed()).as_secs());
        self.chain.mine(count, &miner());
    }

    /// Starts a machine that is off, and waits until its node runs.
    pub(super) async fn start(&self, id: Host) {
        let boot = {
            let mut machines = self.machines.borrow_mut();
            let machine = machines.get_mut(&id).unwrap();
            if std::mem::replace(&mut machine.on, true) {
                return;
            }
            machine.boot(self.site.clone())
        };
        if let Some(running) = executor().spawn_on(id, boot).await {
            let mut machines = self.machines.borrow_mut();
            let machine = machines.get_mut(&id).unwrap();
            // It may have been killed meanwhile.
            if machine.on && machine.running.is_none() {
                self.judge.watch(id, &running);
                machine.running = Some(running);
            }
        }
    }

    pub(super) fn kill(&self, id: Host) {
        self.machines.borrow_mut().get_mut(&id).unwrap().kill(&self.site.lines);
    }

    /// The node of a machine, if it runs.
    pub(super) fn node(&self, id: Host) -> Option<Running> {
        self.machines.borrow()[&id].running.clone()
    }

    /// The nodes that run.
    pub(super) fn nodes(&self) -> Vec<(Host, Running)> {
        NODES.into_iter().filter_map(|id| Some((id, self.node(id)?))).collect()
    }

    /// Calls a node from outside. `None`: no answer came, and whether it was done is not known.
    pub(super) async fn call<T, F>(&self, id: Host, work: impl FnOnce(Running) -> F + 'static) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (tell, answer) = oneshot::channel();
        let arrival = self.sky.arrivals(OUTSIDE, id).first().copied();
        let node = self.node(id);
        executor().spawn_on(id, async move {
            let (Some(arrival), Some(node)) = (arrival, node) else { return };
            sleep(arrival).await;
            drop(tell.send(work(node).await));
        });
        let answer = timeout(CALL_LIMIT, answer).await.ok()?.ok()?;
        sleep(self.sky.arrivals(id, OUTSIDE).first().copied()?).await;
        Some(answer)
    }
}

/// The executor of this run.
pub(super) fn executor() -> Rc<Executor> {
    current().expect("a simulation runs on this thread")
}

/// A number in a range.
pub(super) fn pick(range: std::ops::RangeInclusive<usize>) -> usize {
    executor().pick(range)
}

/// Whether something happens that does so in this many of a hundred cases.
pub(super) fn chance(percent: usize) -> bool {
    pick(0..=99) < percent
}

/// Waits for some time within bounds, in milliseconds.
pub(super) async fn pause(ms: std::ops::RangeInclusive<usize>) {
    let length = Duration::from_millis(pick(ms) as u64);
    sleep(length).await;
}

fn miner() -> bitcoin::ScriptBuf {
    specimen::script("miner", Keychain::External, 0)
}

fn scripts() -> &'static SharedScripts {
    static SCRIPTS: OnceLock<SharedScripts> = OnceLock::new();
    SCRIPTS.get_or_init(SharedScripts::default)
}

/// The keys of the wallet, as every node has them, with the memory of this node's signer in that file, if it has one.
pub(super) fn keys(memory: Option<&Path>) -> Arc<SoftwareSigner> {
    static FORGETFUL: OnceLock<Arc<SoftwareSigner>> = OnceLock::new();
    let Some(memory) = memory else {
        return Arc::clone(FORGETFUL.get_or_init(|| Arc::new(read_keys())));
    };
    Arc::new(read_keys().with_memory(memory, CLUSTER, Network::Regtest).unwrap())
}

fn read_keys() -> SoftwareSigner {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    writeln!(file, "{}", specimen::private_descriptor(WALLET)).unwrap();
    SoftwareSigner::from_file("hot", &path, Network::Regtest).unwrap()
}

/// The block so far below the tip of the chain.
pub(super) fn tip(chain: &FakeChain, below: usize) -> BlockRef {
    let blocks = chain.blocks();
    let (height, block) =
        (0_u32..).zip(&blocks).collect::<Vec<_>>().into_iter().rev().nth(below).expect("the chain is longer");
    BlockRef { height: Height(height), hash: block.block_hash() }
}
