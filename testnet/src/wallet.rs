//! The wallet that the cluster pays from: a BIP84 account whose keys follow from the seed.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use bitcoin::Network;
use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::secp256k1::Secp256k1;

use crate::seed::Seeded;

const ACCOUNT: &str = "84h/1h/0h";

/// The two descriptors of one wallet: `wpkh(…/<0;1>/*)`, receiving and change.
#[derive(Clone)]
pub struct HotWallet {
    public: String,
    private: String,
}

impl std::fmt::Debug for HotWallet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HotWallet").field("public", &self.public).finish_non_exhaustive()
    }
}

impl HotWallet {
    /// The wallet of this seed.
    ///
    /// # Errors
    /// The seed gives no valid key (one in 2^127).
    pub fn new(seed: u64) -> Result<Self> {
        let secp = Secp256k1::new();
        // Not the same numbers as the harness's own key.
        let master = Xpriv::new_master(Network::Regtest, &Seeded::new(!seed).bytes::<32>())?;
        let path: DerivationPath = format!("m/{ACCOUNT}").parse()?;
        let account = master.derive_priv(&secp, &path)?;
        let origin = format!("[{}/{ACCOUNT}]", master.fingerprint(&secp));
        let public = Xpub::from_priv(&secp, &account);
        Ok(Self {
            public: format!("wpkh({origin}{public}/<0;1>/*)"),
            private: format!("wpkh({origin}{account}/<0;1>/*)"),
        })
    }

    /// What is registered with the cluster.
    pub fn public_descriptor(&self) -> &str {
        &self.public
    }

    /// Writes the signer's file, readable by its owner alone.
    ///
    /// # Errors
    /// The file is there already or cannot be written.
    pub fn write_signer_file(&self, path: &Path) -> Result<()> {
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = open.with_context(|| format!("cannot make {}", path.display()))?;
        writeln!(file, "{}", self.private)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_follow_from_the_seed_and_secrets_stay_in_the_file() {
        let wallet = HotWallet::new(7).unwrap();
        assert_eq!(wallet.public_descriptor(), HotWallet::new(7).unwrap().public_descriptor());
        assert_ne!(wallet.public_descriptor(), HotWallet::new(8).unwrap().public_descriptor());
        assert!(wallet.public_descriptor().contains("]tpub"));
        assert!(!format!("{wallet:?}").contains("tprv"));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hot.xprv");
        wallet.write_signer_file(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("wpkh(["));
        assert!(wallet.write_signer_file(&path).is_err(), "never overwritten");
    }
}
