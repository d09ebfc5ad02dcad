//! What leaders and operators bring from outside: blocks, coins, wallets.

use bitcoin::{BlockHash, OutPoint, ScriptBuf, Txid};
use minicbor::{Decode, Encode};

use crate::codec;
use crate::ids::{Height, WalletId};
use crate::limits::WalletLimits;
use crate::wallet::{Keychain, SignerRef};

/// A block by height and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct BlockRef {
    /// Its height.
    #[n(0)]
    pub height: Height,
    /// Its hash.
    #[n(1)]
    #[cbor(with = "codec::one")]
    pub hash: BlockHash,
}

/// An output that a block, or a scan, found for a wallet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Received {
    /// Where.
    #[n(0)]
    #[cbor(with = "codec::one")]
    pub outpoint: OutPoint,
    /// For whom.
    #[n(1)]
    pub wallet: WalletId,
    /// How much.
    #[n(2)]
    pub value_sat: u64,
    /// To which script.
    #[n(3)]
    #[cbor(with = "codec::one")]
    pub script: ScriptBuf,
    /// Chain of the descriptor.
    #[n(4)]
    pub keychain: Keychain,
    /// Index on that chain.
    #[n(5)]
    pub index: u32,
    /// Whether a coinbase transaction made it.
    #[n(6)]
    pub coinbase: bool,
    /// Height of its block.
    #[n(7)]
    pub height: Height,
}

/// A coin of a wallet that a block spends.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Spent {
    /// The coin.
    #[n(0)]
    #[cbor(with = "codec::one")]
    pub outpoint: OutPoint,
    /// The spender.
    #[n(1)]
    #[cbor(with = "codec::one")]
    pub txid: Txid,
}

/// A coin that a reorganisation took away and that cannot come back: what the transaction that made it would spend is spent
/// by another one. The leader has seen that one in the block, and that they conflict.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeclareLost {
    /// Whose.
    #[n(0)]
    pub wallet: WalletId,
    /// Which coin.
    #[n(1)]
    #[cbor(with = "codec::one")]
    pub outpoint: OutPoint,
    /// The transaction that took it away.
    #[n(2)]
    #[cbor(with = "codec::one")]
    pub by: Txid,
    /// The block that has that transaction.
    #[n(3)]
    pub block: BlockRef,
    /// What was found out, for the audit.
    #[n(4)]
    pub note: String,
}

/// Registers a wallet with the coins that a scan found.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RegisterWallet {
    /// Its name.
    #[n(0)]
    pub wallet: WalletId,
    /// Public multipath descriptor (BIP-380, BIP-389).
    #[n(1)]
    pub descriptor: String,
    /// Who signs.
    #[n(2)]
    pub signer: SignerRef,
    /// The owner's caps.
    #[n(3)]
    pub limits: WalletLimits,
    /// The tip that `found` is true for; another tip is refused.
    #[n(4)]
    pub basis: BlockRef,
    /// Unspent coins at the basis. Scripts are derived again, so a coin of another wallet or address is refused.
    #[n(5)]
    pub found: Vec<Received>,
    /// The key by which an external signer proves that it has fenced an attempt: an x-only public key (BIP-340).
    #[n(6)]
    pub fence_key: Option<FenceKey>,
}

/// An x-only public key (BIP-340).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FenceKey(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

/// The set of coins that wallets without descriptors follow, as a digest: another set has another one
/// ([`crate::state::State::followed`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Followed(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

/// Adds coins to a wallet without descriptors, as bitcoind has them at the basis.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RegisterOutpoints {
    /// Which wallet.
    #[n(0)]
    pub wallet: WalletId,
    /// The tip that `found` is true for; another tip is refused.
    #[n(1)]
    pub basis: BlockRef,
    /// The coins; keychain and index mean nothing here and are external and 0.
    #[n(2)]
    pub found: Vec<Received>,
}
