//! What callers order: reservations, payments, further attempts.

use bitcoin::{OutPoint, ScriptBuf, Transaction};
use minicbor::{Decode, Encode};

use crate::codec;
use crate::ids::{AttemptNo, Fence, Millis, PaymentId, PaymentKey, ReservationId, WalletId};
use crate::wallet::Keychain;

/// Who gets how much.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Recipient {
    /// To which script.
    #[n(0)]
    #[cbor(with = "codec::one")]
    pub script: ScriptBuf,
    /// How much.
    #[n(1)]
    pub amount_sat: u64,
}

/// The output of a transaction that comes back to the wallet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Change {
    /// Which output.
    #[n(0)]
    pub vout: u32,
    /// Chain of the descriptor.
    #[n(1)]
    pub keychain: Keychain,
    /// Index on that chain.
    #[n(2)]
    pub index: u32,
}

/// Replaces the newest live attempt by one that pays more fees, or gives the coins back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Replace {
    /// The payment.
    #[n(0)]
    pub key: PaymentKey,
    /// The newest live attempt that this was decided on.
    #[n(1)]
    pub previous: AttemptNo,
    /// Coins to spend besides those of that attempt, chosen by the leader.
    #[n(2)]
    #[cbor(with = "codec::many")]
    pub more: Vec<OutPoint>,
    /// The fee of the replacement.
    #[n(3)]
    pub fee_sat: u64,
}

/// Lets a child pay for its parent: a payment to this wallet's own address that spends the change of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BumpByChild {
    /// The payment whose newest live attempt is the parent.
    #[n(0)]
    pub key: PaymentKey,
    /// That attempt.
    #[n(1)]
    pub parent: AttemptNo,
    /// The caller's name for the child.
    #[n(2)]
    pub child: PaymentId,
    /// The fee of the child.
    #[n(3)]
    pub fee_sat: u64,
}

/// A signer's word that it has not signed an attempt and never will, by which its coins may be freed (safety 6).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AbortAttempt {
    /// The payment.
    #[n(0)]
    pub key: PaymentKey,
    /// The attempt.
    #[n(1)]
    pub attempt: AttemptNo,
    /// The BIP-340 signature of the wallet's fence key over [`crate::signing::abort_message`], 64 bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub proof: Vec<u8>,
}

/// Reserves coins: all or none (safety 2).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Reserve {
    /// Whose coins.
    #[n(0)]
    pub wallet: WalletId,
    /// Which, chosen by the caller or by the leader.
    #[n(1)]
    #[cbor(with = "codec::many")]
    pub outpoints: Vec<OutPoint>,
    /// For how long.
    #[n(2)]
    pub ttl: Millis,
    /// The payment they are for, if named.
    #[n(3)]
    pub payment: Option<PaymentId>,
    /// Whether the leader chose the coins: then one that was taken meanwhile means "choose again", not a refusal.
    #[n(4)]
    pub selected: bool,
}

/// Pays with coins that the leader chose; the transaction is built inside `apply`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CreatePayment {
    /// The payment.
    #[n(0)]
    pub key: PaymentKey,
    /// Who gets how much.
    #[n(1)]
    pub recipients: Vec<Recipient>,
    /// The coins to spend.
    #[n(2)]
    #[cbor(with = "codec::many")]
    pub outpoints: Vec<OutPoint>,
    /// The fee; what is left goes to a change output.
    #[n(3)]
    pub fee_sat: u64,
}

/// Pays with a transaction that the caller built on a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PayReserved {
    /// The payment.
    #[n(0)]
    pub key: PaymentKey,
    /// Who gets how much.
    #[n(1)]
    pub recipients: Vec<Recipient>,
    /// The reservation whose coins it spends, all of them and no others; a replacement also spends coins of the
    /// payment's own attempts, and may do without a reservation.
    #[n(2)]
    pub reservation: Option<ReservationId>,
    /// The fence that the reservation was granted with; 0 without one.
    #[n(3)]
    pub fence: Fence,
    /// The unsigned transaction.
    #[n(4)]
    #[cbor(with = "codec::one")]
    pub transaction: Transaction,
    /// Which output comes back, if any.
    #[n(5)]
    pub change: Option<Change>,
}

/// What became of handing a signed transaction to bitcoind.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Relay {
    /// It is in a mempool.
    #[n(0)]
    Accepted,
    /// bitcoind refused it; it is tried again.
    #[n(1)]
    Refused(#[n(0)] String),
}
