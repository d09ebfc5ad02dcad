//! Faults of bitcoinds and of their chain, struck and ended.

use anyhow::Result;

use super::{Active, MAX_REORG, Stage, broken};
use crate::chaos::schedule::Kind;

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
            Kind::Reorg => {
                let depth = 1 + u32::try_from(detail % u64::from(MAX_REORG))?;
                self.blocks.reorganise(depth, (detail / u64::from(MAX_REORG)).is_multiple_of(2))
            }
            _ => Ok(()), // of another track
        }
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
