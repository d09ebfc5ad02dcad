//! One coin of a wallet, who has a claim on it, and what became of it.

use bitcoin::{ScriptBuf, Txid};
use minicbor::{Decode, Encode};

use crate::codec;
use crate::ids::{Height, PaymentId, ReservationId, WalletId};
use crate::limits::COINBASE_MATURITY;
use crate::wallet::Keychain;

/// Who owns the right to spend a coin. One field, so an outpoint has at most one owner (safety 1).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Claim {
    /// Nobody.
    #[n(0)]
    Free,
    /// A reservation, for a time.
    #[n(1)]
    Reserved(#[n(0)] ReservationId),
    /// A payment of the coin's wallet whose intent is committed; time does not free it (safety 5).
    #[n(2)]
    Exposed(#[n(0)] PaymentId),
    /// Nobody may have it until an operator has looked, which only releasing it says: a transaction that is not ours spent
    /// it, and a reorganisation took that transaction away, or a mempool or a signer's memory has one that does.
    #[n(3)]
    Quarantined,
}

/// A transaction in a block that spends a coin, or takes it away before it is there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Spend {
    /// The spender.
    #[n(0)]
    #[cbor(with = "codec::one")]
    pub txid: Txid,
    /// Height of its block.
    #[n(1)]
    pub height: Height,
    /// Set where it spends not the coin, but what the transaction that made the coin would spend: while it is in the chain
    /// there is no such coin ([`crate::lost`]).
    #[n(2)]
    pub lost: Option<bool>,
}

/// One output that a wallet received.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Utxo {
    /// Whose it is.
    #[n(0)]
    pub wallet: WalletId,
    /// Its value.
    #[n(1)]
    pub value_sat: u64,
    /// Its script.
    #[n(2)]
    #[cbor(with = "codec::one")]
    pub script: ScriptBuf,
    /// Which chain of the descriptor the script comes from.
    #[n(3)]
    pub keychain: Keychain,
    /// Index on that chain.
    #[n(4)]
    pub index: u32,
    /// Height of its block; `None` after a reorganisation took the block away, and for change that is in no block yet.
    #[n(5)]
    pub height: Option<Height>,
    /// Whether a coinbase transaction made it.
    #[n(6)]
    pub coinbase: bool,
    /// Who has the right to spend it.
    #[n(7)]
    pub claim: Claim,
    /// The spender in the chain, if any, or the transaction that took the coin away.
    #[n(8)]
    pub spent: Option<Spend>,
}

/// What a caller is told of a coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UtxoState {
    /// May be reserved.
    Available,
    /// A coinbase below 100 confirmations (safety 23).
    Immature,
    /// It is in no block: its block was disconnected, or it is change of an attempt that is not confirmed.
    Unconfirmed,
    /// Claimed by a reservation.
    Reserved,
    /// A signature that spends it may exist.
    Exposed,
    /// Spent in a block below finality depth.
    SpentPending,
    /// Spent at finality depth.
    Spent,
    /// Held back for an operator.
    Quarantined,
}

impl Spend {
    /// Whether it took the coin away before it was there.
    pub fn is_loss(&self) -> bool {
        self.lost == Some(true)
    }
}

impl Utxo {
    /// Confirmations at `tip`; 0 when not in a block.
    pub fn depth(&self, tip: Height) -> u32 {
        self.height.map_or(0, |height| depth(height, tip))
    }

    /// Whether consensus lets the next block spend it (safety 23).
    pub fn is_mature(&self, tip: Height) -> bool {
        !self.coinbase || self.depth(tip) >= COINBASE_MATURITY
    }

    /// What a caller is told, at `tip` and with the wallet's finality depth.
    pub fn state(&self, tip: Height, finality_depth: u32) -> UtxoState {
        match (&self.spent, &self.claim) {
            (Some(spend), _) if depth(spend.height, tip) >= finality_depth => UtxoState::Spent,
            (Some(_), _) => UtxoState::SpentPending,
            (None, Claim::Exposed(_)) => UtxoState::Exposed,
            (None, Claim::Reserved(_)) => UtxoState::Reserved,
            (None, Claim::Quarantined) => UtxoState::Quarantined,
            (None, Claim::Free) if self.height.is_none() => UtxoState::Unconfirmed,
            (None, Claim::Free) if !self.is_mature(tip) => UtxoState::Immature,
            (None, Claim::Free) => UtxoState::Available,
        }
    }
}

/// Confirmations of a block at `height` when the chain's tip is at `tip`; the tip itself has 1.
pub fn depth(height: Height, tip: Height) -> u32 {
    tip.0.checked_sub(height.0).map_or(0, |above| above.saturating_add(1))
}
