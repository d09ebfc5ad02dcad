//! The listeners: free, or held by this very node.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use super::dial;
use super::findings::{Area, Findings};
use crate::config::Config;
use crate::identity::Party;
use crate::tls::Material;

/// Tries to listen on each; asks whoever holds one already.
pub fn check(config: &Config, material: Option<&Material>, findings: &mut Findings) {
    let listen = &config.listen;
    let always = [("data", listen.data), ("control", listen.control), ("health", listen.health)];
    for (name, address) in always.into_iter().chain(listen.agent.map(|agent| ("agent", agent))) {
        match TcpListener::bind(address) {
            Ok(_) => findings.ok(Area::Ports, format!("{name}: {address} is free")),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let ours = match name {
                    // The agent's line names nobody; one thread of the node serves it and the health port.
                    "health" | "agent" => is_our_health(config, listen.health),
                    _ => material.is_some_and(|material| is_our_grpc(config, material, address)),
                };
                if ours {
                    findings.ok(Area::Ports, format!("{name}: {address} is in use by this node, which is running"));
                } else {
                    let remedy = format!("end the process that holds it (ss -ltnp), or change listen.{name}");
                    findings.fail(Area::Ports, format!("{name}: {address} is in use by somebody else"), remedy);
                }
            }
            Err(error) => {
                let remedy =
                    format!("listen.{name} must be an address of this machine and a port that the user may bind");
                findings.fail(Area::Ports, format!("{name}: {address} cannot be bound: {error}"), remedy);
            }
        }
    }
}

fn is_our_grpc(config: &Config, material: &Material, address: SocketAddr) -> bool {
    dial::node(&reachable(address).to_string(), material).is_ok_and(|answer| {
        answer.identity.cluster == config.cluster.id && answer.identity.party == Party::Node(config.node.id)
    })
}

fn is_our_health(config: &Config, address: SocketAddr) -> bool {
    dial::health(&reachable(address).to_string())
        .is_some_and(|(cluster, node)| cluster == config.cluster.id && node == config.node.id)
}

/// Where a listener on all addresses can be reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
