//! What is done to the cluster while callers use it, and the longest time that one of them waited for it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{PATIENCE, SETTLED};
use crate::cluster::{Cluster, Node};
use crate::health;
use crate::history::Nanos;
use crate::load::{Load, longest_gap};
use crate::seed::Seeded;

const ASK: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(10);

/// A cluster and those who use it.
pub struct Scene<'a> {
    /// The cluster.
    pub cluster: &'a mut Cluster,
    /// Its callers.
    pub load: &'a Load,
}

impl Scene<'_> {
    /// Kills the leader, and starts it again when everybody has been served by the next. Returns the longest time that a
    /// caller waited because of the kill.
    ///
    /// # Errors
    /// The cluster or a caller does not recover.
    pub fn kill(&mut self) -> Result<Nanos> {
        let leader = self.whole()?;
        let from = self.load.now();
        self.cluster.node(leader)?.kill()?;
        self.cluster.wait_for_primary(PATIENCE)?;
        let gap = self.settled_gap(from, "a kill")?;
        self.cluster.node(leader)?.restart()?;
        self.whole()?;
        Ok(gap)
    }

    /// Hands leadership over to another node, and returns the longest time that a caller waited for that.
    ///
    /// # Errors
    /// The cluster refuses for too long, or a caller gets no answer.
    pub fn hand_over(&mut self, random: &mut Seeded) -> Result<Nanos> {
        let leader = self.whole()?;
        let nodes = u64::try_from(self.cluster.nodes().len())?;
        ensure!(nodes > 1, "nobody to hand over to");
        let target = (u64::try_from(leader)? + random.between(1, nodes)) % nodes;
        let target = self.cluster.node(usize::try_from(target)?)?.id();
        let from = self.load.now();
        self.transfer(target)?;
        self.settled_gap(from, "a hand-over")
    }

    fn transfer(&self, target: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.cluster.operate(&["cluster", "transfer", "--to", &target.to_string()]) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => thread::sleep(POLL), // such as one that has not caught up yet
            }
        }
    }

    /// Stops one node after the other by SIGTERM, and starts it again; goes on when the cluster is whole. Returns the
    /// longest time that a caller waited meanwhile.
    ///
    /// # Errors
    /// A node does not come back, or a caller gets no answer.
    pub fn rolling_restart(&mut self) -> Result<Nanos> {
        self.whole()?;
        let from = self.load.now();
        for index in 0..self.cluster.nodes().len() {
            let node = self.cluster.node(index)?;
            node.stop()?;
            node.restart()?;
            self.whole()?;
        }
        self.settled_gap(from, "a rolling restart")
    }

    /// When every caller has been served for a while.
    fn settled_gap(&self, from: Nanos, what: &str) -> Result<Nanos> {
        self.load.wait_for_answers(self.load.now(), SETTLED).with_context(|| format!("after {what}"))?;
        longest_gap(&self.load.acks(), from, self.load.now()).with_context(|| format!("nobody called during {what}"))
    }

    /// Waits until every node is ready and one of them is primary: that one's index.
    fn whole(&mut self) -> Result<usize> {
        cluster_is_whole(self.cluster)
    }
}

/// Waits until every node is ready and one of them is primary: that one's index.
///
/// # Errors
/// One has ended, or is not ready in time; the message has what they say.
pub fn cluster_is_whole(cluster: &mut Cluster) -> Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = |node: &Node| health::status(node.addresses().health, "/readyz", ASK) == 200;
        if cluster.nodes().iter().all(ready)
            && let Some(primary) = cluster.find("/primary")
        {
            return Ok(primary);
        }
        for index in 0..cluster.nodes().len() {
            cluster.node(index)?.must_run()?;
        }
        if Instant::now() >= deadline {
            let said = cluster.nodes().iter().map(|node| {
                let answer = health::get(node.addresses().health, "/readyz", ASK);
                answer.map_or_else(|error| error.to_string(), |answer| answer.body)
            });
            bail!("the cluster is not whole after {PATIENCE:?}: {:?}", said.collect::<Vec<_>>());
        }
        thread::sleep(POLL);
    }
}
