//! Rules that combine several keys. Each says why, since the combination looks harmless.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::Network;
use onespend_adapters::backup::{EndpointFault, S3Settings};

use super::reader::Reading;
use super::{Config, HostPort};
use crate::backup::Place;

/// Applies every rule that needs no look at a disk.
pub(crate) fn check(config: &Config, reading: &mut Reading) {
    members(config, reading);
    addresses(config, reading);
    listeners(config, reading);
    election(config, reading);
    chain(config, reading);
    signers(config, reading);
    memories(config, reading);
    checks(config, reading);
    backups(config, reading);
    shutdown(config, reading);
}

fn members(config: &Config, reading: &mut Reading) {
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, peer) in config.peers.iter().enumerate() {
        if let Some(first) = seen.insert(peer.id, at) {
            let what = format!("{} is the id of peers[{first}] already", peer.id);
            let others = [format!("peers[{first}].id")];
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            let why = "two members under one id would count as one voter and vote twice";
            reading.refuse(&format!("peers[{at}].id"), &others, what, why);
        }
    }
    if config.peers.is_empty() {
        let why = "every initial member needs a [[peers]] section, this node included";
        reading.refuse("peers", &[], "missing".to_owned(), why);
        return;
    }
    let wrong_ids = (0..config.peers.len()).any(|at| reading.faults.concern(&format!("peers[{at}].id")));
    if !wrong_ids && config.this_peer().is_none() {
        let what = format!("{} is not among [[peers]]", config.node.id);
        let why = "a node must know how the others reach it";
        reading.refuse("node.id", &["peers"], what, why);
    }
    if config.node.join {
        return; // the cluster's members are those that it has
    }
    let voters = config.peers.len();
    let why = match voters {
        1 => "nothing survives its loss: for trials only",
        2 => "both are needed for every write, so two voters fail more often than one",
        even if even % 2 == 0 => "one voter less survives as many failures",
        _ => return,
    };
    let what = format!("{voters} voter{}", if voters == 1 { "" } else { "s" });
    reading.warn("peers", &[], what, why);
}

fn addresses(config: &Config, reading: &mut Reading) {
    let mut seen: BTreeMap<HostPort, String> = BTreeMap::new();
    for (at, peer) in config.peers.iter().enumerate() {
        for (key, address) in [("control", &peer.control), ("data", &peer.data)] {
            let key = format!("peers[{at}].{key}");
            if reading.faults.concern(&key) {
                continue;
            }
            if let Some(first) = seen.get(address) {
                let what = format!("{address} is {first} already");
                let why = "two listeners cannot share an address";
                reading.refuse(&key, &[], what, why);
            } else {
                seen.insert(address.clone(), key);
            }
        }
    }
}

fn listeners(config: &Config, reading: &mut Reading) {
    let mut all = vec![
        ("listen.data", config.listen.data),
        ("listen.control", config.listen.control),
        ("listen.health", config.listen.health),
    ];
    all.extend(config.listen.agent.map(|agent| ("listen.agent", agent)));
    for (at, (key, address)) in all.iter().enumerate() {
        for (other, taken) in &all[..at] {
            if clash(*address, *taken) {
                let what = format!("{address} clashes with {other} = {taken}");
                let why = "each listener needs a socket of its own";
                reading.refuse(key, &[other], what, why);
            }
        }
    }
}

fn clash(left: SocketAddr, right: SocketAddr) -> bool {
    let any = left.ip().is_unspecified() || right.ip().is_unspecified();
    left.port() == right.port() && (any || left.ip() == right.ip())
}

fn election(config: &Config, reading: &mut Reading) {
    let raft = &config.raft;
    let (heartbeat, min) = ("raft.heartbeat_ms", "raft.election_timeout_min_ms");
    let max = "raft.election_timeout_max_ms";
    let ms = |duration: Duration| duration.as_millis();
    if raft.election_timeout_max <= raft.election_timeout_min {
        let shown = ms(raft.election_timeout_max);
        let what = format!("{shown} is not above election_timeout_min_ms");
        let why = "without a random part two candidates can tie again and again";
        reading.refuse(max, &[min], what, why);
    }
    let shown = ms(raft.election_timeout_min);
    if raft.election_timeout_min < raft.heartbeat * 2 {
        let what = format!("{shown} is below twice heartbeat_ms");
        let why = "one delayed heartbeat would depose a healthy leader";
        reading.refuse(min, &[heartbeat], what, why);
    } else if raft.election_timeout_min < raft.heartbeat * 3 {
        let what = format!("{shown} is below three times heartbeat_ms");
        let why = "two delayed heartbeats depose a healthy leader";
        reading.warn(min, &[heartbeat], what, why);
    }
    if raft.keep_log_entries > raft.snapshot_every_entries {
        let what = format!("{} is above snapshot_every_entries", raft.keep_log_entries);
        let why = "the log then holds several snapshots' worth of entries";
        reading.warn("raft.keep_log_entries", &["raft.snapshot_every_entries"], what, why);
    }
}

fn chain(config: &Config, reading: &mut Reading) {
    let (network, others) = (config.cluster.network, &["cluster.network"]);
    let depth = config.cluster.finality_depth;
    if network == Network::Bitcoin && depth < 3 {
        let what = format!("{depth} on mainnet");
        let why = "reorganisations of one and two blocks happen several times a year";
        reading.warn("cluster.finality_depth", others, what, why);
    }
    if network != Network::Regtest && config.bitcoind.min_peers == 0 {
        let what = "0 outside regtest".to_owned();
        let why = "a bitcoind without peers would pass for one that is in sync";
        reading.warn("bitcoind.min_peers", others, what, why);
    }
}

fn signers(config: &Config, reading: &mut Reading) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, signer) in config.signers.iter().enumerate() {
        if let Some(first) = seen.insert(&signer.name, at) {
            let what = format!("{:?} is the name of signers[{first}] already", signer.name);
            let other = format!("signers[{first}].name");
            let why = "wallets refer to signers by name";
            reading.refuse(&format!("signers[{at}].name"), &[&other], what, why);
        }
    }
    let mut files: BTreeMap<&PathBuf, usize> = BTreeMap::new();
    for (at, signer) in config.signers.iter().enumerate() {
        let Some(memory) = &signer.memory else { continue };
        if let Some(first) = files.insert(memory, at) {
            let what = format!("{} is the memory of signers[{first}] already", memory.display());
            let other = format!("signers[{first}].memory");
            let why = "a memory belongs to one signer";
            reading.refuse(&format!("signers[{at}].memory"), &[&other], what, why);
        }
    }
}

/// On networks with money: a memory that comes and goes with the folder it is there to check.
fn memories(config: &Config, reading: &mut Reading) {
    if config.cluster.network == Network::Regtest {
        return;
    }
    let folder = &config.node.data_dir;
    for (at, signer) in config.signers.iter().enumerate() {
        let memory = signer.memory_file(folder);
        if memory.starts_with(folder) {
            let what = format!("{} lies in the data folder", memory.display());
            let why = "a copy of that folder that is put back brings an old memory along, which cannot tell that the log is old";
            reading.warn(&format!("signers[{at}].memory"), &["node.data_dir"], what, why);
        }
    }
}

fn checks(config: &Config, reading: &mut Reading) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, check) in config.checks.iter().enumerate() {
        if let Some(first) = seen.insert(&check.name, at) {
            let what = format!("{:?} is the name of checks[{first}] already", check.name);
            let other = format!("checks[{first}].name");
            let why = "answers and metrics tell checks apart by name";
            reading.refuse(&format!("checks[{at}].name"), &[&other], what, why);
        }
    }
}

fn backups(config: &Config, reading: &mut Reading) {
    let Some(Place::S3(settings)) = &config.backup.place else { return };
    let Some(endpoint) = &settings.endpoint else { return };
    let (key, others) = ("backup.s3_endpoint", &["backup.s3_allow_http"]);
    if S3Settings::check_endpoint(endpoint, settings.allow_http) == Err(EndpointFault::Plain) {
        let what = format!("{endpoint} is not https");
        let why = "backups would travel unencrypted: set s3_allow_http = true where nobody else can listen";
        reading.refuse(key, others, what, why);
    }
    let near = ["http://127.", "http://[::1]", "http://localhost"];
    if endpoint.starts_with("http://") && !near.iter().any(|near| endpoint.starts_with(near)) {
        let what = format!("{endpoint} is not https, and not this machine");
        let why = "whoever can listen between the two reads every wallet's history";
        reading.warn(key, others, what, why);
    }
}

fn shutdown(config: &Config, reading: &mut Reading) {
    let shutdown = &config.shutdown;
    if shutdown.deadline <= shutdown.drain {
        let what = format!("{} is not above drain_ms", shutdown.deadline.as_millis());
        let why = "the process would be ended while requests still drain";
        reading.refuse("shutdown.deadline_ms", &["shutdown.drain_ms"], what, why);
    }
}
