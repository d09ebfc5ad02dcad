//! openraft in a simulation: its runtime, and a network between the hosts of the simulation.

mod network;
mod runtime;

pub(crate) use network::{Lines, SNAPSHOTS_TAKEN, SimulatedNetwork, Weather};
pub use runtime::Runtime;

use std::sync::Arc;

use onespend_adapters::store::StateStore;

use super::acks::Acks;
use super::acquaintance::Acquaintance;
use super::doubt::Doubt;
use super::node::{RaftNode, RaftParts};

/// Starts a node whose network is simulated; others reach it from then on.
pub(crate) async fn start(parts: RaftParts, lines: &Lines, store: Arc<dyn StateStore>) -> RaftNode {
    let id = parts.node_id;
    let acquaintance = Acquaintance::new(&parts.instance, parts.peers.clone()).expect("a plain name");
    let acks = Acks::default();
    let network = SimulatedNetwork { from: id, lines: lines.clone(), acks: acks.clone() };
    // Nobody compares states in a simulation but the judge.
    let started = RaftNode::start_over(parts, network, acquaintance, acks, Doubt::default()).await;
    let node = started.expect("what was stored can be read");
    lines.connect(id, &node, store);
    node
}
