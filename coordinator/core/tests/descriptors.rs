//! Which descriptors are followed, and that no other can stop a node or share an address.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::str::FromStr;

use bitcoin::Network;
use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::secp256k1::Secp256k1;
use onespend_core::limits::MAX_DESCRIPTOR_LEN;
use onespend_core::wallet::{DescriptorFault, Keychain, WalletDescriptor};

fn key(seed: u8) -> Xpub {
    Xpub::from_priv(&Secp256k1::new(), &Xpriv::new_master(Network::Regtest, &[seed; 32]).unwrap())
}

fn parse(text: &str) -> Result<WalletDescriptor, DescriptorFault> {
    WalletDescriptor::parse(text, Network::Regtest)
}

#[test]
fn single_keys_by_wpkh_and_tr_and_sorted_multisig_are_followed() {
    let (a, b) = (key(1), key(2));
    for text in [
        format!("wpkh({a}/<0;1>/*)"),
        format!("tr({a}/<0;1>/*)"),
        format!("wsh(sortedmulti(2,{a}/<0;1>/*,{b}/<0;1>/*))"),
        format!("wpkh([00000000/84h/1h/0h]{a}/<10;11>/*)"),
    ] {
        let descriptor = parse(&text).unwrap();
        assert_eq!(parse(descriptor.as_str()).unwrap(), descriptor, "the canonical text means the same");
        assert_ne!(descriptor.script(Keychain::External, 7), descriptor.script(Keychain::Internal, 7));
        assert!(descriptor.script(Keychain::External, (1 << 31) - 1).is_some());
        assert_eq!(descriptor.script(Keychain::External, 1 << 31), None);
        assert_eq!(descriptor.script(Keychain::Internal, u32::MAX), None);
    }
}

/// safety 14: legacy inputs let a third party change the txid. safety 20: no script path.
#[test]
fn kinds_that_cannot_be_kept_safe_are_refused() {
    let (a, b) = (key(1), key(2));
    for text in [
        format!("pkh({a}/<0;1>/*)"),
        format!("sh(wpkh({a}/<0;1>/*))"),
        format!("sh(sortedmulti(1,{a}/<0;1>/*,{b}/<0;1>/*))"),
        format!("wsh(multi(1,{a}/<0;1>/*,{b}/<0;1>/*))"),
        format!("tr({a}/<0;1>/*,pk({b}/<0;1>/*))"),
    ] {
        assert_eq!(parse(&text), Err(DescriptorFault::Kind), "{text}");
    }
}

/// Address indices are never reused: two chains that are one would hand out each address twice.
#[test]
fn chains_that_are_one_are_refused() {
    let a = key(1);
    assert!(parse(&format!("wpkh({a}/<0;0>/*)")).is_err());
    assert_eq!(parse(&format!("wsh(sortedmulti(1,{a}/<0;1>/*,{a}/<1;0>/*))")), Err(DescriptorFault::Shape));
}

/// safety 1: a key that stands still could make two wallets share an address that is not their first.
#[test]
fn keys_that_do_not_follow_chain_and_index_are_refused() {
    let (a, b) = (key(1), key(2));
    for text in [
        format!("wpkh({a}/0/*)"),
        format!("wpkh({a}/<0;1>/0)"),
        format!("wpkh({a}/<0;1;2>/*)"),
        format!("wpkh({a}/<0;1>/*h)"),
        format!("wpkh({a}/0h/<0;1>/*)"),
        format!("wpkh({a}/<0h;1h>/*)"),
        format!("wsh(sortedmulti(1,{a}/<0;1>/*,{b}/0/5))"),
        format!("wsh(sortedmulti(1,{a}/<0;1>/*,{b}/0/*))"),
        format!("wsh(sortedmulti(1,{a}/<0;1>/*,{}))", b.public_key),
    ] {
        assert_eq!(parse(&text), Err(DescriptorFault::Shape), "{text}");
    }
}

#[test]
fn keys_of_another_network_are_refused() {
    let a = key(1);
    let fault = WalletDescriptor::parse(&format!("wpkh({a}/<0;1>/*)"), Network::Bitcoin).unwrap_err();
    assert_eq!(fault, DescriptorFault::Network { expected: "bitcoin".to_owned() });
}

/// An extended key counts its depth in one byte; deriving below the last one is a panic in `miniscript`.
#[test]
fn keys_too_deep_to_derive_from_are_refused_and_not_a_panic() {
    let at_depth = |depth| Xpub { depth, ..key(1) };
    assert!(parse(&format!("wpkh({}/<0;1>/*)", at_depth(253))).is_ok());
    for depth in [254, 255] {
        assert_eq!(parse(&format!("wpkh({}/<0;1>/*)", at_depth(depth))), Err(DescriptorFault::Shape), "{depth}");
    }
    let path = "/0".repeat(260);
    assert_eq!(parse(&format!("wpkh({}{path}/<0;1>/*)", key(1))), Err(DescriptorFault::Shape));
}

#[test]
fn text_that_is_no_public_descriptor_is_refused_with_its_fault() {
    let private = Xpriv::new_master(Network::Regtest, &[1; 32]).unwrap();
    let long = format!("wpkh({}/<0;1>/*){}", key(1), " ".repeat(MAX_DESCRIPTOR_LEN));
    let deep = "wsh(".repeat(1000);
    for text in ["wpkh", "wpkh()", "wpkh(xpub/<0;1>/*)", &format!("wpkh({private}/<0;1>/*)"), &long, &deep] {
        assert!(matches!(parse(text), Err(DescriptorFault::Syntax { .. })), "{text:.40}");
    }
    let wrong_checksum = format!("wpkh({}/<0;1>/*)#aaaaaaaa", key(1));
    assert!(matches!(parse(&wrong_checksum), Err(DescriptorFault::Syntax { .. })));
}

/// Such a wallet follows single outpoints: it has no address, and nobody signs for it.
#[test]
fn no_text_is_no_descriptor() {
    let none = parse("").unwrap();
    assert!(none.is_none() && !none.is_single_key() && none.chain(Keychain::External).is_none());
    assert_eq!((none.as_str(), none.script(Keychain::External, 0)), ("", None));
    let some = parse(&format!("wpkh({}/<0;1>/*)", key(1))).unwrap();
    assert!(!some.is_none() && !none.overlaps(&none) && !some.overlaps(&none));
}

/// safety 1: two wallets with a chain in common would claim the same coins.
#[test]
fn wallets_that_share_a_chain_overlap() {
    let (a, b) = (key(1), key(2));
    let child = a.derive_pub(&Secp256k1::new(), &bitcoin::bip32::DerivationPath::from_str("m/0").unwrap()).unwrap();
    let overlap = |x: &str, y: &str| parse(x).unwrap().overlaps(&parse(y).unwrap());
    let base = format!("wpkh({a}/<0;1>/*)");
    assert!(overlap(&base, &format!("wpkh({a}/<1;2>/*)")));
    assert!(overlap(&base, &format!("wpkh([00000000/1h]{a}/<1;0>/*)")));
    assert!(overlap(&format!("wpkh({a}/0/<0;1>/*)"), &format!("wpkh({child}/<0;1>/*)")));
    let multi = |x, y| format!("wsh(sortedmulti(1,{x}/<0;1>/*,{y}/<0;1>/*))");
    assert!(overlap(&multi(a, b), &multi(b, a)));
    assert!(!overlap(&base, &format!("wpkh({a}/<2;3>/*)")));
    assert!(!overlap(&base, &format!("tr({a}/<0;1>/*)")));
    assert!(!overlap(&base, &format!("wpkh({b}/<0;1>/*)")));
}
