//! What all replicas agree on, and nothing else.
//!
//! `State` is a value: ordered tables, one row of facts about the whole, and indexes that are derived from the
//! tables and never stored. Every change goes through the methods of `changes.rs`, which keep the indexes true.

mod changes;
mod stored;

use std::ops::Bound;

use bitcoin::{Network, OutPoint, Txid};
use minicbor::{Decode, Encode};

use crate::audit::AuditRecord;
use crate::chain::BlockRecord;
use crate::command::{BlockRef, Followed, network};
use crate::dedup::CachedResult;
use crate::feature;
use crate::ids::{AttemptNo, Fence, Height, LogIndex, Millis, PaymentKey, RequestKey, ReservationId, WalletId};
use crate::index::Index;
use crate::outcome::Rejection;
use crate::payment::{Attempt, Payment};
use crate::recent::Recent;
use crate::recovery::Recovery;
use crate::reservation::{Ended, Reservation};
use crate::spending::Spending;
use crate::table::Table;
use crate::utxo::Utxo;
use crate::wallet::Wallet;

pub use crate::index::Sums;
pub use stored::{StoredHash, UnreadableRow};

/// The chain that the cluster follows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Chain {
    #[n(0)]
    #[cbor(with = "network")]
    pub(crate) network: Network,
    #[n(1)]
    pub(crate) tip: BlockRef,
    /// The highest block ever connected: how deep a reorganisation is counts from here.
    #[n(2)]
    pub(crate) highest: Height,
}

/// Facts about the whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct Meta {
    #[n(0)]
    pub(crate) applied: LogIndex,
    #[n(1)]
    pub(crate) now: Millis,
    #[n(2)]
    pub(crate) chain: Option<Chain>,
    /// Set while the state may be older than what the cluster did (safety 30).
    #[n(3)]
    pub(crate) recovery: Option<Recovery>,
    /// How often a restored state was put to use; unset means never.
    #[n(4)]
    pub(crate) epoch: Option<u32>,
    /// What every node can do; unset means the lowest level.
    #[n(5)]
    pub(crate) feature_level: Option<u32>,
}

mod id {
    pub(super) const META: u8 = 0;
    pub(super) const WALLETS: u8 = 1;
    pub(super) const UTXOS: u8 = 2;
    pub(super) const RESERVATIONS: u8 = 3;
    pub(super) const ENDED: u8 = 4;
    pub(super) const PAYMENTS: u8 = 5;
    pub(super) const REQUESTS: u8 = 6;
    pub(super) const BLOCKS: u8 = 7;
    pub(super) const SPENDING: u8 = 8;
    pub(super) const AUDIT: u8 = 9;
}

/// The replicated state.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) meta: Meta,
    pub(crate) wallets: Table<WalletId, Wallet>,
    pub(crate) utxos: Table<OutPoint, Utxo>,
    pub(crate) reservations: Table<ReservationId, Reservation>,
    pub(crate) ended: Table<ReservationId, Ended>,
    pub(crate) payments: Table<PaymentKey, Payment>,
    pub(crate) requests: Table<RequestKey, CachedResult>,
    pub(crate) blocks: Table<Height, BlockRecord>,
    pub(crate) spending: Table<WalletId, Spending>,
    pub(crate) audit: Table<LogIndex, AuditRecord>,
    pub(crate) index: Index,
    pub(crate) recent: Recent,
}

impl Default for State {
    fn default() -> Self {
        Self {
            meta: Meta::default(),
            wallets: Table::new(id::WALLETS),
            utxos: Table::new(id::UTXOS),
            reservations: Table::new(id::RESERVATIONS),
            ended: Table::new(id::ENDED),
            payments: Table::new(id::PAYMENTS),
            requests: Table::new(id::REQUESTS),
            blocks: Table::new(id::BLOCKS),
            spending: Table::new(id::SPENDING),
            audit: Table::new(id::AUDIT),
            index: Index::default(),
            recent: Recent::default(),
        }
    }
}

/// Reading.
impl State {
    /// The last log index that was applied.
    pub fn applied(&self) -> LogIndex {
        self.meta.applied
    }

    /// Logical time.
    pub fn now(&self) -> Millis {
        self.meta.now
    }

    /// The network, once the chain is known.
    ///
    /// # Errors
    /// [`Rejection::NotStarted`] before that.
    pub fn network(&self) -> Result<Network, Rejection> {
        self.meta.chain.as_ref().map(|chain| chain.network).ok_or(Rejection::NotStarted)
    }

    /// The chain's tip as the log has it.
    ///
    /// # Errors
    /// [`Rejection::NotStarted`] before the first block.
    pub fn tip(&self) -> Result<BlockRef, Rejection> {
        self.meta.chain.as_ref().map(|chain| chain.tip).ok_or(Rejection::NotStarted)
    }

    /// The fence that an entry at the last applied index has; every fence that was granted is at most this.
    pub fn fence(&self) -> Fence {
        self.fence_at(self.meta.applied)
    }

    pub(crate) fn fence_at(&self, index: LogIndex) -> Fence {
        Fence::of(self.epoch(), index)
    }

    /// How often a restored state was put to use.
    pub fn epoch(&self) -> u32 {
        self.meta.epoch.unwrap_or(0)
    }

    /// Why nothing is signed, while the state may be older than what the cluster did (safety 30).
    pub fn recovery(&self) -> Option<&Recovery> {
        self.meta.recovery.as_ref()
    }

    pub(crate) fn highest(&self) -> Height {
        self.meta.chain.as_ref().map_or(Height(0), |chain| chain.highest)
    }

    /// The block at a height, as long as its undo is kept.
    pub fn block(&self, height: Height) -> Option<&BlockRecord> {
        self.blocks.get(&height)
    }

    /// The lowest block whose undo is kept: no reorganisation below it can be followed.
    pub fn lowest_block(&self) -> Height {
        self.blocks.iter().next().map_or(Height(0), |(height, _)| *height)
    }

    /// A wallet.
    ///
    /// # Errors
    /// [`Rejection::WalletUnknown`].
    pub fn wallet(&self, id: &WalletId) -> Result<&Wallet, Rejection> {
        self.wallets.get(id).ok_or_else(|| Rejection::WalletUnknown { wallet: Some(id.to_string()) })
    }

    /// A wallet that is not frozen.
    ///
    /// # Errors
    /// [`Rejection::WalletUnknown`], [`Rejection::WalletFrozen`].
    pub fn active_wallet(&self, id: &WalletId) -> Result<&Wallet, Rejection> {
        let wallet = self.wallet(id)?;
        match &wallet.frozen {
            Some(why) => Err(Rejection::WalletFrozen { why: why.clone() }),
            None => Ok(wallet),
        }
    }

    /// How many wallets there are; none is ever removed.
    pub fn wallet_count(&self) -> u64 {
        self.wallets.len() as u64
    }

    /// The coins that wallets without descriptors follow; `None` where there is no such wallet. A block is searched for
    /// them by their outpoints, so whoever searches it must know all of them.
    pub fn followed(&self) -> Option<Followed> {
        let any = self.wallets.iter().any(|(_, wallet)| wallet.descriptor.is_none());
        any.then(|| Followed(self.index.followed().to_bytes()))
    }

    pub(crate) fn is_followed(&self, utxo: &Utxo) -> bool {
        self.wallets.get(&utxo.wallet).is_some_and(|wallet| wallet.descriptor.is_none())
    }

    /// All wallets, by name.
    pub fn wallets(&self) -> impl Iterator<Item = (&WalletId, &Wallet)> {
        self.wallets.iter()
    }

    /// Wallets from a name on, for pages; without one from the first.
    pub fn wallets_from(&self, first: Option<WalletId>) -> impl Iterator<Item = (&WalletId, &Wallet)> {
        self.wallets.range((first.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded))
    }

    /// A coin.
    pub fn utxo(&self, outpoint: &OutPoint) -> Option<&Utxo> {
        self.utxos.get(outpoint)
    }

    /// All coins, spent ones within reach of a reorganisation included.
    pub fn utxos(&self) -> impl Iterator<Item = (&OutPoint, &Utxo)> {
        self.utxos.iter()
    }

    /// A wallet's coins from a position on, spent ones within reach of a reorganisation included.
    pub fn utxos_of(&self, wallet: &WalletId, first: OutPoint) -> impl Iterator<Item = (&OutPoint, &Utxo)> {
        let coins = self.index.coins_from(wallet, first);
        coins.filter_map(|outpoint| Some((outpoint, self.utxos.get(outpoint)?)))
    }

    /// A wallet's coins that nobody claims and a block holds, the most valuable first. A coinbase among them may be
    /// immature still.
    pub fn free_coins(&self, wallet: &WalletId) -> impl Iterator<Item = (u64, OutPoint)> + '_ {
        self.index.free_coins(wallet)
    }

    /// A wallet's unspent coins in blocks, and those of them that are reserved, in sat.
    pub fn sums(&self, wallet: &WalletId) -> Sums {
        self.index.sums(wallet)
    }

    /// The attempt that is a transaction; the live one, should another payment's dead attempt be the same.
    pub fn attempt_of(&self, txid: Txid) -> Option<(&PaymentKey, AttemptNo, &Attempt)> {
        let found = self.index.attempts_of(txid).filter_map(|(key, number)| {
            let attempt = self.payments.get(key)?.attempt(number)?;
            Some((key, number, attempt))
        });
        found.max_by_key(|(_, _, attempt)| (attempt.is_live(), attempt.fence))
    }

    /// What was spent of late, where the wallet has a velocity limit.
    pub fn spending(&self, wallet: &WalletId) -> Option<&Spending> {
        self.spending.get(wallet)
    }

    /// The event that was audited at an index.
    pub fn audit_record(&self, index: LogIndex) -> Option<&AuditRecord> {
        self.audit.get(&index)
    }

    /// Audited events after an index, oldest first.
    pub fn audit_after(&self, index: LogIndex) -> impl Iterator<Item = (&LogIndex, &AuditRecord)> {
        self.audit.range((Bound::Excluded(index), Bound::Unbounded))
    }

    /// An active reservation.
    pub fn reservation(&self, id: ReservationId) -> Option<&Reservation> {
        self.reservations.get(&id)
    }

    /// How a reservation ended, while that is remembered.
    pub fn ended_reservation(&self, id: ReservationId) -> Option<&Ended> {
        self.ended.get(&id)
    }

    /// Active reservations from a name on, for pages.
    pub fn reservations_from(&self, first: ReservationId) -> impl Iterator<Item = (&ReservationId, &Reservation)> {
        self.reservations.range(first..)
    }

    /// How many reservations of a wallet are active.
    pub fn reservation_count(&self, wallet: &WalletId) -> u64 {
        self.index.reservation_count(wallet)
    }

    /// How many reservations are active in all.
    pub fn total_reservations(&self) -> usize {
        self.reservations.len()
    }

    /// Reservations that are past their time, at most `limit`, the oldest first.
    pub fn due_reservations(&self, now: Millis, limit: usize) -> Vec<ReservationId> {
        self.index.due(now, limit)
    }

    /// A payment.
    pub fn payment(&self, key: &PaymentKey) -> Option<&Payment> {
        self.payments.get(key)
    }

    /// Payments from a name on, for pages; without one from the first.
    pub fn payments_from(&self, first: Option<PaymentKey>) -> impl Iterator<Item = (&PaymentKey, &Payment)> {
        self.payments.range((first.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded))
    }

    /// All payments, by name.
    pub fn payments(&self) -> impl Iterator<Item = (&PaymentKey, &Payment)> {
        self.payments.iter()
    }

    /// What every node of the cluster can do; see [`crate::feature`].
    pub fn feature_level(&self) -> u32 {
        self.meta.feature_level.unwrap_or(feature::LEAST)
    }

    /// How many payments there are, settled ones included.
    pub fn payment_count(&self) -> usize {
        self.payments.len()
    }

    /// How many payments were cancelled for good.
    pub fn cancelled_count(&self) -> u64 {
        self.index.cancelled()
    }

    /// Payments an end of whose was undone; see [`Payment::undone`].
    pub fn undone_payments(&self) -> impl Iterator<Item = &PaymentKey> {
        self.index.undone_payments()
    }

    /// Payments of which something may still come: none of their attempts is settled, or another may confirm as well.
    pub fn open_payments(&self) -> Vec<PaymentKey> {
        self.index.open_payments()
    }

    /// Payments whose last change is after an index, the oldest change first, and those of one entry by name. With a
    /// payment of that index named, begins within the entry, after it. Finding the first costs a lookup.
    pub fn payments_changed_after<'a>(
        &'a self,
        index: LogIndex,
        payment: Option<&PaymentKey>,
    ) -> impl Iterator<Item = (LogIndex, &'a PaymentKey)> + use<'a> {
        self.index.changed_after(index, payment)
    }

    /// The remembered result of a request.
    pub fn cached(&self, key: &RequestKey) -> Option<&CachedResult> {
        self.requests.get(key)
    }

    /// The sum of coins that are there.
    pub fn value_of(&self, outpoints: &[OutPoint]) -> u64 {
        outpoints.iter().filter_map(|o| self.utxo(o)).fold(0, |sum, utxo| sum.saturating_add(utxo.value_sat))
    }
}
