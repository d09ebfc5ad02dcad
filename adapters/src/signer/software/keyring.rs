//! Private descriptors, parsed and kept so that nothing shows them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bitcoin::bip32::{ChildNumber, Xpriv, Xpub};
use bitcoin::secp256k1::{All, Secp256k1, SecretKey};
use bitcoin::{Network, ScriptBuf};
use miniscript::Descriptor;
use miniscript::descriptor::checksum::desc_checksum;
use miniscript::descriptor::{
    DerivPaths, DescriptorMultiXKey, DescriptorPublicKey, DescriptorSecretKey, DescriptorXKey, Wildcard,
};
use onespend_core::wallet::{Keychain, WalletDescriptor};

use crate::signer::SignerError;

/// Most private descriptors of one signer.
pub const MAX_DESCRIPTORS: usize = 256;

/// The private descriptors of one signer, found by the wallets that they belong to.
#[derive(Debug)]
pub(super) struct Keyring {
    accounts: BTreeMap<Identity, Account>,
}

/// The first script of either chain. Two descriptors with the same ones have the same keys, however they are
/// written: with or without key origin, `h` or `'`.
type Identity = [ScriptBuf; 2];

fn identity(descriptor: &WalletDescriptor) -> Option<Identity> {
    Some([descriptor.script(Keychain::External, 0)?, descriptor.script(Keychain::Internal, 0)?])
}

/// One private descriptor.
#[derive(Debug)]
pub(super) struct Account {
    public: WalletDescriptor,
    external: ChainKey,
    internal: ChainKey,
}

/// The extended private key of a chain; its children are the keys of addresses.
struct ChainKey(Xpriv);

/// The private key of one address.
pub(super) struct ChildKey(SecretKey);

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey(..)")
    }
}

impl fmt::Debug for ChildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChildKey(..)")
    }
}

// These types are `Copy` in their libraries, so copies on the stack may outlive the erasure: it is a best effort.
impl Drop for ChainKey {
    fn drop(&mut self) {
        self.0.private_key.non_secure_erase();
    }
}

impl Drop for ChildKey {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

impl ChildKey {
    pub(super) fn secret(&self) -> &SecretKey {
        &self.0
    }
}

impl Keyring {
    /// Reads one private descriptor per line. `origin` names the source in errors.
    pub(super) fn parse(text: &str, origin: &str, network: Network) -> Result<Self, SignerError> {
        let secp = Secp256k1::new();
        let mut accounts = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fault = |why: String| SignerError::Descriptor { origin: origin.to_owned(), line: number, why };
            let account = Account::parse(&secp, line, network).map_err(fault)?;
            let id = identity(&account.public).ok_or_else(|| fault("has no first address".to_owned()))?;
            if accounts.insert(id, account).is_some() {
                return Err(fault("the same keys as an earlier line".to_owned()));
            }
            if accounts.len() > MAX_DESCRIPTORS {
                return Err(fault(format!("more than {MAX_DESCRIPTORS} private descriptors")));
            }
        }
        if accounts.is_empty() {
            let why = "holds no private descriptor, such as wpkh(tprv.../84h/1h/0h/<0;1>/*)".to_owned();
            return Err(SignerError::Descriptor { origin: origin.to_owned(), line: 1, why });
        }
        Ok(Self { accounts })
    }

    /// The private form of a wallet's descriptor.
    pub(super) fn find(&self, wallet: &WalletDescriptor) -> Option<&Account> {
        self.accounts.get(&identity(wallet)?)
    }

    pub(super) fn public_descriptors(&self) -> impl Iterator<Item = &str> {
        self.accounts.values().map(|account| account.public.as_str())
    }
}

impl Account {
    /// Errors are fixed sentences: what a parser says may quote the line, and the line is a secret.
    fn parse(secp: &Secp256k1<All>, line: &str, network: Network) -> Result<Self, String> {
        let (wrap, key) = unwrap(strip_checksum(line)?)?;
        let mut chains = chain_keys(key)?;
        let parsed = Self::from_chains(secp, wrap, &chains, network);
        for chain in &mut chains {
            chain.xkey.private_key.non_secure_erase();
        }
        parsed
    }

    fn from_chains(
        secp: &Secp256k1<All>,
        wrap: Wrap,
        chains: &[DescriptorXKey<Xpriv>; 2],
        network: Network,
    ) -> Result<Self, String> {
        let public = public_key(secp, chains)?;
        let descriptor = match wrap {
            Wrap::Wpkh => Descriptor::new_wpkh(public),
            Wrap::Tr => Descriptor::new_tr(public, None),
        };
        let descriptor = descriptor.map_err(|_| NOT_PRIVATE.to_owned())?;
        // From here on nothing is secret, so the parser may say what it likes.
        let public = WalletDescriptor::parse(&descriptor.to_string(), network).map_err(|fault| fault.to_string())?;
        let derive = |chain: &DescriptorXKey<Xpriv>| {
            let derived = chain.xkey.derive_priv(secp, &chain.derivation_path);
            derived.map(ChainKey).map_err(|_| "its path cannot be derived".to_owned())
        };
        let [external, internal] = chains;
        Ok(Self { public, external: derive(external)?, internal: derive(internal)? })
    }

    /// The key of one address. `None` where `index` is not below 2^31.
    pub(super) fn child(&self, secp: &Secp256k1<All>, keychain: Keychain, index: u32) -> Option<ChildKey> {
        let chain = match keychain {
            Keychain::External => &self.external,
            Keychain::Internal => &self.internal,
        };
        let step = ChildNumber::from_normal_idx(index).ok()?;
        chain.0.derive_priv(secp, &[step]).ok().map(|child| ChildKey(child.private_key))
    }
}

const NOT_PRIVATE: &str =
    "must be a descriptor with an extended private key, two chains and a wildcard, such as wpkh(tprv.../<0;1>/*)";

#[derive(Clone, Copy)]
enum Wrap {
    Wpkh,
    Tr,
}

fn strip_checksum(line: &str) -> Result<&str, String> {
    let Some((body, checksum)) = line.rsplit_once('#') else { return Ok(line) };
    let computed = desc_checksum(body).map_err(|_| NOT_PRIVATE.to_owned())?;
    if checksum != computed {
        return Err("the checksum does not fit the descriptor (BIP-380)".to_owned());
    }
    Ok(body)
}

fn unwrap(body: &str) -> Result<(Wrap, &str), String> {
    let inside = |prefix: &str| body.strip_prefix(prefix)?.strip_suffix(')');
    let (wrap, key) = match (inside("wpkh("), inside("tr(")) {
        (Some(key), _) => (Wrap::Wpkh, key),
        (None, Some(key)) => (Wrap::Tr, key),
        (None, None) => {
            return Err("only wpkh(...) and tr(...) with one key can be signed for; \
                        wsh(sortedmulti(...)) wallets are watched only"
                .to_owned());
        }
    };
    if key.contains(',') {
        return Err("tr(...) with scripts cannot be signed for: only the key path".to_owned());
    }
    Ok((wrap, key))
}

fn chain_keys(key: &str) -> Result<[DescriptorXKey<Xpriv>; 2], String> {
    let parsed = DescriptorSecretKey::from_str(key).map_err(|_| NOT_PRIVATE.to_owned())?;
    let chains: Vec<DescriptorXKey<Xpriv>> = parsed
        .into_single_keys()
        .into_iter()
        .filter_map(|single| match single {
            DescriptorSecretKey::XPrv(xprv) => Some(xprv),
            DescriptorSecretKey::Single(_) | DescriptorSecretKey::MultiXPrv(_) => None,
        })
        .collect();
    let chains = <[_; 2]>::try_from(chains).map_err(|_| NOT_PRIVATE.to_owned())?;
    if chains.iter().any(|chain| chain.wildcard != Wildcard::Unhardened) {
        return Err(NOT_PRIVATE.to_owned());
    }
    Ok(chains)
}

/// The public multipath key: hardened steps, which both chains must share, move into the key's origin.
fn public_key(secp: &Secp256k1<All>, chains: &[DescriptorXKey<Xpriv>; 2]) -> Result<DescriptorPublicKey, String> {
    let publish = |chain: &DescriptorXKey<Xpriv>| {
        let secret = DescriptorSecretKey::XPrv(chain.clone());
        match secret.to_public(secp) {
            Ok(DescriptorPublicKey::XPub(xpub)) => Ok(xpub),
            _ => Err(NOT_PRIVATE.to_owned()),
        }
    };
    let external: DescriptorXKey<Xpub> = publish(&chains[0])?;
    let internal: DescriptorXKey<Xpub> = publish(&chains[1])?;
    if external.xkey != internal.xkey {
        return Err("the two chains must be unhardened: <0;1>, not <0h;1h>".to_owned());
    }
    let paths = DerivPaths::new(vec![external.derivation_path, internal.derivation_path])
        .ok_or_else(|| NOT_PRIVATE.to_owned())?;
    Ok(DescriptorPublicKey::MultiXPub(DescriptorMultiXKey {
        origin: external.origin,
        xkey: external.xkey,
        derivation_paths: paths,
        wildcard: external.wildcard,
    }))
}
