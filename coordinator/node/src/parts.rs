//! From sections of the configuration to the parts that they describe.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use bitcoin::blockdata::constants::genesis_block;
use onespend_adapters::chain::{Bitcoind, BitcoindAuth, BitcoindConfig, Chain, ChainError, RpcObserver};
use onespend_adapters::signer::Signer;
use onespend_adapters::signer::software::SoftwareSigner;

use crate::bitcoind::{ReadState, Settings};
use crate::config::{BitcoindLogin, Config, SignerConfig, SignerKeys};
use crate::health::bitcoind_sync::Rules;
use crate::identity::Party;
use crate::metrics::{self, RpcOutcome};
use crate::raft::RaftNode;
use crate::tls::Material;

/// Refuses a certificate that is not this node's own, before anybody else does.
pub(crate) fn check_certificate(tls: &Material, config: &Config) -> anyhow::Result<()> {
    let identity = tls.identity().context("tls.cert")?;
    let (cluster, node) = (&config.cluster.id, config.node.id);
    ensure!(
        identity.cluster == *cluster && identity.party == Party::Node(node),
        "tls.cert is {}, but this is node {node} of cluster {cluster}: issue one with `onespend pki issue node {node}`",
        identity.uri()
    );
    Ok(())
}

/// This node's bitcoind. Nothing is asked of it yet.
pub(crate) fn chain(config: &Config) -> anyhow::Result<Arc<dyn Chain>> {
    let login = config.bitcoind.login.as_ref().context("bitcoind: no way to log in is set")?;
    let auth = match login {
        BitcoindLogin::Cookie(path) => BitcoindAuth::CookieFile(path.clone()),
        BitcoindLogin::User { user, password_file } => {
            let password = std::fs::read_to_string(password_file).context("bitcoind.password_file")?;
            BitcoindAuth::UserPass { user: user.clone(), password: password.trim_end().to_owned().into() }
        }
    };
    let timeout = config.bitcoind.timeout;
    let settings = BitcoindConfig { timeout, ..BitcoindConfig::new(config.bitcoind.url.clone(), auth) };
    Ok(Arc::new(Bitcoind::new(settings, Some(rpc_observer()))?))
}

fn rpc_observer() -> RpcObserver {
    Arc::new(|method, took, result: Result<(), &ChainError>| {
        let outcome = match result {
            Ok(()) => RpcOutcome::Ok,
            Err(error) if error.is_unknown() => RpcOutcome::Unknown,
            Err(_) => RpcOutcome::Error,
        };
        metrics::bitcoind_rpc(method, outcome, took);
    })
}

/// The signers of this node.
pub(crate) fn signers(config: &Config) -> anyhow::Result<Vec<Arc<dyn Signer>>> {
    config.signers.iter().map(|section| signer(section, config)).collect()
}

fn signer(section: &SignerConfig, config: &Config) -> anyhow::Result<Arc<dyn Signer>> {
    let network = config.cluster.network;
    let keys = section.keys.as_ref().with_context(|| format!("signer {}: no keys are named", section.name))?;
    let signer = match keys {
        SignerKeys::File(path) => SoftwareSigner::from_file(&section.name, path, network)?,
        SignerKeys::Environment(variable) => SoftwareSigner::from_environment(&section.name, variable, network)?,
    };
    let signer = match &section.audit_log {
        Some(path) => signer.with_audit_log(path)?,
        None => signer,
    };
    Ok(Arc::new(signer))
}

/// How this node's bitcoind is judged.
pub(crate) fn watch_settings(config: &Config) -> Settings {
    let network = config.cluster.network;
    Settings {
        network,
        rules: Rules {
            chain: network.to_core_arg().to_owned(),
            genesis: genesis_block(network).block_hash().to_string(),
            max_lag_blocks: config.health.max_lag_blocks,
            min_peers: config.bitcoind.min_peers,
            max_silence: config.bitcoind.poll + config.bitcoind.timeout,
        },
        poll: config.bitcoind.poll,
    }
}

/// Lets the watch over bitcoind look at the state without knowing Raft.
pub(crate) fn state_reader(raft: &Arc<RaftNode>) -> ReadState {
    let raft = Arc::clone(raft);
    Arc::new(move |look| raft.read(|state| look(state)))
}

/// Largest gRPC message.
pub(crate) fn message_bytes(config: &Config) -> usize {
    usize::try_from(config.api.max_message_bytes).unwrap_or(usize::MAX)
}

/// The folder of the data.
pub(crate) fn data_folder(config: &Config) -> &Path {
    &config.node.data_dir
}
