//! What became of a command. Both enums are closed and carry facts, so a caller learns what and why.

mod rejection;

use bitcoin::OutPoint;
use minicbor::{Decode, Encode};

use crate::codec;
use crate::ids::{AttemptNo, Millis, PaymentId, PaymentKey, ReservationId};
use crate::wallet::Keychain;

pub use rejection::Rejection;

/// The answer of [`crate::apply::apply`]. A refusal is a value too: nothing was changed then.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// A duty of the leader was recorded.
    #[n(0)]
    Recorded,
    /// A wallet was registered or its settings changed.
    #[n(1)]
    WalletChanged,
    /// Address indices were given out, `count` of them from `first`.
    #[n(2)]
    AddressesGiven {
        /// The chain.
        #[n(0)]
        keychain: Keychain,
        /// The first index.
        #[n(1)]
        first: u32,
        /// How many.
        #[n(2)]
        count: u32,
    },
    /// Coins are reserved; the reservation's number is its fence.
    #[n(3)]
    Reserved {
        /// Its name.
        #[n(0)]
        reservation: ReservationId,
        /// The coins, in the order asked for.
        #[n(1)]
        #[cbor(with = "codec::many")]
        outpoints: Vec<OutPoint>,
        /// Logical time at which it ends.
        #[n(2)]
        expires: Millis,
    },
    /// A reservation was prolonged.
    #[n(4)]
    Renewed {
        /// Logical time at which it now ends.
        #[n(0)]
        expires: Millis,
    },
    /// A reservation was given back.
    #[n(5)]
    Released,
    /// An attempt may be signed, or was allowed earlier: the same payment, the same attempt.
    #[n(6)]
    Permitted {
        /// The payment.
        #[n(0)]
        payment: PaymentKey,
        /// Its attempt.
        #[n(1)]
        attempt: AttemptNo,
    },
    /// Nothing was done.
    #[n(7)]
    Rejected(#[n(0)] Rejection),
}

/// Which cap a fee broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FeeLimit {
    /// The fee in sat is above `max_fee_sat`.
    #[n(0)]
    Fee,
    /// The feerate in sat per 1000 vB is above the cap.
    #[n(1)]
    Feerate,
    /// The feerate in sat per 1000 vB is below what nodes relay.
    #[n(2)]
    FeerateTooLow,
    /// The fee is above `max_fee_percent` of what the recipients get.
    #[n(3)]
    Percent,
    /// A replacement's fee in sat is below those of every attempt it replaces and 0.1 sat/vB for itself (BIP-125,
    /// rules 3 and 4, with Bitcoin Core's incremental feerate).
    #[n(4)]
    ReplacementFee,
    /// A replacement's feerate in sat per 1000 vB is not above those of the attempts it replaces. The bound
    /// is the least that is.
    #[n(5)]
    ReplacementFeerate,
}

/// Who holds a coin that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Holder {
    /// A reservation.
    #[n(0)]
    Reservation(#[n(0)] ReservationId),
    /// A payment that may have been signed.
    #[n(1)]
    Payment(#[n(0)] PaymentId),
    /// Held back for an operator.
    #[n(2)]
    Quarantine,
}

/// A coin that cannot be had, and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Conflict {
    /// The coin.
    #[n(0)]
    #[cbor(with = "codec::one")]
    pub outpoint: OutPoint,
    /// Its holder.
    #[n(1)]
    pub holder: Holder,
}
