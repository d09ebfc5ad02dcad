//! Faults of bitcoinds and of their chain, struck and ended.

use std::time::Duration;

use anyhow::Result;

use super::{Active, MAX_REORG, Stage, broken};
use crate::chaos::schedule::Kind;
use crate::chaos::violation::{Oracle, Violation};

/// Blocks of a branch: one alone would be a race of two blocks, and none reaches finality depth.
const BRANCH_BLOCKS: [u32; 2] = [2, 3];
/// Within this a bitcoind gives its branch up for the chain, which is longer.
const JOIN_PATIENCE: Duration = Duration::from_mins(1);

impl Stage {
    /// Lets a fault of this track strike.
    pub(super) fn strike_bitcoind(&mut self, active: &Active) -> Result<()> {
        let (hit, detail) = (active.hit, active.planned.detail);
        match active.planned.kind {
            Kind::BitcoindPause => {
                self.blocks.set_faulty(hit, true);
                self.cluster.bitcoind(hit)?.freeze()
            }
            Kind::BitcoindCut => {
                self.cluster.wires()?.bitcoind(hit)?.set_both(broken(detail));
                Ok(())
            }
            Kind::BitcoindRestart => {
                self.blocks.set_faulty(hit, true);
                self.cluster.bitcoind(hit)?.kill()
            }
            Kind::BitcoindLag => {
                self.blocks.set_faulty(hit, true);
                self.cluster.bitcoind(hit)?.set_network(false)
            }
            Kind::BitcoindFork => {
                let [short, long] = BRANCH_BLOCKS;
                let blocks = if detail.is_multiple_of(2) { short } else { long };
                let bitcoind = self.cluster.bitcoind(hit)?;
                self.blocks.branch_off(hit, bitcoind, blocks, (detail / 2).is_multiple_of(2))?;
                self.has_branch = true;
                Ok(())
            }
            Kind::Reorg => {
                let depth = 1 + u32::try_from(detail % u64::from(MAX_REORG))?;
                self.blocks.reorganise(depth, (detail / u64::from(MAX_REORG)).is_multiple_of(2))
            }
            _ => Ok(()), // of another track
        }
    }

    /// First the chain becomes longer than the branch, so that the branch is given up for certain; then its bitcoind
    /// hears of the chain.
    pub(super) fn still_apart(&mut self, active: &Active) -> Result<bool> {
        if self.has_branch {
            self.blocks.overtake(active.hit)?;
            self.cluster.bitcoind(active.hit)?.set_network(true)?;
            self.has_branch = false;
        }
        // One that does not answer has not joined yet.
        if self.blocks.has_joined(active.hit).unwrap_or(false) {
            return Ok(false);
        }
        if active.until.elapsed() < JOIN_PATIENCE {
            return Ok(true);
        }
        let what = format!("bitcoind {} keeps to its branch, though the chain is longer", active.hit + 1);
        self.violations.push(Violation::new(Oracle::Run, &what));
        Ok(false)
    }

    /// Ends one.
    pub(super) fn relieve_bitcoind(&mut self, active: &Active) -> Result<()> {
        let hit = active.hit;
        match active.planned.kind {
            Kind::BitcoindPause => self.cluster.bitcoind(hit)?.thaw()?,
            Kind::BitcoindCut => self.cluster.wires()?.bitcoind(hit)?.heal(),
            Kind::BitcoindRestart => self.cluster.bitcoind(hit)?.restart()?,
            Kind::BitcoindLag => self.cluster.bitcoind(hit)?.set_network(true)?,
            _ => {} // over when it is done, or of another track
        }
        self.blocks.set_faulty(hit, false);
        Ok(())
    }
}
