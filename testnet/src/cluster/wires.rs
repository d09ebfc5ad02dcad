//! Relays in every path of a cluster: between each two nodes, from each node to its bitcoind, and from callers to each
//! node. The harness itself asks past them.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::Addresses;
use super::switch::{Processes, Switch};
use crate::relay::{Direction, Link, Relay};

/// All relays of a cluster. Dropping them breaks every connection through them.
#[derive(Debug)]
pub struct Wires {
    switches: Vec<Switch>,
    bitcoinds: Vec<Relay>,
    callers: Vec<Relay>,
    processes: Processes,
}

impl Wires {
    /// In front of nodes that listen at `addresses` and of the bitcoinds beside them.
    ///
    /// # Errors
    /// There are no ports.
    pub(super) fn start(addresses: &[Addresses], rpcs: &[SocketAddr]) -> Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let processes = Processes::of(addresses.len());
        let switch = |address: &Addresses| Switch::start(address.control, addresses.len(), &processes);
        Ok(Self {
            switches: addresses.iter().map(switch).collect::<Result<_>>()?,
            bitcoinds: rpcs.iter().map(|rpc| Relay::start(any, *rpc)).collect::<Result<_>>()?,
            callers: addresses.iter().map(|address| Relay::start(any, address.data)).collect::<Result<_>>()?,
            processes,
        })
    }

    /// How others reach the nodes that listen at `addresses`.
    pub(super) fn advertised(&self, addresses: &[Addresses]) -> Vec<Addresses> {
        let paths = self.switches.iter().zip(&self.callers).zip(addresses);
        paths
            .map(|((switch, callers), own)| Addresses {
                control: switch.address(),
                data: callers.address(),
                health: own.health,
                agent: own.agent,
            })
            .collect()
    }

    /// Who must be told which process is which node.
    pub(super) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The path of a node to its bitcoind.
    ///
    /// # Errors
    /// There is no such node.
    pub fn bitcoind(&self, index: usize) -> Result<&Relay> {
        self.bitcoinds.get(index).with_context(|| format!("no bitcoind at index {index}"))
    }

    /// The path of callers to a node, HAProxy's too.
    ///
    /// # Errors
    /// There is no such node.
    pub fn callers(&self, index: usize) -> Result<&Relay> {
        self.callers.get(index).with_context(|| format!("no node at index {index}"))
    }

    /// What one node sends to another: what it asks there, and what it answers to what it is asked from there.
    pub fn set_path(&self, from: usize, to: usize, link: Link) {
        if let Some(asks) = self.switches.get(to).and_then(|switch| switch.from(from)) {
            asks.set(Direction::ToServer, link);
        }
        if let Some(is_asked) = self.switches.get(from).and_then(|switch| switch.from(to)) {
            is_asked.set(Direction::ToClient, link);
        }
    }

    /// Both directions between two nodes.
    pub fn set_between(&self, one: usize, other: usize, link: Link) {
        self.set_path(one, other, link);
        self.set_path(other, one, link);
    }

    /// Opens everything.
    pub fn heal(&self) {
        self.switches.iter().flat_map(Switch::wires).for_each(crate::relay::Wire::heal);
        self.bitcoinds.iter().chain(&self.callers).for_each(Relay::heal);
    }
}
