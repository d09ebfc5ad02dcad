//! Every possible change of the state, with its facts and its time pinned (safety, "Deciding outside, checking
//! inside"). A command that this version does not know does not decode, and that stops the node (safety 32).

mod facts;
mod orders;

use bitcoin::{BlockHash, Network, OutPoint, Transaction};
use minicbor::{Decode, Encode};

use crate::codec;
use crate::ids::{AttemptNo, CallerId, Fence, Millis, PaymentKey, RequestKey, ReservationId, WalletId};
use crate::limits::WalletLimits;
use crate::wallet::Keychain;

pub use facts::{BlockRef, DeclareLost, FenceKey, Followed, Received, RegisterOutpoints, RegisterWallet, Spent};
pub use orders::{AbortAttempt, BumpByChild, Change, CreatePayment, PayReserved, Recipient, Relay, Replace, Reserve};

/// One entry of the replicated log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Logical time, proposed by the leader; never before the state's own.
    #[n(0)]
    pub at: Millis,
    /// The leader's wall clock in Unix milliseconds: for people to read, never for a decision (safety 16).
    #[n(1)]
    pub wall_ms: u64,
    /// Who asked, for what callers ask; `None` for the leader's duties.
    #[n(2)]
    pub request: Option<Request>,
    /// The change.
    #[n(3)]
    pub command: Command,
}

/// Who asked, and under which name.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// Caller and request id.
    #[n(0)]
    pub key: RequestKey,
    /// SHA-256 of what was asked: the same id with another digest is refused.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// Whether policy lets this caller act on what others own (safety 28).
    #[n(2)]
    pub for_others: bool,
}

impl Request {
    /// Who asked.
    pub fn caller(&self) -> &CallerId {
        &self.key.caller
    }
}

/// The changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The cluster meets its chain, once.
    #[n(0)]
    Start {
        /// Which network.
        #[n(0)]
        #[cbor(with = "network")]
        network: Network,
        /// Where it begins to follow.
        #[n(1)]
        tip: BlockRef,
    },
    /// A block was connected to the tip.
    #[n(1)]
    ConnectBlock {
        /// The block.
        #[n(0)]
        block: BlockRef,
        /// The hash of the one below, which must be the tip.
        #[n(1)]
        #[cbor(with = "codec::one")]
        previous: BlockHash,
        /// What wallets received.
        #[n(2)]
        received: Vec<Received>,
        /// Which coins were spent.
        #[n(3)]
        spent: Vec<Spent>,
        /// How many wallets were there when the block was searched ([`crate::state::State::wallet_count`]). If one
        /// was registered since, the block has to be searched again.
        #[n(4)]
        wallets: u64,
        /// The coins without descriptors that the block was searched for ([`crate::state::State::followed`]). If others
        /// are followed by now, the block has to be searched again. `None` where no wallet has such coins, and in
        /// entries of versions that did not say.
        #[n(5)]
        followed: Option<Followed>,
    },
    /// The tip was disconnected.
    #[n(2)]
    DisconnectBlock {
        /// The block that was the tip.
        #[n(0)]
        block: BlockRef,
    },
    /// A wallet is followed from now on.
    #[n(3)]
    RegisterWallet(#[n(0)] RegisterWallet),
    /// A wallet's caps change.
    #[n(4)]
    SetLimits {
        /// Which.
        #[n(0)]
        wallet: WalletId,
        /// The new caps.
        #[n(1)]
        limits: WalletLimits,
    },
    /// Nothing may be reserved or signed any more.
    #[n(5)]
    FreezeWallet {
        /// Which.
        #[n(0)]
        wallet: WalletId,
        /// Why.
        #[n(1)]
        why: String,
    },
    /// A frozen wallet works again; coins that are held back stay so ([`Command::ReleaseQuarantined`]). One that is not
    /// frozen stays as it is.
    #[n(6)]
    UnfreezeWallet {
        /// Which.
        #[n(0)]
        wallet: WalletId,
    },
    /// Gives out address indices.
    #[n(7)]
    GiveAddresses {
        /// Whose.
        #[n(0)]
        wallet: WalletId,
        /// Which chain.
        #[n(1)]
        keychain: Keychain,
        /// How many, 1 to 1000.
        #[n(2)]
        count: u32,
    },
    /// Claims coins for a time.
    #[n(8)]
    Reserve(#[n(0)] Reserve),
    /// Prolongs a reservation.
    #[n(9)]
    Renew {
        /// Which.
        #[n(0)]
        reservation: ReservationId,
        /// Time to live from now.
        #[n(1)]
        ttl: Millis,
        /// The fence of the grant, if the caller shows it.
        #[n(2)]
        fence: Option<Fence>,
    },
    /// Gives a reservation back.
    #[n(10)]
    Release {
        /// Which.
        #[n(0)]
        reservation: ReservationId,
        /// The fence of the grant, if the caller shows it.
        #[n(1)]
        fence: Option<Fence>,
    },
    /// Frees what is past its time; proposed by the leader.
    #[n(11)]
    Expire {
        /// Which; those that are not due are left alone.
        #[n(0)]
        reservations: Vec<ReservationId>,
    },
    /// Selects, builds and permits in one step.
    #[n(12)]
    CreatePayment(#[n(0)] CreatePayment),
    /// Permits the caller's own transaction.
    #[n(13)]
    PayReserved(#[n(0)] PayReserved),
    /// A signature, before anybody is shown it (safety 13).
    #[n(14)]
    RecordSignature {
        /// The payment.
        #[n(0)]
        key: PaymentKey,
        /// The attempt.
        #[n(1)]
        attempt: AttemptNo,
        /// The signed transaction.
        #[n(2)]
        #[cbor(with = "codec::one")]
        transaction: Transaction,
    },
    /// What bitcoind said to a signed transaction.
    #[n(15)]
    RecordRelay {
        /// The payment.
        #[n(0)]
        key: PaymentKey,
        /// The attempt.
        #[n(1)]
        attempt: AttemptNo,
        /// What it said.
        #[n(2)]
        relay: Relay,
    },
    /// Pays more fees for a payment by a transaction that replaces the attempt before (BIP-125).
    #[n(16)]
    BumpFee(#[n(0)] Replace),
    /// Lets a child pay more fees.
    #[n(17)]
    BumpByChild(#[n(0)] BumpByChild),
    /// Gives the coins back to the wallet by a transaction that conflicts with every attempt before (safety 10).
    #[n(18)]
    CancelPayment(#[n(0)] Replace),
    /// An external signer has fenced an attempt.
    #[n(19)]
    AbortAttempt(#[n(0)] AbortAttempt),
    /// Follows coins by their outpoints.
    #[n(20)]
    RegisterOutpoints(#[n(0)] RegisterOutpoints),
    /// An operator has checked coins that were held back: nobody else will spend them.
    #[n(21)]
    ReleaseQuarantined {
        /// Whose.
        #[n(0)]
        wallet: WalletId,
        /// Which.
        #[n(1)]
        #[cbor(with = "codec::many")]
        outpoints: Vec<OutPoint>,
        /// What was checked, for the audit.
        #[n(2)]
        note: String,
    },
    /// The data is older than what the cluster did: nothing is signed from now on.
    #[n(22)]
    EnterRecovery {
        /// How that was noticed.
        #[n(0)]
        why: String,
    },
    /// The leader has compared the state with its bitcoind's chain and mempool.
    #[n(23)]
    Reconcile {
        /// The tip that was compared with; another tip is refused.
        #[n(0)]
        basis: BlockRef,
        /// Coins that transactions spend which nobody here knows, in the mempool or as a signer remembers: held back.
        #[n(1)]
        #[cbor(with = "codec::many")]
        spent_outside: Vec<OutPoint>,
    },
    /// An operator confirms that the state is reconciled: the fence epoch moves up and signing is allowed again.
    #[n(24)]
    ConfirmRecovery {
        /// The epoch from now on, above every epoch that a signer has seen.
        #[n(0)]
        epoch: u32,
        /// What was checked, for the audit.
        #[n(1)]
        note: String,
    },
    /// Every member can do more from now on ([`crate::feature`]); proposed by the leader. A node that knows no such level
    /// must stop.
    #[n(25)]
    RaiseFeatureLevel {
        /// The level from now on.
        #[n(0)]
        level: u32,
    },
    /// A coin that a reorganisation took away cannot come back: what would spend it is dead (safety 6).
    #[n(26)]
    DeclareLost(#[n(0)] DeclareLost),
}

impl Command {
    /// A word for metrics and log lines.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::ConnectBlock { .. } => "connect_block",
            Self::DisconnectBlock { .. } => "disconnect_block",
            Self::RegisterWallet(_) => "register_wallet",
            Self::SetLimits { .. } => "set_limits",
            Self::FreezeWallet { .. } => "freeze_wallet",
            Self::UnfreezeWallet { .. } => "unfreeze_wallet",
            Self::GiveAddresses { .. } => "give_addresses",
            Self::Reserve(_) => "reserve",
            Self::Renew { .. } => "renew",
            Self::Release { .. } => "release",
            Self::Expire { .. } => "expire",
            Self::CreatePayment(_) => "create_payment",
            Self::PayReserved(_) => "pay_reserved",
            Self::RecordSignature { .. } => "record_signature",
            Self::RecordRelay { .. } => "record_relay",
            Self::BumpFee(_) => "bump_fee",
            Self::BumpByChild(_) => "bump_by_child",
            Self::CancelPayment(_) => "cancel_payment",
            Self::AbortAttempt(_) => "abort_attempt",
            Self::RegisterOutpoints(_) => "register_outpoints",
            Self::ReleaseQuarantined { .. } => "release_quarantined",
            Self::EnterRecovery { .. } => "enter_recovery",
            Self::Reconcile { .. } => "reconcile",
            Self::ConfirmRecovery { .. } => "confirm_recovery",
            Self::RaiseFeatureLevel { .. } => "raise_feature_level",
            Self::DeclareLost(_) => "declare_lost",
        }
    }
}

/// A log entry that this version cannot read; the node must stop (safety 32).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this version cannot read the log entry: {cause}")]
pub struct UnreadableEntry {
    /// What the decoder said.
    pub cause: String,
}

impl Entry {
    /// The stored form, with numbered fields.
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::table::encode(self)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`UnreadableEntry`] for damage, and for commands or fields of a later version: skipping a field would decide
    /// differently from the nodes that know it (safety 15, 32).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnreadableEntry> {
        let entry: Self = minicbor::decode(bytes).map_err(|error| UnreadableEntry { cause: error.to_string() })?;
        if entry.to_bytes() != bytes {
            let cause = "it holds more than this version knows, or is written differently".to_owned();
            return Err(UnreadableEntry { cause });
        }
        Ok(entry)
    }
}

pub(crate) mod network {
    //! Bitcoin's networks by the name that Bitcoin Core gives them.
    use bitcoin::Network;
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    #[allow(clippy::trivially_copy_pass_by_ref)] // The derive macro passes references.
    pub(crate) fn encode<C, W: Write>(
        network: &Network,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.str(network.to_core_arg())?.ok()
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Network, DecodeError> {
        Network::from_core_arg(decoder.str()?).map_err(|_| DecodeError::message("not a network"))
    }
}
