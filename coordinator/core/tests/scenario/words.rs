//! The words of a scenario's lines, and what they stand for.

use std::collections::BTreeMap;

use bitcoin::ScriptBuf;
use onespend_core::command::Recipient;
use onespend_core::ids::{Millis, PaymentId, PaymentKey, WalletId};
use onespend_core::limits::{Velocity, WalletLimits};
use onespend_core::wallet::Keychain;

use crate::world::chain::foreign_script;
use crate::world::wallets::fixtures;

/// The words of one step: plain ones, and those of the form `name=value`.
pub(super) struct Words<'a> {
    pub(super) plain: Vec<&'a str>,
    pub(super) named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn of(step: &'a str) -> Self {
        let (mut plain, mut named) = (Vec::new(), BTreeMap::new());
        for word in step.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => drop(named.insert(name, value)),
                None => plain.push(word),
            }
        }
        Self { plain, named }
    }

    pub(super) fn at(&self, position: usize) -> &'a str {
        self.plain.get(position).unwrap_or_else(|| panic!("word {position} is missing"))
    }

    pub(super) fn at_or_empty(&self, position: usize) -> &'a str {
        self.plain.get(position).unwrap_or(&"")
    }

    pub(super) fn number(&self, name: &str, default: u64) -> u64 {
        self.named.get(name).map_or(default, |text| number(text))
    }

    pub(super) fn list(&self, name: &str) -> Vec<&'a str> {
        self.named.get(name).map_or(Vec::new(), |text| text.split(',').collect())
    }
}

pub(super) fn number(text: &str) -> u64 {
    text.replace('_', "").parse().unwrap_or_else(|_| panic!("{text} is not a number"))
}

/// `10s`, `10m`, `24h`.
pub(super) fn millis(text: &str) -> u64 {
    let (count, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => panic!("{text} is not a time"),
    };
    number(count) * unit
}

pub(super) fn wallet(name: &str) -> usize {
    fixtures().iter().position(|fixture| fixture.id.as_str() == name).unwrap_or_else(|| panic!("no wallet {name}"))
}

/// `w1/3` is the fourth receiving address of `w1`, `w1/i3` its fourth change address.
pub(super) fn address(text: &str) -> (usize, Keychain, u32) {
    let (name, index) = text.split_once('/').unwrap_or_else(|| panic!("{text} is not an address"));
    let (keychain, index) = match index.strip_prefix('i') {
        Some(index) => (Keychain::Internal, index),
        None => (Keychain::External, index),
    };
    (wallet(name), keychain, u32::try_from(number(index)).unwrap())
}

/// A script by name: an address of a wallet, or anybody else's.
pub(super) fn script(text: &str) -> ScriptBuf {
    if text.contains('/') {
        let (wallet, keychain, index) = address(text);
        return fixtures()[wallet].script(keychain, index);
    }
    foreign_script(text.bytes().fold(1, |sum, byte| sum * 256 + u64::from(byte)))
}

pub(super) fn outputs(list: &[&str]) -> Vec<(ScriptBuf, u64)> {
    list.iter()
        .map(|text| {
            let (to, sat) = text.split_once(':').unwrap_or_else(|| panic!("{text} is not an output"));
            (script(to), number(sat))
        })
        .collect()
}

pub(super) fn key(wallet: &str, payment: &str) -> PaymentKey {
    PaymentKey { wallet: WalletId::parse(wallet).unwrap(), payment: PaymentId::parse(payment).unwrap() }
}

pub(super) fn recipients(list: &[&str]) -> Vec<Recipient> {
    outputs(list).into_iter().map(|(script, amount_sat)| Recipient { script, amount_sat }).collect()
}

pub(super) fn limits(words: &Words) -> WalletLimits {
    let default = WalletLimits::default();
    let small = |name, default: u32| u32::try_from(words.number(name, u64::from(default))).unwrap();
    WalletLimits {
        max_fee_sat: words.number("max_fee", default.max_fee_sat),
        max_feerate_sat_kvb: words.number("max_feerate_kvb", default.max_feerate_sat_kvb),
        max_fee_percent: small("max_percent", default.max_fee_percent),
        finality_depth: small("depth", default.finality_depth),
        max_reservations: small("max_reservations", default.max_reservations),
        max_reserved_percent: words.named.get("max_reserved").map(|text| u32::try_from(number(text)).unwrap()),
        velocity: words.named.get("velocity").map(|text| {
            let (sat, window) = text.split_once('/').unwrap_or_else(|| panic!("{text} is not SAT/TIME"));
            Velocity { window: Millis(millis(window)), max_sat: number(sat) }
        }),
        spend_unconfirmed_change: words.named.get("unconfirmed").map(|text| *text == "yes"),
    }
}
