//! `onespend signer new`: a new key for a signer, in a new file.

use std::path::PathBuf;

use bitcoin::Network;
use clap::{Args, ValueEnum};
use onespend_adapters::signer::software::{AddressKind, generate};
use serde::Serialize;

use super::failure::Failure;
use super::output::{Output, Show};
use super::signer::refuse;

#[derive(Debug, Args)]
pub struct New {
    /// The new file, for `file` of a signer in the configuration; one that is there is never overwritten
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The Bitcoin network, as the configuration names it
    #[arg(long, value_enum)]
    network: Chain,
    /// What kind of addresses the wallet is to have
    #[arg(long, value_enum, default_value = "wpkh")]
    kind: Kind,
}

/// A network, as the configuration spells it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Chain {
    Bitcoin,
    Testnet4,
    Signet,
    Regtest,
}

impl From<Chain> for Network {
    fn from(chain: Chain) -> Self {
        match chain {
            Chain::Bitcoin => Self::Bitcoin,
            Chain::Testnet4 => Self::Testnet4,
            Chain::Signet => Self::Signet,
            Chain::Regtest => Self::Regtest,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Native segwit (BIP-84)
    Wpkh,
    /// Taproot, by the key path (BIP-86)
    Tr,
}

impl From<Kind> for AddressKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Wpkh => Self::Wpkh,
            Kind::Tr => Self::Tr,
        }
    }
}

impl New {
    /// Makes the key and the file.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let network = Network::from(self.network);
        let descriptor = generate(&self.file, network, self.kind.into()).map_err(|error| refuse(&error))?;
        output.show(&Made { file: self.file, network: network.to_string(), descriptor })
    }
}

/// What was made. No secret is among it.
#[derive(Debug, Serialize)]
struct Made {
    file: PathBuf,
    network: String,
    /// The public one.
    descriptor: String,
}

impl Show for Made {
    fn text(&self) -> String {
        let Self { file, network, descriptor } = self;
        format!(
            "wrote {} (secret): a new key for {network}\n\
             This file is the money. Back it up before the first deposit: nothing can make it again.\n\
             Every node of the cluster signs with a copy of it, which only the node's user may read (0600).\n\
             Its public descriptor, for `wallet register`, is the next line. A node that has the file prints it too:\n\
             `onespend signer descriptors --config node.toml --name NAME`\n\
             {descriptor}",
            file.display()
        )
    }
}
