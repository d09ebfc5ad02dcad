//! Names of things. Each is its own type, so that a payment's name cannot be taken for a wallet's.

use std::fmt;

use minicbor::{Decode, Encode};

/// A name from outside that does not have the form its kind demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not valid: {rule}")]
pub struct InvalidName {
    /// What was being named.
    pub kind: &'static str,
    /// The first 80 characters of what was given.
    pub given: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:literal, $allowed:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $type(#[n(0)] String);

        impl $type {
            /// Longest accepted name in bytes.
            pub const MAX_LEN: usize = $max;

            /// Checks the form.
            ///
            /// # Errors
            /// [`InvalidName`] names the rule that is broken.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let allowed: fn(u8) -> bool = $allowed;
                if text.is_empty() || text.len() > $max || !text.bytes().all(allowed) {
                    let given = text.chars().take(80).collect();
                    return Err(InvalidName { kind: $kind, given, rule: $rule });
                }
                Ok(Self(text.to_owned()))
            }

            /// Sorts before every name, and is none.
            #[allow(dead_code)] // Not every kind of name is searched by range.
            pub(crate) fn least() -> Self {
                Self(String::new())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

name! {
    /// A wallet: the namespace of payments.
    WalletId, "wallet_id", 64, word_byte, "1 to 64 of A-Z a-z 0-9 - _ ."
}
name! {
    /// The caller's name for a payment; unique for ever within its wallet.
    PaymentId, "payment_id", 128, |b| b.is_ascii_graphic(), "1 to 128 printable ASCII characters without spaces"
}
name! {
    /// The caller's name for one request (AIP-155); a retry carries the same one.
    RequestId, "request_id", 64, |b| b.is_ascii_graphic(), "1 to 64 printable ASCII characters without spaces"
}
name! {
    /// Who calls: the path of the certificate's URI, such as `client/payouts`.
    CallerId, "caller", 128, |b| word_byte(b) || b == b'/', "1 to 128 of A-Z a-z 0-9 - _ . /"
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $type(#[n(0)] pub $inner);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Position of an entry in the replicated log.
    LogIndex, u64
}
number! {
    /// Where in the log a grant stands: strictly increasing (safety 12). The log index, and above it the fence epoch,
    /// which moves up when a restored backup is put to use: its log indices come a second time.
    Fence, u64
}
impl Fence {
    /// Bits of the log index: at a million entries a second they last for 8 years.
    const INDEX_BITS: u32 = 48;
    /// The last epoch.
    pub const MAX_EPOCH: u32 = 0xffff;

    /// The fence of an entry. In epoch 0 it is the log index.
    pub fn of(epoch: u32, index: LogIndex) -> Self {
        Self((u64::from(epoch) << Self::INDEX_BITS).saturating_add(index.0))
    }

    /// The epoch that it was granted in.
    pub fn epoch(self) -> u32 {
        u32::try_from(self.0 >> Self::INDEX_BITS).unwrap_or(u32::MAX)
    }

    /// The log index of the entry.
    pub fn index(self) -> LogIndex {
        LogIndex(self.0 & ((1_u64 << Self::INDEX_BITS) - 1))
    }

    /// `EPOCH/INDEX`, for people: above epoch 0 the number shows neither.
    pub fn spelled(self) -> String {
        format!("{}/{}", self.epoch(), self.index())
    }
}
number! {
    /// Logical milliseconds: time that moves only while a leader lives (safety, Time).
    Millis, u64
}
impl Millis {
    /// That much later. Stays at the end of time, because an entry's numbers may be anything.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }
}

number! {
    /// Ordinal of an attempt within its payment, from 1.
    AttemptNo, u32
}
number! {
    /// Height of a block; the genesis block has 0.
    Height, u32
}

/// A reservation is named by the fence of its grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ReservationId(#[n(0)] pub u64);

impl ReservationId {
    /// The fence of the grant.
    pub fn fence(self) -> Fence {
        Fence(self.0)
    }

    /// Reads the form that [`fmt::Display`] writes, such as `r-1234`.
    ///
    /// # Errors
    /// [`InvalidName`] when it is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        text.strip_prefix("r-")
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| InvalidName {
                kind: "reservation_id",
                given: text.chars().take(80).collect(),
                rule: "r- followed by a decimal number, as ReserveUtxos returned it",
            })
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r-{}", self.0)
    }
}

/// A payment's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PaymentKey {
    /// The namespace.
    #[n(0)]
    pub wallet: WalletId,
    /// The caller's name.
    #[n(1)]
    pub payment: PaymentId,
}

impl fmt::Display for PaymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.wallet, self.payment)
    }
}

/// A request's full name: two callers may choose the same id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RequestKey {
    /// Who asked.
    #[n(0)]
    pub caller: CallerId,
    /// The caller's name for the request.
    #[n(1)]
    pub request: RequestId,
}
