//! The wallets that the cluster pays from: a BIP84 account, and a BIP86 one for taproot, whose keys follow from the seed.

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
const TAPROOT_ACCOUNT: &str = "86h/1h/0h";

/// The descriptors of the wallet, `wpkh(…/<0;1>/*)`, receiving and change, and of its sister by taproot.
#[derive(Clone)]
pub struct HotWallet {
    public: String,
    taproot: String,
    /// One per line, as a signer reads them.
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
        let descriptors = |kind: &str, account: &str| -> Result<(String, String)> {
            let path: DerivationPath = format!("m/{account}").parse()?;
            let private = master.derive_priv(&secp, &path)?;
            let origin = format!("[{}/{account}]", master.fingerprint(&secp));
            let public = Xpub::from_priv(&secp, &private);
            Ok((format!("{kind}({origin}{public}/<0;1>/*)"), format!("{kind}({origin}{private}/<0;1>/*)")))
        };
        let (public, private) = descriptors("wpkh", ACCOUNT)?;
        let (taproot, taproot_private) = descriptors("tr", TAPROOT_ACCOUNT)?;
        Ok(Self { public, taproot, private: format!("{private}\n{taproot_private}") })
    }

    /// What is registered with the cluster.
    pub fn public_descriptor(&self) -> &str {
        &self.public
    }

    /// The same, receiving and change apart.
    pub fn branches(&self) -> [String; 2] {
        ["0", "1"].map(|branch| self.public.replace("<0;1>", branch))
    }

    /// What is registered for a wallet that pays by taproot. The same signer holds it.
    pub fn taproot_descriptor(&self) -> &str {
        &self.taproot
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
        let [receiving, change] = wallet.branches();
        assert!(receiving.ends_with("/0/*)") && change.ends_with("/1/*)") && !change.contains('<'));
        assert!(wallet.taproot_descriptor().starts_with("tr([") && wallet.taproot_descriptor().contains("]tpub"));
        assert!(!format!("{wallet:?}").contains("tprv"));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hot.xprv");
        wallet.write_signer_file(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(kept.starts_with("wpkh([") && kept.lines().count() == 2);
        assert!(wallet.write_signer_file(&path).is_err(), "never overwritten");
    }
}
