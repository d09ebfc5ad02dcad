//! A small wallet with two coins and a transaction, for the tests of guards: permits from the core are always right.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, Keypair, Secp256k1, SecretKey};
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use onespend_core::command::{Change, Recipient};
use onespend_core::signing::PermittedInput;
use onespend_core::transaction;
use onespend_core::wallet::{Keychain, WalletDescriptor};

const CHANGE_INDEX: u32 = 7;

#[derive(Clone)]
pub(super) struct Specimen {
    pub(super) descriptor: WalletDescriptor,
    pub(super) transaction: Transaction,
    pub(super) inputs: Vec<PermittedInput>,
    pub(super) change: Option<Change>,
}

/// `kind` is `wpkh` or `tr`.
pub(super) fn specimen(kind: &str) -> Specimen {
    let public = Xpub::from_priv(&Secp256k1::new(), &master());
    descriptor_specimen(&format!("{kind}({public}/<0;1>/*)"))
}

pub(super) fn descriptor_specimen(source: &str) -> Specimen {
    let descriptor = WalletDescriptor::parse(source, Network::Regtest).unwrap();
    let inputs: Vec<PermittedInput> = (0..2)
        .map(|index| PermittedInput {
            outpoint: OutPoint { txid: Txid::hash(&[9; 32]), vout: index },
            txout: TxOut {
                value: Amount::from_sat(100_000),
                script_pubkey: descriptor.script(Keychain::External, index).unwrap(),
            },
            keychain: Keychain::External,
            index,
        })
        .collect();
    let outpoints: Vec<OutPoint> = inputs.iter().map(|input| input.outpoint).collect();
    let script = ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::hash(b"somebody"));
    let change = descriptor.script(Keychain::Internal, CHANGE_INDEX).unwrap();
    let recipients = [Recipient { script, amount_sat: 50_000 }];
    let (transaction, vout) = transaction::build(&outpoints, &recipients, Some((change, 149_000)));
    let change = Some(Change { vout: vout.unwrap(), keychain: Keychain::Internal, index: CHANGE_INDEX });
    Specimen { descriptor, transaction, inputs, change }
}

fn master() -> Xpriv {
    Xpriv::new_master(Network::Regtest, &[5; 32]).unwrap()
}

/// The private key of one of the specimen's coins.
pub(super) fn secret(secp: &Secp256k1<All>, index: u32) -> SecretKey {
    let path: DerivationPath = format!("0/{index}").parse().unwrap();
    master().derive_priv(secp, &path).unwrap().private_key
}

/// The same, tweaked for taproot without scripts.
pub(super) fn tweaked(secp: &Secp256k1<All>, index: u32) -> Keypair {
    use bitcoin::key::TapTweak;
    Keypair::from_secret_key(secp, &secret(secp, index)).tap_tweak(secp, None).to_keypair()
}
