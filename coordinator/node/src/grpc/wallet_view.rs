//! Wallets as callers see them.

use std::time::Duration;

use onespend_core::ids::WalletId;
use onespend_core::limits::{Velocity, WalletLimits};
use onespend_core::wallet::{SignerRef, Wallet};
use onespend_proto::v1;

use super::utxo_view::sat;

/// Name on the wire for a wallet whose caller signs.
pub(crate) const EXTERNAL_SIGNER: &str = "external";

pub(crate) fn signer(signer: &SignerRef) -> String {
    match signer {
        SignerRef::WatchOnly => String::new(),
        SignerRef::External => EXTERNAL_SIGNER.to_owned(),
        SignerRef::Named(name) => name.clone(),
    }
}

#[allow(clippy::cast_precision_loss)] // Feerates are far below 2^53 sat per 1000 vB.
pub(crate) fn limits(limits: &WalletLimits) -> v1::WalletLimits {
    v1::WalletLimits {
        max_fee_sat: sat(limits.max_fee_sat),
        max_feerate_sat_vb: limits.max_feerate_sat_kvb as f64 / 1000.0,
        max_fee_percent: limits.max_fee_percent,
        finality_depth: limits.finality_depth,
        max_reservations: limits.max_reservations,
        max_reserved_percent: limits.max_reserved_percent.unwrap_or(0),
        velocity: limits.velocity.map(velocity),
        spend_unconfirmed_change: limits.spend_unconfirmed_change == Some(true),
    }
}

fn velocity(velocity: Velocity) -> v1::Velocity {
    let window = prost_types::Duration::try_from(Duration::from_millis(velocity.window.0)).ok();
    v1::Velocity { window, max_sat: sat(velocity.max_sat) }
}

pub(crate) fn wallet(id: &WalletId, wallet: &Wallet) -> v1::Wallet {
    v1::Wallet {
        wallet_id: id.to_string(),
        descriptor: wallet.descriptor.as_str().to_owned(),
        signer: signer(&wallet.signer),
        limits: Some(limits(&wallet.limits)),
        birth_height: wallet.birth.0,
        frozen: wallet.frozen.is_some(),
        frozen_note: wallet.frozen.clone().unwrap_or_default(),
        next_external_index: wallet.next_external,
        next_internal_index: wallet.next_internal,
        fence_key: wallet.fence_key.map(|key| key.0.to_vec()).unwrap_or_default().into(),
    }
}
