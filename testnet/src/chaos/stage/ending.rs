//! Faults that are not over when their time is: processes that have to end, a new node that has to be taken in, a
//! signature that has to come late, a branch that has to be given up (`bitcoinds.rs`). And nodes that end by themselves.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Active, Lost, Stage};
use crate::chaos::late::{self, Attempts, Late};
use crate::chaos::schedule::{Kind, Planned};
use crate::chaos::violation::{Oracle, Violation};
use crate::history::History;

/// A process that has to end must do so within this: above the node's own deadline for its shutdown.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// Within this somebody orders a payment of a leader, and it is held up: callers order several each second, but not while
/// nobody leads, and not while the leader's bitcoind is away.
const INTENT_PATIENCE: Duration = Duration::from_secs(20);
/// So long one leader is waited for: it may lead no more, and other faults have to end.
const LEADER_PATIENCE: Duration = Duration::from_secs(1);
/// Within this another node leads and signs what the held one does not, and within this the held one signs when it goes on.
const LATE_PATIENCE: Duration = Duration::from_secs(10);
/// A node that replaces one whose disk was lost has its vote by so long after the other faults have ended. It takes
/// seconds; a busy machine gets several times that.
const TAKE_IN_BOUND: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

impl Stage {
    /// Ends every fault and starts everything that is down. Says when that was done. A new node may still be on its way
    /// in: see [`Self::await_new_node`].
    ///
    /// # Errors
    /// The harness cannot do it.
    pub fn calm_down(&mut self, history: &History) -> Result<Instant> {
        for active in &mut self.active {
            active.until = Instant::now();
        }
        while self.active.iter().any(|active| active.planned.kind != Kind::WipedDisk)
            || matches!(self.lost, Lost::Disk(_))
        {
            self.tend(history)?;
            thread::sleep(POLL);
        }
        self.cluster.wires()?.heal();
        for index in 0..self.down.len() {
            self.bring_up(index)?;
        }
        Ok(Instant::now())
    }

    /// Waits until the node that replaces a lost one has its vote. It is too late when that takes too long after
    /// `calm`, when all else was whole again.
    ///
    /// # Errors
    /// The harness cannot do it.
    pub fn await_new_node(&mut self, history: &History, calm: Instant) -> Result<()> {
        let mut is_late = false;
        while !self.active.is_empty() {
            self.tend(history)?;
            if !is_late && !self.active.is_empty() && calm.elapsed() > TAKE_IN_BOUND {
                is_late = true;
                let what = format!("a new node has no vote {TAKE_IN_BOUND:?} after the other faults ended");
                self.violations.push(Violation::new(Oracle::Recovery, &what));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether a fault whose time is over has yet to run its course.
    pub(super) fn still_ending(&mut self, active: &Active) -> Result<bool> {
        match active.planned.kind {
            Kind::WipedDisk => self.still_taking_in(active.hit),
            Kind::LateSignature => self.still_late(active),
            Kind::BitcoindFork => self.still_apart(active),
            Kind::Restart | Kind::FailingDisk | Kind::FullDisk => self.still_running(active),
            _ => Ok(false),
        }
    }

    /// Whether a process that has to end has yet to do so.
    fn still_running(&mut self, active: &Active) -> Result<bool> {
        let node = self.cluster.node(active.hit)?;
        if !node.is_running() {
            return Ok(false);
        }
        if active.until.elapsed() < END_PATIENCE {
            return Ok(true);
        }
        let what = format!("{} still runs {END_PATIENCE:?} after {}", node.name(), active.planned.kind.name());
        node.kill()?;
        self.violations.push(Violation::new(Oracle::Processes, &what));
        Ok(false)
    }

    /// Holds up the leader's signer until an intent waits for it, and says which node that is. Another one may come to lead
    /// meanwhile; then it is that one's turn. Where nobody orders anything, the last of them stays held up all the same; that
    /// does not count as a late signature, and is tried again.
    pub(super) fn hold_up_signer(&mut self, history: &History) -> Result<usize> {
        let deadline = Instant::now() + INTENT_PATIENCE;
        loop {
            self.tend(history)?;
            let hit = self.leader();
            self.set_failpoints(hit, |now| now.sign_held = true)?;
            let held = self.pending.held(&self.cluster, Instant::now() + LEADER_PATIENCE)?;
            let is_held = !held.is_empty();
            self.late = if is_held { Late::Held(held) } else { Late::Nothing };
            if is_held || Instant::now() >= deadline {
                return Ok(hit);
            }
            self.set_failpoints(hit, |now| now.sign_held = false)?;
        }
    }

    /// First another node leads and signs what is held up; then the one that was cut off goes on, and signs it, too.
    fn still_late(&mut self, active: &Active) -> Result<bool> {
        if !self.late.is_under_way() {
            return Ok(false);
        }
        let was_held = matches!(self.late, Late::Held(_));
        let waited = match &self.late {
            Late::Woken(_, since) => since.elapsed(),
            Late::Nothing | Late::Held(_) | Late::Came => active.until.elapsed(),
        };
        let (others, own) = (self.signed_by(&self.others(active.hit))?, self.signed_by(&[active.hit])?);
        let late = std::mem::replace(&mut self.late, Late::Nothing);
        self.late = late.advance(&others, &own, waited >= LATE_PATIENCE);
        if was_held && matches!(self.late, Late::Woken(..)) {
            self.set_failpoints(active.hit, |now| now.sign_held = false)?;
        }
        Ok(self.late.is_under_way())
    }

    /// Notes what came of a signature that was to come late, and says whether it came. One that did not come took no effect: it is not
    /// counted, and is tried again as long as none came.
    pub(super) fn end_late_signature(&mut self, active: &Active) -> bool {
        let has_come = std::mem::replace(&mut self.late, Late::Nothing) == Late::Came;
        if has_come {
            self.count(active.planned.kind);
        }
        self.tries.end(&active.planned, has_come);
        has_come
    }

    /// Whether a run should go on for a signature that is to come late and has not done so yet.
    pub fn owes_late_signature(&self) -> bool {
        let is_tried = self.active.iter().any(|active| active.planned.kind == Kind::LateSignature);
        self.tries.is_owed() || (is_tried && !self.tries.has_come())
    }

    /// A late signature that came to nothing and is tried again, when its turn has come.
    pub fn take_owed(&mut self) -> Option<Planned> {
        if self.tries.is_owed() && self.is_ready_for(Kind::LateSignature) { self.tries.take() } else { None }
    }

    /// What these nodes have signed.
    fn signed_by(&self, nodes: &[usize]) -> Result<Attempts> {
        let mut signed = Attempts::new();
        for node in nodes.iter().filter_map(|index| self.cluster.nodes().get(*index)) {
            signed.extend(late::signed_by(node)?);
        }
        Ok(signed)
    }

    /// A node that ended though no fault made it is a fault of the service. It is started again, as a supervisor would.
    pub(super) fn supervise(&mut self) -> Result<()> {
        for index in 0..self.down.len() {
            let node = self.cluster.node(index)?;
            if self.down.get(index) == Some(&false) && !node.is_running() {
                let what = format!("{} ended by itself: {}", node.name(), node.log_tail());
                node.restart()?;
                self.violations.push(Violation::new(Oracle::Processes, &what));
            }
        }
        Ok(())
    }

    /// A node whose disk was lost comes back as a new one, as an operator would see to it; meanwhile other faults go on.
    fn still_taking_in(&mut self, index: usize) -> Result<bool> {
        match std::mem::replace(&mut self.lost, Lost::Nothing) {
            Lost::Nothing => Ok(false),
            Lost::Disk(replacement) => {
                self.bring_up(index)?;
                self.lost = Lost::Vote(thread::spawn(move || replacement.take_in()));
                Ok(true)
            }
            Lost::Vote(operator) if !operator.is_finished() => {
                self.lost = Lost::Vote(operator);
                Ok(true)
            }
            Lost::Vote(operator) => {
                let taken = operator.join().unwrap_or_else(|_| bail!("the operator panicked"));
                if let Err(error) = taken {
                    let what = format!("a new node is not taken in: {error:#}");
                    self.violations.push(Violation::new(Oracle::Recovery, &what));
                }
                Ok(false)
            }
        }
    }
}
