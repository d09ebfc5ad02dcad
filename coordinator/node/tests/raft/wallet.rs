//! A wallet with coins, and commands on them.

use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{BlockHash, Network, OutPoint, Txid};
use onespend::raft::Draft;
use onespend_core::command::{BlockRef, Command, Received, RegisterWallet, Request, Reserve};
use onespend_core::ids::{CallerId, Height, Millis, RequestId, RequestKey, WalletId};
use onespend_core::limits::WalletLimits;
use onespend_core::wallet::{Keychain, SignerRef, WalletDescriptor};

fn tip() -> BlockRef {
    BlockRef { height: Height(200), hash: BlockHash::from_byte_array([7; 32]) }
}

pub fn wallet() -> WalletId {
    WalletId::parse("w").unwrap()
}

pub fn coin(n: u32) -> OutPoint {
    let mut bytes = [1; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    OutPoint::new(Txid::from_byte_array(bytes), 0)
}

/// The commands that make a wallet with coins 0 to `coins`.
pub fn setup(coins: u32) -> Vec<Draft> {
    let secp = Secp256k1::new();
    let key = Xpub::from_priv(&secp, &Xpriv::new_master(Network::Regtest, &[9; 32]).unwrap());
    let descriptor = format!("wpkh({key}/<0;1>/*)");
    let parsed = WalletDescriptor::parse(&descriptor, Network::Regtest).unwrap();
    let script = parsed.script(Keychain::External, 0).unwrap();
    let found = (0..coins).map(|n| Received {
        outpoint: coin(n),
        wallet: wallet(),
        value_sat: 100_000,
        script: script.clone(),
        keychain: Keychain::External,
        index: 0,
        coinbase: false,
        height: Height(100),
    });
    let register = RegisterWallet {
        wallet: wallet(),
        descriptor,
        signer: SignerRef::Named("hot".to_owned()),
        limits: WalletLimits::default(),
        basis: tip(),
        found: found.collect(),
        fence_key: None,
    };
    vec![
        Draft::duty(Command::Start { network: Network::Regtest, tip: tip() }),
        Draft::duty(Command::RegisterWallet(register)),
    ]
}

/// Reserves coin `n` under a request id of its own.
pub fn reserve(n: u32) -> Draft {
    let key = RequestKey {
        caller: CallerId::parse("client/test").unwrap(),
        request: RequestId::parse(&format!("reserve-{n}")).unwrap(),
    };
    let reserve =
        Reserve { wallet: wallet(), outpoints: vec![coin(n)], ttl: Millis(600_000), payment: None, selected: false };
    Draft { request: Some(Request { key, digest: [0; 32], for_others: false }), command: Command::Reserve(reserve) }
}
