//! Coins as callers see them.

use bitcoin::{Address, OutPoint};
use onespend_core::ids::Height;
use onespend_core::state::State;
use onespend_core::utxo::{Claim, Utxo, UtxoState};
use onespend_core::wallet::Keychain;
use onespend_proto::v1;

pub(crate) fn outpoint(outpoint: &OutPoint) -> v1::Outpoint {
    v1::Outpoint { txid: outpoint.txid.to_string(), vout: outpoint.vout }
}

pub(crate) fn sat(value: u64) -> i64 {
    // Amounts are below 21 million bitcoin, which fits; a sum that did not fit would be shown as the largest.
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn keychain(keychain: Keychain) -> v1::Keychain {
    match keychain {
        Keychain::External => v1::Keychain::External,
        Keychain::Internal => v1::Keychain::Internal,
    }
}

pub(crate) fn state(state: UtxoState) -> v1::UtxoState {
    match state {
        UtxoState::Available => v1::UtxoState::Available,
        UtxoState::Immature => v1::UtxoState::Immature,
        UtxoState::Unconfirmed => v1::UtxoState::Unconfirmed,
        UtxoState::Reserved => v1::UtxoState::Reserved,
        UtxoState::Exposed => v1::UtxoState::Exposed,
        UtxoState::SpentPending => v1::UtxoState::SpentPending,
        UtxoState::Spent => v1::UtxoState::Spent,
        UtxoState::Quarantined => v1::UtxoState::Quarantined,
    }
}

/// Where a coin stands at the log's tip.
pub(crate) fn state_of(replicated: &State, utxo: &Utxo) -> UtxoState {
    let finality = replicated.wallet(&utxo.wallet).map_or(1, |wallet| wallet.limits.finality_depth);
    utxo.state(tip(replicated), finality)
}

/// The height that depths count from.
pub(crate) fn tip(replicated: &State) -> Height {
    replicated.tip().map_or(Height(0), |tip| tip.height)
}

/// One coin.
pub(crate) fn utxo(replicated: &State, at: &OutPoint, utxo: &Utxo) -> v1::Utxo {
    let (reservation_id, payment_id) = match &utxo.claim {
        Claim::Reserved(id) => (id.to_string(), String::new()),
        Claim::Exposed(id) => (String::new(), id.to_string()),
        Claim::Free | Claim::Quarantined => (String::new(), String::new()),
    };
    let address = replicated.network().ok().and_then(|network| Address::from_script(&utxo.script, network).ok());
    v1::Utxo {
        outpoint: Some(outpoint(at)),
        value_sat: sat(utxo.value_sat),
        script: utxo.script.to_bytes().into(),
        height: utxo.height.map_or(0, |height| height.0),
        depth: utxo.depth(tip(replicated)),
        coinbase: utxo.coinbase,
        keychain: keychain(utxo.keychain).into(),
        index: utxo.index,
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        state: state(state_of(replicated, utxo)).into(),
        reservation_id,
        payment_id,
        spending_txid: utxo.spent.as_ref().map(|spend| spend.txid.to_string()).unwrap_or_default(),
    }
}
