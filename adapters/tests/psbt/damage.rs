//! Random damage to PSBTs that are right: whatever comes, the answer is a value.

use bitcoin::base64::Engine;
use bitcoin::base64::prelude::BASE64_STANDARD;
use bitcoin::psbt::raw;
use onespend_adapters::psbt::{PsbtLimits, check_claims, intake};
use proptest::prelude::*;

use crate::specimen::{specimen, view};
use crate::vectors::published;

/// One change to the bytes.
#[derive(Debug, Clone)]
enum Damage {
    Set(u16, u8),
    Flip(u16, u8),
    Insert(u16, Vec<u8>),
    Remove(u16, u8),
    Repeat(u16, u8),
    Cut(u16),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<u16>;
    // Small numbers, and those that start a compact size, are where parsers go wrong.
    let byte = prop_oneof![any::<u8>(), 0_u8..8, 0xfb_u8..];
    prop_oneof![
        4 => (at(), byte).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (at(), 0_u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (at(), prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (at(), 1_u8..40).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => (at(), 1_u8..80).prop_map(|(at, count)| Damage::Repeat(at, count)),
        1 => at().prop_map(Damage::Cut),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let place = |at: u16| usize::from(at) % bytes.len().max(1);
    match damage {
        _ if bytes.is_empty() => {}
        Damage::Set(at, byte) => {
            let at = place(*at);
            bytes[at] = *byte;
        }
        Damage::Flip(at, bit) => {
            let at = place(*at);
            bytes[at] ^= 1 << bit;
        }
        Damage::Insert(at, more) => {
            let at = place(*at);
            bytes.splice(at..at, more.iter().copied());
        }
        Damage::Remove(at, count) => {
            let start = place(*at);
            let end = (start + usize::from(*count)).min(bytes.len());
            bytes.drain(start..end);
        }
        Damage::Repeat(at, count) => {
            let start = place(*at);
            let end = (start + usize::from(*count)).min(bytes.len());
            let copy = bytes[start..end].to_vec();
            bytes.splice(end..end, copy);
        }
        Damage::Cut(at) => bytes.truncate(place(*at)),
    }
}

/// PSBTs to damage: our own, and every published one that is there.
fn healthy() -> Vec<Vec<u8>> {
    let mut rich = specimen();
    rich.unknown.insert(raw::Key { type_value: 0xf0, key: vec![1] }, vec![2; 20]);
    rich.inputs[0].sighash_type = Some(bitcoin::EcdsaSighashType::All.into());
    let published = ["bip0174.json", "bip0371.json"].into_iter().filter_map(published).flatten();
    let published = published.filter_map(|vector| BASE64_STANDARD.decode(vector.base64).ok());
    [specimen().serialize(), rich.serialize()].into_iter().chain(published).collect()
}

fn feed(bytes: &[u8]) {
    if let Ok(proposal) = intake(bytes, &PsbtLimits::default()) {
        assert!(!proposal.transaction.input.is_empty());
        assert_eq!(proposal.claims.len(), proposal.transaction.input.len());
        let _ = check_claims(&proposal, view);
        let _ = check_claims(&proposal, |_| None);
    }
}

#[test]
fn no_single_byte_can_make_it_panic() {
    let bytes = specimen().serialize();
    for at in 0..bytes.len() {
        for value in [0, 1, 2, 0x0e, 0x7f, 0x80, 0xfc, 0xfd, 0xfe, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            feed(&changed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn damaged_psbts_never_make_it_panic(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        thread_local!(static HEALTHY: Vec<Vec<u8>> = healthy());
        let mut bytes = HEALTHY.with(|all| which.get(all).clone());
        for damage in &damages {
            apply(&mut bytes, damage);
        }
        feed(&bytes);
        feed(BASE64_STANDARD.encode(&bytes).as_bytes());
    }

    #[test]
    fn arbitrary_maps_never_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        feed(&bytes);
        feed(&[b"psbt\xff", &bytes[..]].concat());
        // Behind a right global map, so that the maps of inputs and outputs are reached.
        let whole = specimen().serialize();
        let head = 5 + 3 + bitcoin::consensus::serialize(&specimen().unsigned_tx).len() + 1;
        feed(&[&whole[..head], &bytes].concat());
    }
}
