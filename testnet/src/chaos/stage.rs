//! The cluster under faults: strikes them and ends them. `stage/bitcoinds.rs` has those of bitcoinds; `stage/ending.rs` has
//! those that end in steps, and looks after processes that end by themselves.

mod bitcoinds;
mod ending;

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::blocks::Blocks;
use super::failpoints::ControlFile;
use super::late::{Late, Pending, Tries};
use super::schedule::{Kind, Planned, Target};
use super::violation::Violation;
use crate::cluster::{Cluster, FINALITY_DEPTH, Node, Replacement};
use crate::history::{FaultSeen, History, Nanos};
use crate::oracle::endpoints::PrimaryWatch;
use crate::process::{Process, Signal};
use crate::relay::Link;

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: u64 = 60_000;
/// Blocks that a reorganisation replaces at most: all that are below the depth at which a payment is settled.
pub const MAX_REORG: u32 = FINALITY_DEPTH - 1;
/// What the history calls a late signature that did not come.
const IN_VAIN: &str = "late_signature_in_vain";

/// A fault that has struck and not ended.
#[derive(Clone, Debug)]
struct Active {
    planned: Planned,
    /// Index of the node that it hit, or of the bitcoind beside it.
    hit: usize,
    start_ns: Nanos,
    until: Instant,
}

/// How far the replacement of a node is.
#[derive(Debug)]
enum Lost {
    Nothing,
    /// Its disk is gone.
    Disk(Replacement),
    /// The new node runs, and is to get its vote.
    Vote(JoinHandle<Result<()>>),
}

/// The cluster, and what is wrong with it at the moment.
#[derive(Debug)]
pub struct Stage {
    cluster: Cluster,
    blocks: Blocks,
    primaries: PrimaryWatch,
    failpoints: Vec<ControlFile>,
    /// Nodes that a fault has taken down, or that it forces to end.
    down: Vec<bool>,
    /// Ids are never used again.
    newest_id: u64,
    lost: Lost,
    late: Late,
    tries: Tries,
    /// Whether a bitcoind is on a branch of its own, off the network.
    has_branch: bool,
    pending: Pending,
    active: Vec<Active>,
    struck: BTreeMap<&'static str, u64>,
    violations: Vec<Violation>,
}

impl Stage {
    /// A cluster without faults.
    pub fn new(cluster: Cluster, blocks: Blocks, pending: Pending) -> Self {
        let failpoints = cluster.nodes().iter().map(|node| ControlFile::new(node.failpoints_file())).collect();
        let primaries = PrimaryWatch::start(cluster.nodes().iter().map(|node| node.addresses().health));
        let down = vec![false; cluster.nodes().len()];
        let newest_id = cluster.nodes().iter().map(Node::id).max().unwrap_or(0);
        let (active, struck, violations) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self {
            cluster,
            blocks,
            primaries,
            failpoints,
            down,
            newest_id,
            lost: Lost::Nothing,
            late: Late::Nothing,
            tries: Tries::default(),
            has_branch: false,
            pending,
            active,
            struck,
            violations,
        }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Who makes blocks.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Who watches `/primary`.
    pub fn primaries(&self) -> &PrimaryWatch {
        &self.primaries
    }

    /// How often each kind of fault has struck; of late signatures those that came.
    pub fn struck(&self) -> &BTreeMap<&'static str, u64> {
        &self.struck
    }

    /// What was seen of the processes that never may happen.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What is wrong at the moment, for people.
    pub fn weather(&self) -> String {
        let now: Vec<&str> = self.active.iter().map(|active| active.planned.kind.name()).collect();
        if now.is_empty() { "calm".to_owned() } else { now.join(" + ") }
    }

    /// Whether a fault of this kind may strike: see [`Kind::waits_for`]. A node without a disk does not run, so it cannot end.
    pub fn is_ready_for(&self, kind: Kind) -> bool {
        let lacks_a_node = matches!(self.lost, Lost::Disk(_)) && kind.may_outlast();
        !lacks_a_node && !self.active.iter().any(|active| kind.waits_for(active.planned.kind))
    }

    /// Lets a fault strike.
    ///
    /// # Errors
    /// The harness cannot do it.
    pub fn strike(&mut self, planned: &Planned, history: &History) -> Result<()> {
        if planned.kind == Kind::WipedDisk && !matches!(self.lost, Lost::Nothing) {
            return Ok(()); // two lost disks of three are more than the service promises to survive
        }
        let start_ns = history.now();
        let hit = match (planned.kind, planned.target) {
            (Kind::LateSignature, _) => self.hold_up_signer(history)?,
            (Kind::LeaderWithMinority, _) | (_, Target::Leader) => self.leader(),
            (_, Target::At(index)) => index,
        };
        let until = Instant::now() + planned.lasts;
        let active = Active { planned: planned.clone(), hit, start_ns, until };
        self.begin(&active).with_context(|| format!("{} on {}", planned.kind.name(), hit + 1))?;
        if planned.kind != Kind::LateSignature {
            self.count(planned.kind); // whether that one takes effect is seen at its end
        }
        self.active.push(active);
        Ok(())
    }

    fn count(&mut self, kind: Kind) {
        *self.struck.entry(kind.name()).or_default() += 1;
    }

    /// Ends the faults whose time is over, and starts again what ended by itself.
    ///
    /// # Errors
    /// The harness cannot do it.
    pub fn tend(&mut self, history: &History) -> Result<()> {
        self.supervise()?;
        let (due, active) =
            std::mem::take(&mut self.active).into_iter().partition(|active: &Active| Instant::now() >= active.until);
        self.active = active;
        let due: Vec<Active> = due;
        for active in due {
            if self.still_ending(&active)? {
                self.active.push(active);
            } else {
                self.finish(&active, history)?;
            }
        }
        Ok(())
    }

    /// Ends the cluster in order. The folder stays.
    ///
    /// # Errors
    /// A node cannot be signalled.
    pub fn end(self) -> Result<()> {
        drop(self.blocks);
        drop(self.primaries);
        self.cluster.finish()
    }

    fn leader(&self) -> usize {
        let reigns = self.primaries.reigns();
        reigns.iter().max_by_key(|reign| reign.last_answer).map_or(0, |reign| reign.node)
    }

    fn others(&self, index: usize) -> Vec<usize> {
        (0..self.down.len()).filter(|other| *other != index).collect()
    }

    fn begin(&mut self, active: &Active) -> Result<()> {
        let (hit, detail) = (active.hit, active.planned.detail);
        let broken = broken(detail);
        match active.planned.kind {
            Kind::Partition => {
                self.cluster.wires()?.callers(hit)?.set_both(broken);
                self.isolate(hit, broken)
            }
            Kind::LeaderWithMinority => self.isolate(hit, broken),
            Kind::OneWayCut => self.silence(hit, detail.is_multiple_of(2)),
            Kind::Bridge => {
                let other = (hit + 1) % self.down.len();
                self.cluster.wires()?.set_between(hit, other, broken);
                Ok(())
            }
            Kind::Delay => self.delay(Duration::from_millis(20 + detail % 280)),
            Kind::Throttle => {
                let rate = u32::try_from(4_000 + detail % 60_000)?;
                self.isolate(hit, Link::Throttled(rate))
            }
            Kind::CallersCut => {
                self.cluster.wires()?.callers(hit)?.set_both(broken);
                Ok(())
            }
            Kind::Kill => self.take_down(hit),
            Kind::PowerCut => {
                self.take_down(hit)?; // first the leader: without it nobody acknowledges anything
                self.others(hit).into_iter().try_for_each(|other| self.take_down(other))
            }
            Kind::Pause => self.signal(hit, Signal::Stop),
            Kind::Restart => {
                self.mark_down(hit, true);
                self.signal(hit, Signal::Term)
            }
            Kind::SlowDisk => self.set_failpoints(hit, |now| now.fsync_delay_ms = 20 + detail % 400),
            Kind::FailingDisk => {
                self.mark_down(hit, true);
                self.set_failpoints(hit, |now| now.fsync_error = true)
            }
            Kind::FullDisk => {
                self.mark_down(hit, true);
                self.set_failpoints(hit, |now| now.disk_full = true)
            }
            Kind::WipedDisk => {
                self.mark_down(hit, true);
                self.newest_id += 1;
                self.lost = Lost::Disk(self.cluster.lose_disk(hit, self.newest_id)?);
                Ok(())
            }
            Kind::LateSignature => self.isolate(hit, Link::Held), // its signer is held up already
            Kind::ClockJump => self.set_failpoints(hit, |now| now.wall_offset_ms = jump(detail)),
            Kind::BitcoindPause
            | Kind::BitcoindCut
            | Kind::BitcoindRestart
            | Kind::BitcoindLag
            | Kind::BitcoindFork
            | Kind::Reorg => self.strike_bitcoind(active),
        }
    }

    fn finish(&mut self, active: &Active, history: &History) -> Result<()> {
        let (hit, mut fault) = (active.hit, active.planned.kind.name());
        match active.planned.kind {
            Kind::Partition | Kind::CallersCut => {
                self.cluster.wires()?.callers(hit)?.heal();
                self.isolate(hit, Link::Open)?;
            }
            Kind::LeaderWithMinority | Kind::OneWayCut | Kind::Bridge | Kind::Throttle => {
                self.isolate(hit, Link::Open)?;
            }
            Kind::Delay => self.delay(Duration::ZERO)?,
            Kind::Kill | Kind::Restart => self.bring_up(hit)?,
            Kind::PowerCut => (0..self.down.len()).try_for_each(|index| self.bring_up(index))?,
            Kind::Pause => self.signal(hit, Signal::Continue)?,
            Kind::SlowDisk => self.set_failpoints(hit, |now| now.fsync_delay_ms = 0)?,
            Kind::FailingDisk => {
                self.set_failpoints(hit, |now| now.fsync_error = false)?;
                self.bring_up(hit)?;
            }
            Kind::FullDisk => {
                self.set_failpoints(hit, |now| now.disk_full = false)?;
                self.bring_up(hit)?;
            }
            Kind::LateSignature => {
                self.set_failpoints(hit, |now| now.sign_held = false)?;
                self.isolate(hit, Link::Open)?;
                if !self.end_late_signature(active) {
                    fault = IN_VAIN;
                }
            }
            Kind::ClockJump => self.set_failpoints(hit, |now| now.wall_offset_ms = 0)?,
            Kind::BitcoindPause
            | Kind::BitcoindCut
            | Kind::BitcoindRestart
            | Kind::BitcoindLag
            | Kind::BitcoindFork
            | Kind::Reorg => self.relieve_bitcoind(active)?,
            Kind::WipedDisk => {}
        }
        history.record_fault(FaultSeen {
            fault,
            on: format!("{}", hit + 1),
            start_ns: active.start_ns,
            end_ns: history.now(),
        });
        Ok(())
    }

    fn isolate(&self, index: usize, link: Link) -> Result<()> {
        let wires = self.cluster.wires()?;
        self.others(index).into_iter().for_each(|other| wires.set_between(index, other, link));
        Ok(())
    }

    /// Nothing that a node sends arrives, or nothing that is sent to it.
    fn silence(&self, index: usize, outgoing: bool) -> Result<()> {
        let wires = self.cluster.wires()?;
        for other in self.others(index) {
            let (from, to) = if outgoing { (index, other) } else { (other, index) };
            wires.set_path(from, to, Link::Held);
        }
        Ok(())
    }

    fn delay(&self, by: Duration) -> Result<()> {
        let link = if by.is_zero() { Link::Open } else { Link::Slow(by) };
        (0..self.down.len()).try_for_each(|index| self.isolate(index, link))
    }

    fn set_failpoints(&mut self, index: usize, change: impl FnOnce(&mut super::failpoints::Failpoints)) -> Result<()> {
        self.failpoints.get_mut(index).with_context(|| format!("no node at index {index}"))?.change(change)
    }

    fn mark_down(&mut self, index: usize, down: bool) {
        if let Some(known) = self.down.get_mut(index) {
            *known = down;
        }
    }

    fn take_down(&mut self, index: usize) -> Result<()> {
        self.mark_down(index, true);
        self.cluster.node(index)?.kill()
    }

    fn bring_up(&mut self, index: usize) -> Result<()> {
        self.cluster.node(index)?.restart()?;
        self.mark_down(index, false);
        Ok(())
    }

    fn signal(&mut self, index: usize, signal: Signal) -> Result<()> {
        let running: Option<&mut Process> = self.cluster.node(index)?.process();
        running.map_or(Ok(()), |process| process.signal(signal))
    }
}

/// What a link that does not work looks like.
fn broken(detail: u64) -> Link {
    if detail.is_multiple_of(2) { Link::Held } else { Link::Cut }
}

/// Up to two years, either way; each third time only up to a minute: what is asked for until a time is then granted,
/// and not for as long as its caller meant, while a jump of days has it refused.
fn jump(detail: u64) -> i64 {
    let by = |most: u64| i64::try_from(detail % most).unwrap_or(0) + 1;
    let offset_ms = if (detail / 1_460).is_multiple_of(3) { by(MINUTE_MS) } else { by(730) * DAY_MS };
    if (detail / 730).is_multiple_of(2) { offset_ms } else { -offset_ms }
}
