//! Who belongs to the cluster, and what its members agree on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use bitcoin::Network;

use super::{HostPort, Section};
use crate::identity;

/// Most members that a cluster may have at first. Each further voter makes every write wait for
/// one more disk; beyond nine nobody gains anything.
pub const MAX_PEERS: usize = 9;

/// `[cluster]`: what every member must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The cluster's name, 1 to 32 of `a-z 0-9 -`. Certificates and stored data carry it.
    pub id: String,
    /// The Bitcoin network.
    pub network: Network,
    /// Confirmations after which a transaction counts as final (k in safety.md), 1..=100.
    pub finality_depth: u32,
}

impl ClusterConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        const NETWORKS: &[(&str, Network)] = &[
            ("bitcoin", Network::Bitcoin),
            ("testnet4", Network::Testnet4),
            ("signet", Network::Signet),
            ("regtest", Network::Regtest),
        ];
        Self {
            id: section.checked_text("id", identity::check_name),
            network: section.choice("network", NETWORKS, None).unwrap_or(Network::Regtest),
            finality_depth: section.integer32("finality_depth", 1..=100, 6),
        }
    }
}

/// `[node]`: this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// This node's id, from 1. Never used again for another disk.
    pub id: u64,
    /// The folder that holds the databases.
    pub data_dir: PathBuf,
    /// Whether it waits to be added to a cluster that runs, instead of forming one with its peers.
    pub join: bool,
    /// Labels that a load balancer can select by: `/replica?tag_zone=a`.
    pub tags: BTreeMap<String, String>,
}

impl NodeConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            id: section.integer("id", 1..=identity::MAX_NODE_ID, None),
            data_dir: section.path("data_dir"),
            join: section.flag("join", false),
            tags: section.texts("tags"),
        }
    }
}

/// `[[peers]]`: one initial member, this node included. A node that joins needs only itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// The member's node id.
    pub id: u64,
    /// Where it is reached by nodes and operators: Raft, forwarding, administration.
    pub control: HostPort,
    /// Where it is reached by wallet back ends.
    pub data: HostPort,
}

impl PeerConfig {
    /// Reads one element.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            id: section.integer("id", 1..=identity::MAX_NODE_ID, None),
            control: section.host_port("control"),
            data: section.host_port("data"),
        }
    }
}

/// `[listen]`: the sockets of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// gRPC for wallet back ends, mutual TLS.
    pub data: SocketAddr,
    /// gRPC for nodes and operators, mutual TLS.
    pub control: SocketAddr,
    /// HTTP for load balancers and Prometheus; plain and read-only.
    pub health: SocketAddr,
    /// HAProxy's agent check; plain and read-only. `None`: not served.
    pub agent: Option<SocketAddr>,
}

impl ListenConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        Self {
            data: section.listen("data", any(7800)),
            control: section.listen("control", any(7801)),
            health: section.listen("health", any(7802)),
            agent: section.optional_listen("agent"),
        }
    }
}
