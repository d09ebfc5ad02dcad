//! Wallets: public descriptors, who signs, and the addresses that were given out.

use std::str::FromStr;
use std::sync::OnceLock;

/// How the reason begins for which a reorganisation froze a wallet.
pub(crate) const REORG_ALARM: &str = "a reorganisation took away";

use bitcoin::bip32::{ChildNumber, DerivationPath};
use bitcoin::secp256k1::{Secp256k1, VerifyOnly};
use bitcoin::{Address, Network, NetworkKind, ScriptBuf};
use minicbor::{Decode, Encode};
use miniscript::descriptor::{DefiniteDescriptorKey, DescriptorPublicKey, DescriptorType, Wildcard};
use miniscript::{Descriptor, ForEachKey};

use crate::command::FenceKey;
use crate::limits::{MAX_DESCRIPTOR_LEN, WalletLimits};

/// Characters of the parser's words that a fault shows.
const MAX_CAUSE_CHARS: usize = 200;

/// One of the two chains of a multipath descriptor (BIP-389).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Keychain {
    /// Addresses for receiving: the first path.
    #[n(0)]
    External,
    /// Change: the second path.
    #[n(1)]
    Internal,
}

/// Who makes the signatures.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SignerRef {
    /// Nobody: the wallet is only watched and reserved from.
    #[n(0)]
    WatchOnly,
    /// The caller, outside this service.
    #[n(1)]
    External,
    /// A signer of this name in each node's configuration.
    #[n(2)]
    Named(#[n(0)] String),
}

/// Why a descriptor was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Encode, Decode)]
pub enum DescriptorFault {
    /// Not a descriptor at all (BIP-380 to 386).
    #[error("not a public output descriptor: {cause}")]
    #[n(0)]
    Syntax {
        /// What the parser said.
        #[n(0)]
        cause: String,
    },
    /// Not of the form `<0;1>/*`.
    #[error(
        "each key must have two different unhardened chains and a wildcard, such as wpkh(xpub.../<0;1>/*) (BIP-389)"
    )]
    #[n(1)]
    Shape,
    /// Keys of the main network on a test network, or the reverse.
    #[error("holds a key of another network than {expected}")]
    #[n(2)]
    Network {
        /// The cluster's network.
        #[n(0)]
        expected: String,
    },
    /// A kind of script that is not supported here.
    #[error(
        "only wpkh, tr with a key path alone, and wsh(sortedmulti) are supported: legacy inputs let a third party change the txid"
    )]
    #[n(3)]
    Kind,
    /// A kind of script that can be watched but not signed.
    #[error("this service has no signer for wsh(sortedmulti): register the wallet as signed for outside, or watched")]
    #[n(4)]
    NotSignable,
    /// A wallet that follows single outpoints cannot be signed for.
    #[error("a wallet without a descriptor can only be watched and reserved from")]
    #[n(5)]
    Missing,
}

/// The two chains of a wallet, parsed. A wallet without any follows single outpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletDescriptor {
    source: String,
    chains: Option<Chains>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chains {
    external: Descriptor<DescriptorPublicKey>,
    internal: Descriptor<DescriptorPublicKey>,
    /// The first script of each chain: two wallets, or chains, that share one share them all.
    first_scripts: [ScriptBuf; 2],
}

fn secp() -> &'static Secp256k1<VerifyOnly> {
    static CONTEXT: OnceLock<Secp256k1<VerifyOnly>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::verification_only)
}

impl WalletDescriptor {
    /// Parses a public multipath descriptor and checks that this service can follow it. An empty one is none.
    ///
    /// # Errors
    /// [`DescriptorFault`] names what is wrong.
    pub fn parse(source: &str, network: Network) -> Result<Self, DescriptorFault> {
        if source.is_empty() {
            return Ok(Self { source: String::new(), chains: None });
        }
        if source.len() > MAX_DESCRIPTOR_LEN {
            return Err(DescriptorFault::Syntax { cause: format!("longer than {MAX_DESCRIPTOR_LEN} bytes") });
        }
        let descriptor = Descriptor::<DescriptorPublicKey>::from_str(source)
            .map_err(|error| DescriptorFault::Syntax { cause: clip(&error.to_string()) })?;
        let kind_ok = match (&descriptor, descriptor.desc_type()) {
            (_, DescriptorType::Wpkh | DescriptorType::WshSortedMulti) => true,
            (Descriptor::Tr(tr), _) => tr.tap_tree().is_none(),
            _ => false,
        };
        if !kind_ok {
            return Err(DescriptorFault::Kind);
        }
        let canonical = descriptor.to_string();
        if !descriptor.for_each_key(key_has_two_chains) {
            return Err(DescriptorFault::Shape);
        }
        let kind = NetworkKind::from(network);
        if !descriptor.for_each_key(|key| key_network(key).is_none_or(|found| found == kind)) {
            return Err(DescriptorFault::Network { expected: network.to_string() });
        }
        let singles = descriptor.into_single_descriptors().map_err(|_| DescriptorFault::Shape)?;
        let [external, internal] = <[_; 2]>::try_from(singles).map_err(|_| DescriptorFault::Shape)?;
        // Derives once, so that what cannot be derived ends here and not later.
        let first = |chain| first_script(chain).ok_or(DescriptorFault::Shape);
        let first_scripts = [first(&external)?, first(&internal)?];
        if first_scripts[0] == first_scripts[1] {
            return Err(DescriptorFault::Shape);
        }
        Ok(Self { source: canonical, chains: Some(Chains { external, internal, first_scripts }) })
    }

    /// Whether there is none, so that the wallet follows single outpoints.
    pub fn is_none(&self) -> bool {
        self.chains.is_none()
    }

    /// The canonical text, with its checksum.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The chain's descriptor with its wildcard, for scanning. `None` where the wallet follows single outpoints.
    pub fn chain(&self, keychain: Keychain) -> Option<&Descriptor<DescriptorPublicKey>> {
        let chains = self.chains.as_ref()?;
        Some(match keychain {
            Keychain::External => &chains.external,
            Keychain::Internal => &chains.internal,
        })
    }

    /// Whether two wallets have a chain in common, and so all of its addresses.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (Some(own), Some(theirs)) = (&self.chains, &other.chains) else { return false };
        own.first_scripts.iter().any(|script| theirs.first_scripts.contains(script))
    }

    /// The descriptor of one address. `None` where `index` is not below 2^31 (BIP-32), or there are no chains.
    pub fn definite(&self, keychain: Keychain, index: u32) -> Option<Descriptor<DefiniteDescriptorKey>> {
        self.chain(keychain)?.at_derivation_index(index).ok()
    }

    /// The script of one address. `None` where `index` is not below 2^31.
    pub fn script(&self, keychain: Keychain, index: u32) -> Option<ScriptBuf> {
        let definite = self.definite(keychain, index)?;
        definite.derived_descriptor(secp()).ok().map(|derived| derived.script_pubkey())
    }

    /// The address to show. `None` where `index` is not below 2^31.
    pub fn address(&self, keychain: Keychain, index: u32, network: Network) -> Option<Address> {
        Address::from_script(&self.script(keychain, index)?, network).ok()
    }

    /// Weight units that a signature adds to an input that is still empty, at most.
    pub fn satisfaction_weight(&self) -> u64 {
        // Every accepted kind of descriptor can be satisfied, and nothing is built for a wallet without one; the bound
        // stands in for what cannot happen.
        let weight = self.chain(Keychain::External).and_then(|chain| chain.max_weight_to_satisfy().ok());
        weight.map_or(crate::limits::MAX_TRANSACTION_WEIGHT, bitcoin::Weight::to_wu)
    }

    /// Whether a single key signs for it, as a signer of this service can.
    pub fn is_single_key(&self) -> bool {
        let chain = self.chain(Keychain::External);
        chain.is_some_and(|chain| matches!(chain.desc_type(), DescriptorType::Wpkh | DescriptorType::Tr))
    }
}

/// The parser quotes what it does not understand, and that may be all of it.
fn clip(words: &str) -> String {
    words.chars().take(MAX_CAUSE_CHARS).collect()
}

fn first_script(chain: &Descriptor<DescriptorPublicKey>) -> Option<ScriptBuf> {
    chain.at_derivation_index(0).ok()?.derived_descriptor(secp()).ok().map(|derived| derived.script_pubkey())
}

/// Every key has to change with the chain and the index, else two wallets could share an address that is not their
/// first. Hardened steps, and more steps than an extended key can count, `miniscript` would answer by a panic.
fn key_has_two_chains(key: &DescriptorPublicKey) -> bool {
    let DescriptorPublicKey::MultiXPub(key) = key else { return false };
    let paths = key.derivation_paths.paths();
    let steps = paths.iter().map(DerivationPath::len).max().unwrap_or(0);
    key.wildcard == Wildcard::Unhardened
        && paths.len() == 2
        && paths.iter().all(|path| path.into_iter().all(ChildNumber::is_normal))
        && usize::from(key.xkey.depth) + steps < usize::from(u8::MAX)
}

fn key_network(key: &DescriptorPublicKey) -> Option<NetworkKind> {
    match key {
        DescriptorPublicKey::Single(_) => None,
        DescriptorPublicKey::XPub(xpub) => Some(xpub.xkey.network),
        DescriptorPublicKey::MultiXPub(xpub) => Some(xpub.xkey.network),
    }
}

/// Stored as its text and the kind of network; parsed again when read.
impl<C> Encode<C> for WalletDescriptor {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.str(&self.source)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for WalletDescriptor {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let source = decoder.str()?;
        // The network was checked when the wallet was registered.
        [Network::Bitcoin, Network::Regtest]
            .into_iter()
            .find_map(|network| Self::parse(source, network).ok())
            .ok_or_else(|| minicbor::decode::Error::message("not a wallet descriptor"))
    }
}

/// One wallet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Wallet {
    /// What it watches.
    #[n(0)]
    pub descriptor: WalletDescriptor,
    /// Who signs.
    #[n(1)]
    pub signer: SignerRef,
    /// The owner's caps.
    #[n(2)]
    pub limits: WalletLimits,
    /// The next external index that was never given out nor seen.
    #[n(3)]
    pub next_external: u32,
    /// The next internal index that was never given out nor seen.
    #[n(4)]
    pub next_internal: u32,
    /// Why nothing may be reserved or signed, if so.
    #[n(5)]
    pub frozen: Option<String>,
    /// Height of the chain when the wallet was registered.
    #[n(6)]
    pub birth: crate::ids::Height,
    /// By what an external signer proves that it has fenced an attempt.
    #[n(7)]
    pub fence_key: Option<FenceKey>,
}

impl Wallet {
    /// Why it is frozen, if a reorganisation of its finality depth did that (safety 17).
    pub fn reorganised(&self) -> Option<&str> {
        self.frozen.as_deref().filter(|why| why.starts_with(REORG_ALARM))
    }

    /// Freezes it by an operator's word. The alarm of a reorganisation stands until somebody unfreezes it, and no word of
    /// an operator is taken for one.
    pub(crate) fn freeze(&mut self, why: &str) {
        const BY_OPERATOR: &str = "; frozen by an operator: ";
        let alarm = self.reorganised().and_then(|alarm| alarm.split(BY_OPERATOR).next()).map(str::to_owned);
        self.frozen = Some(match alarm {
            Some(alarm) => format!("{alarm}{BY_OPERATOR}{why}"),
            None if why.starts_with(REORG_ALARM) => format!("an operator: {why}"),
            None => why.to_owned(),
        });
    }

    /// The next index of a chain.
    pub fn next_index(&self, keychain: Keychain) -> u32 {
        match keychain {
            Keychain::External => self.next_external,
            Keychain::Internal => self.next_internal,
        }
    }

    /// Notes that an index was given out or seen; none is ever given out again.
    pub(crate) fn use_index(&mut self, keychain: Keychain, index: u32) {
        let next = match keychain {
            Keychain::External => &mut self.next_external,
            Keychain::Internal => &mut self.next_internal,
        };
        *next = (*next).max(index.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Height;
    use crate::limits::WalletLimits;

    /// safety 17: the alarm is not over because an operator froze the wallet as well.
    #[test]
    fn an_operators_freeze_neither_ends_nor_fakes_the_alarm_of_a_reorganisation() {
        let mut wallet = Wallet {
            descriptor: WalletDescriptor::parse("", Network::Regtest).unwrap(),
            signer: SignerRef::WatchOnly,
            limits: WalletLimits::default(),
            next_external: 0,
            next_internal: 0,
            frozen: Some(format!("{REORG_ALARM} 7 blocks")),
            birth: Height(0),
            fence_key: None,
        };
        for why in ["audit", "and again"] {
            wallet.freeze(why);
            assert!(wallet.reorganised().unwrap().ends_with(&format!("7 blocks; frozen by an operator: {why}")));
        }
        wallet.frozen = None;
        wallet.freeze(&format!("{REORG_ALARM} nothing"));
        assert_eq!(wallet.reorganised(), None);
        assert!(wallet.frozen.unwrap().ends_with("nothing"));
    }
}
