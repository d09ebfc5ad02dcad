//! Channels to the nodes and a guess at who leads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use tonic::transport::Channel;

use super::config::{ClientConfig, MAX_ENDPOINTS};
use super::error::ClientError;

/// Place of a node in the list; nodes are never removed.
pub(super) type NodeIndex = usize;

struct Node {
    address: String,
    /// Connects when first used, and again after it broke. Cloning shares the connection.
    channel: Channel,
}

/// The nodes of one plane (data or control).
pub(super) struct Nodes {
    config: ClientConfig,
    list: RwLock<Vec<Node>>,
    /// Where the next call begins: who led when last heard of.
    preferred: AtomicUsize,
}

impl Nodes {
    pub(super) fn new(config: &ClientConfig, addresses: &[String]) -> Result<Self, ClientError> {
        let mut list = Vec::with_capacity(addresses.len());
        for address in addresses {
            list.push(Node { address: address.clone(), channel: config.endpoint(address)?.connect_lazy() });
        }
        Ok(Self { config: config.clone(), list: RwLock::new(list), preferred: AtomicUsize::new(0) })
    }

    pub(super) fn len(&self) -> usize {
        self.read().len()
    }

    pub(super) fn preferred(&self) -> NodeIndex {
        self.preferred.load(Ordering::Relaxed)
    }

    pub(super) fn prefer(&self, node: NodeIndex) {
        self.preferred.store(node, Ordering::Relaxed);
    }

    /// Stops preferring a node that failed, unless somebody has chosen another already.
    pub(super) fn leave(&self, failed: NodeIndex) {
        let next = self.after(failed);
        let _ = self.preferred.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The next node in turn.
    pub(super) fn after(&self, node: NodeIndex) -> NodeIndex {
        (node + 1) % self.len().max(1)
    }

    pub(super) fn channel(&self, node: NodeIndex) -> Option<Channel> {
        self.read().get(node).map(|node| node.channel.clone())
    }

    pub(super) fn address(&self, node: NodeIndex) -> String {
        self.read().get(node).map(|node| node.address.clone()).unwrap_or_default()
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.read().iter().map(|node| node.address.clone()).collect()
    }

    /// The node with this address. One that is new is added, since the cluster may have grown; its certificate must
    /// prove that it belongs. `None` when the address is no use or the list is full.
    pub(super) fn at_address(&self, address: &str) -> Option<NodeIndex> {
        let known = |list: &[Node]| list.iter().position(|node| node.address == address);
        if let Some(node) = known(&self.read()) {
            return Some(node);
        }
        let channel = self.config.endpoint(address).ok()?.connect_lazy();
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = known(&list) {
            return Some(node);
        }
        if list.len() >= MAX_ENDPOINTS {
            return None;
        }
        list.push(Node { address: address.to_owned(), channel });
        Some(list.len() - 1)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Node>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }
}
