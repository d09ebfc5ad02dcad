//! Four wallets of real descriptors, one of each kind, with their first addresses worked out without the core; and one
//! without descriptors.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::OnceLock;

use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::secp256k1::{Keypair, Secp256k1};
use bitcoin::{Network, PublicKey, ScriptBuf};
use miniscript::Descriptor;
use miniscript::descriptor::DescriptorPublicKey;
use onespend_core::command::FenceKey;
use onespend_core::ids::WalletId;
use onespend_core::wallet::{Keychain, SignerRef};

/// Position of the wallet without descriptors, which follows single coins.
pub const SINGLE: usize = 4;
/// Addresses of each chain that the model knows.
pub const ADDRESSES: u32 = 96;

/// A wallet that tests may register.
pub struct Fixture {
    pub id: WalletId,
    pub descriptor: String,
    pub signer: SignerRef,
    /// By which the external signer says that it has fenced.
    pub fence_key: Option<FenceKey>,
    /// Scripts of the external and of the internal chain.
    pub scripts: [Vec<ScriptBuf>; 2],
    /// Public keys of both chains, for wallets of one key.
    keys: [Vec<PublicKey>; 2],
}

impl Fixture {
    /// Whether it has no descriptors: its coins are those that are named to it.
    pub fn follows_single_coins(&self) -> bool {
        self.descriptor.is_empty()
    }

    pub fn script(&self, keychain: Keychain, index: u32) -> ScriptBuf {
        self.scripts[place(keychain)][index as usize].clone()
    }

    pub fn key(&self, keychain: Keychain, index: u32) -> PublicKey {
        self.keys[place(keychain)][index as usize]
    }
}

fn place(keychain: Keychain) -> usize {
    match keychain {
        Keychain::External => 0,
        Keychain::Internal => 1,
    }
}

/// The position of the wallet whose address a script is, and which address.
pub type Address = (usize, Keychain, u32);

/// `w1` wpkh and `w2` tr are signed for by `hot`; `w3` is a watched 2-of-3; `w4` signs outside; `w5` has no descriptors,
/// and its scripts are those of a key that the core never hears of.
pub fn fixtures() -> &'static [Fixture] {
    static ALL: OnceLock<Vec<Fixture>> = OnceLock::new();
    ALL.get_or_init(|| {
        let (a, b, c, d) = (key(1), key(2), key(3), key(4));
        let unheard_of = format!("wpkh({}/<0;1>/*)", key(5));
        let hot = || SignerRef::Named("hot".to_owned());
        vec![
            fixture("w1", format!("wpkh({a}/<0;1>/*)"), hot(), Some(a)),
            fixture("w2", format!("tr({b}/<0;1>/*)"), hot(), None),
            fixture(
                "w3",
                format!("wsh(sortedmulti(2,{a}/<0;1>/*,{b}/<0;1>/*,{c}/<0;1>/*))"),
                SignerRef::WatchOnly,
                None,
            ),
            fixture("w4", format!("wpkh({d}/<0;1>/*)"), SignerRef::External, Some(d)),
            Fixture { descriptor: String::new(), ..fixture("w5", unheard_of, SignerRef::WatchOnly, None) },
        ]
    })
}

/// Whose address a script is.
pub fn address_of(script: &ScriptBuf) -> Option<Address> {
    static ALL: OnceLock<BTreeMap<ScriptBuf, Address>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all = BTreeMap::new();
        for (position, fixture) in fixtures().iter().enumerate() {
            for keychain in [Keychain::External, Keychain::Internal] {
                for (index, script) in (0..).zip(&fixture.scripts[place(keychain)]) {
                    all.insert(script.clone(), (position, keychain, index));
                }
            }
        }
        all
    });
    all.get(script).copied()
}

fn key(seed: u8) -> Xpub {
    Xpub::from_priv(&Secp256k1::new(), &Xpriv::new_master(Network::Regtest, &[seed; 32]).unwrap())
}

fn fixture(name: &str, descriptor: String, signer: SignerRef, single: Option<Xpub>) -> Fixture {
    let secp = Secp256k1::new();
    let parsed = Descriptor::<DescriptorPublicKey>::from_str(&descriptor).unwrap();
    let chains = parsed.into_single_descriptors().unwrap();
    let scripts = |chain: usize| {
        let script = |index| chains[chain].derived_descriptor(&secp, index).unwrap().script_pubkey();
        (0..ADDRESSES).map(script).collect()
    };
    let keys = |chain: u32| {
        let derive =
            |key: Xpub, index| key.ckd_pub(&secp, chain.into()).unwrap().ckd_pub(&secp, u32::into(index)).unwrap();
        single
            .iter()
            .flat_map(|key| (0..ADDRESSES).map(|index| PublicKey::new(derive(*key, index).public_key)))
            .collect()
    };
    Fixture {
        id: WalletId::parse(name).unwrap(),
        scripts: [scripts(0), scripts(1)],
        keys: [keys(0), keys(1)],
        descriptor,
        fence_key: (signer == SignerRef::External).then(|| FenceKey(fence_keypair().x_only_public_key().0.serialize())),
        signer,
    }
}

/// The key of the signer outside.
pub fn fence_keypair() -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &[9; 32]).unwrap()
}
