//! Indexes derived from the tables: never stored, never hashed, rebuilt when the state is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use bitcoin::{OutPoint, Txid};

use crate::dedup::CachedResult;
use crate::ids::{AttemptNo, LogIndex, Millis, PaymentId, PaymentKey, RequestKey, ReservationId, WalletId};
use crate::payment::Payment;
use crate::reservation::Reservation;
use crate::state::State;
use crate::table::{Key, RowsHash};
use crate::utxo::{Claim, Utxo};

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    coins: BTreeMap<WalletId, BTreeSet<OutPoint>>,
    free: BTreeMap<WalletId, BTreeSet<(u64, OutPoint)>>,
    expiries: BTreeSet<(Millis, ReservationId)>,
    counts: BTreeMap<WalletId, u64>,
    open: BTreeSet<PaymentKey>,
    undone: BTreeSet<PaymentKey>,
    cancelled: u64,
    changes: BTreeMap<LogIndex, BTreeSet<PaymentKey>>,
    requests: BTreeSet<(LogIndex, RequestKey)>,
    cached_bytes: u64,
    attempts: BTreeSet<(Txid, PaymentKey, AttemptNo)>,
    sums: BTreeMap<WalletId, Sums>,
    followed: RowsHash,
}

/// Sums over a wallet's unspent coins that are in blocks, in sat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// All of them.
    pub balance_sat: u64,
    /// Those that reservations hold.
    pub reserved_sat: u64,
}

impl Index {
    pub(crate) fn of(state: &State) -> Self {
        let mut index = Self::default();
        state.utxos.iter().for_each(|(outpoint, utxo)| index.add_coin(outpoint, utxo));
        let followed = state.utxos.iter().filter(|(_, utxo)| state.is_followed(utxo));
        followed.for_each(|(outpoint, _)| index.follow(outpoint));
        state.reservations.iter().for_each(|(id, reservation)| index.add_reservation(*id, reservation));
        state.payments.iter().for_each(|(key, payment)| index.add_payment(key, payment));
        state.requests.iter().for_each(|(key, result)| index.add_request(key, result));
        index
    }

    pub(crate) fn add_coin(&mut self, outpoint: &OutPoint, utxo: &Utxo) {
        self.coins.entry(utxo.wallet.clone()).or_default().insert(*outpoint);
        if is_free(utxo) {
            self.free.entry(utxo.wallet.clone()).or_default().insert((utxo.value_sat, *outpoint));
        }
        if let Some((balance_sat, reserved_sat)) = counted(utxo) {
            let sums = self.sums.entry(utxo.wallet.clone()).or_default();
            sums.balance_sat = sums.balance_sat.saturating_add(balance_sat);
            sums.reserved_sat = sums.reserved_sat.saturating_add(reserved_sat);
        }
    }

    pub(crate) fn remove_coin(&mut self, outpoint: &OutPoint, utxo: &Utxo) {
        if let (Some((balance_sat, reserved_sat)), Some(sums)) = (counted(utxo), self.sums.get_mut(&utxo.wallet)) {
            sums.balance_sat = sums.balance_sat.saturating_sub(balance_sat);
            sums.reserved_sat = sums.reserved_sat.saturating_sub(reserved_sat);
            if *sums == Sums::default() {
                self.sums.remove(&utxo.wallet);
            }
        }
        let Some(coins) = self.free.get_mut(&utxo.wallet).filter(|_| is_free(utxo)) else { return };
        coins.remove(&(utxo.value_sat, *outpoint));
        if coins.is_empty() {
            self.free.remove(&utxo.wallet);
        }
    }

    /// A coin that is not there any more.
    pub(crate) fn forget_coin(&mut self, outpoint: &OutPoint, utxo: &Utxo) {
        self.remove_coin(outpoint, utxo);
        if let Some(coins) = self.coins.get_mut(&utxo.wallet) {
            coins.remove(outpoint);
            if coins.is_empty() {
                self.coins.remove(&utxo.wallet);
            }
        }
    }

    /// A coin of a wallet without descriptors came.
    pub(crate) fn follow(&mut self, outpoint: &OutPoint) {
        self.followed.add(RowsHash::of(0, &outpoint.to_bytes(), &[]));
    }

    /// Such a coin is not there any more.
    pub(crate) fn follow_no_more(&mut self, outpoint: &OutPoint) {
        self.followed.subtract(RowsHash::of(0, &outpoint.to_bytes(), &[]));
    }

    /// All of them.
    pub(crate) fn followed(&self) -> RowsHash {
        self.followed
    }

    pub(crate) fn coins_from(&self, wallet: &WalletId, first: OutPoint) -> impl Iterator<Item = &OutPoint> {
        self.coins.get(wallet).into_iter().flat_map(move |coins| coins.range(first..))
    }

    pub(crate) fn sums(&self, wallet: &WalletId) -> Sums {
        self.sums.get(wallet).copied().unwrap_or_default()
    }

    pub(crate) fn free_coins(&self, wallet: &WalletId) -> impl Iterator<Item = (u64, OutPoint)> + '_ {
        self.free.get(wallet).into_iter().flat_map(|coins| coins.iter().rev().copied())
    }

    pub(crate) fn add_reservation(&mut self, id: ReservationId, reservation: &Reservation) {
        self.expiries.insert((reservation.expires, id));
        *self.counts.entry(reservation.wallet.clone()).or_default() += 1;
    }

    pub(crate) fn remove_reservation(&mut self, id: ReservationId, reservation: &Reservation) {
        self.expiries.remove(&(reservation.expires, id));
        let left = self.counts.get(&reservation.wallet).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            self.counts.remove(&reservation.wallet);
        } else {
            self.counts.insert(reservation.wallet.clone(), left);
        }
    }

    pub(crate) fn reservation_count(&self, wallet: &WalletId) -> u64 {
        self.counts.get(wallet).copied().unwrap_or(0)
    }

    pub(crate) fn due(&self, now: Millis, limit: usize) -> Vec<ReservationId> {
        self.expiries.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, id)| *id).collect()
    }

    pub(crate) fn add_payment(&mut self, key: &PaymentKey, payment: &Payment) {
        if payment.is_open() {
            self.open.insert(key.clone());
        }
        if payment.undone.is_some() {
            self.undone.insert(key.clone());
        }
        self.cancelled += u64::from(is_cancelled(payment));
        self.changes.entry(payment.changed_at).or_default().insert(key.clone());
        // Attempts are only ever appended, so none has to be taken out.
        self.attempts.extend(payment.numbered().map(|(number, attempt)| (attempt.txid(), key.clone(), number)));
    }

    pub(crate) fn attempts_of(&self, txid: Txid) -> impl Iterator<Item = (&PaymentKey, AttemptNo)> {
        let least = PaymentKey { wallet: WalletId::least(), payment: PaymentId::least() };
        let same = self.attempts.range((txid, least, AttemptNo(0))..).take_while(move |(found, ..)| *found == txid);
        same.map(|(_, key, number)| (key, *number))
    }

    pub(crate) fn remove_payment(&mut self, key: &PaymentKey, payment: &Payment) {
        self.open.remove(key);
        self.undone.remove(key);
        self.cancelled = self.cancelled.saturating_sub(u64::from(is_cancelled(payment)));
        let Some(keys) = self.changes.get_mut(&payment.changed_at) else { return };
        keys.remove(key);
        if keys.is_empty() {
            self.changes.remove(&payment.changed_at);
        }
    }

    pub(crate) fn open_payments(&self) -> Vec<PaymentKey> {
        self.open.iter().cloned().collect()
    }

    pub(crate) fn undone_payments(&self) -> impl Iterator<Item = &PaymentKey> {
        self.undone.iter()
    }

    pub(crate) fn cancelled(&self) -> u64 {
        self.cancelled
    }

    /// What an entry changed after one of its payments, if one is named, and then what later entries changed.
    pub(crate) fn changed_after<'a>(
        &'a self,
        index: LogIndex,
        key: Option<&PaymentKey>,
    ) -> impl Iterator<Item = (LogIndex, &'a PaymentKey)> + use<'a> {
        let of_entry = key.and_then(|key| Some(self.changes.get(&index)?.range((Excluded(key), Unbounded))));
        let rest = of_entry.into_iter().flatten().map(move |key| (index, key));
        let later = self.changes.range((Excluded(index), Unbounded));
        rest.chain(later.flat_map(|(at, keys)| keys.iter().map(|key| (*at, key))))
    }

    pub(crate) fn add_request(&mut self, key: &RequestKey, result: &CachedResult) {
        self.requests.insert((result.at, key.clone()));
        self.cached_bytes = self.cached_bytes.saturating_add(size(result));
    }

    pub(crate) fn remove_result(&mut self, key: &RequestKey, result: &CachedResult) {
        self.requests.remove(&(result.at, key.clone()));
        self.cached_bytes = self.cached_bytes.saturating_sub(size(result));
    }

    pub(crate) fn oldest_request(&self) -> Option<RequestKey> {
        self.requests.first().map(|(_, key)| key.clone())
    }

    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }
}

/// Bytes that a remembered result takes in its stored form.
fn size(result: &CachedResult) -> u64 {
    crate::table::encode(result).len() as u64
}

/// What a coin adds to the sums of its wallet.
fn counted(utxo: &Utxo) -> Option<(u64, u64)> {
    let reserved = matches!(utxo.claim, Claim::Reserved(_));
    let there = utxo.spent.is_none() && utxo.height.is_some() && utxo.value_sat > 0;
    there.then_some((utxo.value_sat, if reserved { utxo.value_sat } else { 0 }))
}

/// Cancelled, and nothing more can come of it.
fn is_cancelled(payment: &Payment) -> bool {
    payment.is_cancelled() && !payment.is_open()
}

fn is_free(utxo: &Utxo) -> bool {
    utxo.claim == Claim::Free && utxo.spent.is_none() && utxo.height.is_some()
}
