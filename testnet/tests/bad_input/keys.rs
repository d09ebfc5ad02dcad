//! Descriptors and scripts of wallets that no signer of the cluster holds.

use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::{NetworkKind, ScriptBuf};

/// Keys that follow from a seed and a name.
pub struct Keys {
    secp: Secp256k1<All>,
    seed: u64,
}

impl Keys {
    pub fn new(seed: u64) -> Self {
        Self { secp: Secp256k1::new(), seed }
    }

    fn private(&self, name: &str, network: NetworkKind) -> Xpriv {
        let digest = sha256::Hash::hash(format!("bad input {} {name}", self.seed).as_bytes());
        let path: DerivationPath = "m/84h/1h/0h".parse().expect("a path");
        let master = Xpriv::new_master(network, digest.as_byte_array()).expect("one seed in 2^127 gives none");
        master.derive_priv(&self.secp, &path).expect("a path that can be derived")
    }

    /// `tprv…`.
    pub fn tprv(&self, name: &str) -> String {
        self.private(name, NetworkKind::Test).to_string()
    }

    /// `tpub…`.
    pub fn tpub(&self, name: &str) -> String {
        Xpub::from_priv(&self.secp, &self.private(name, NetworkKind::Test)).to_string()
    }

    /// `xpub…`: the main network's.
    pub fn xpub(&self, name: &str) -> String {
        Xpub::from_priv(&self.secp, &self.private(name, NetworkKind::Main)).to_string()
    }

    /// A wallet that can be watched.
    pub fn wpkh(&self, name: &str) -> String {
        format!("wpkh({}/<0;1>/*)", self.tpub(name))
    }
}

/// A P2WPKH script of nobody's.
pub fn stranger(number: u8) -> ScriptBuf {
    let mut program = vec![0x00, 0x14];
    program.extend([number; 20]);
    ScriptBuf::from_bytes(program)
}
