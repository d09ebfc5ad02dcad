//! Signatures that are to come late: which intents wait for a signer that is held up, and who has signed them.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::runtime::Handle;

use super::nodes::Nodes;
use crate::cluster::{Cluster, Node};
use crate::oracle::signer_log;

/// From one look to the next: far longer than a signer takes that nobody holds up.
const LOOK_PACE: Duration = Duration::from_millis(150);
const LIST_PATIENCE: Duration = Duration::from_millis(500);

/// Attempts: payment and number.
pub type Attempts = BTreeSet<(String, u32)>;

/// How far a late signature is.
#[derive(Debug)]
pub enum Late {
    /// None is under way.
    Nothing,
    /// These wait for a signer, and another node is to sign them first.
    Held(Attempts),
    /// The signer goes on, since then.
    Woken(Attempts, Instant),
}

/// Who can be asked which intents wait for their signatures.
#[derive(Clone, Debug)]
pub struct Pending {
    nodes: Nodes,
    runtime: Handle,
}

impl Pending {
    /// Asks these nodes, on this runtime.
    pub fn of(nodes: Nodes, runtime: Handle) -> Self {
        Self { nodes, runtime }
    }

    /// Waits until the same intents are unsigned in two looks, one after the other; none if they are not `until` then.
    ///
    /// # Errors
    /// A signer's log cannot be read.
    pub fn held(&self, cluster: &Cluster, until: Instant) -> Result<Attempts> {
        let mut before = Attempts::new();
        while Instant::now() < until {
            let now = self.unsigned(cluster)?;
            let held: Attempts = &now & &before;
            if !held.is_empty() {
                return Ok(held);
            }
            before = now;
            thread::sleep(LOOK_PACE);
        }
        Ok(Attempts::new())
    }

    /// Attempts that wait for their signature, and that no node has signed. None where nobody can be asked.
    fn unsigned(&self, cluster: &Cluster) -> Result<Attempts> {
        let signing = self.runtime.block_on(self.nodes.signing(LIST_PATIENCE)).unwrap_or_default();
        let mut unsigned: Attempts = signing
            .iter()
            .flat_map(|payment| payment.attempts.iter().map(move |attempt| (payment, attempt)))
            .filter(|(_, attempt)| attempt.state == "SIGNING")
            .map(|(payment, attempt)| (payment.payment_id.clone(), attempt.number))
            .collect();
        for node in cluster.nodes() {
            unsigned = &unsigned - &signed_by(node)?;
        }
        Ok(unsigned)
    }
}

/// What a node's signer has signed.
///
/// # Errors
/// Its log cannot be read.
pub fn signed_by(node: &Node) -> Result<Attempts> {
    let lines = signer_log::read(&node.signer_log())?;
    Ok(lines.into_iter().map(|line| (line.payment_id, line.attempt)).collect())
}
