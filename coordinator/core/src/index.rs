//! Indexes derived from the tables: never stored, never hashed, rebuilt when the state is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use bitcoin::OutPoint;

use crate::dedup::CachedResult;
use crate::ids::{LogIndex, Millis, PaymentKey, RequestKey, ReservationId, WalletId};
use crate::payment::Payment;
use crate::reservation::Reservation;
use crate::state::State;
use crate::utxo::{Claim, Utxo};

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    free: BTreeMap<WalletId, BTreeSet<(u64, OutPoint)>>,
    expiries: BTreeSet<(Millis, ReservationId)>,
    counts: BTreeMap<WalletId, u64>,
    open: BTreeSet<PaymentKey>,
    changes: BTreeMap<LogIndex, BTreeSet<PaymentKey>>,
    requests: BTreeSet<(LogIndex, RequestKey)>,
}

impl Index {
    pub(crate) fn of(state: &State) -> Self {
        let mut index = Self::default();
        state.utxos.iter().for_each(|(outpoint, utxo)| index.add_coin(outpoint, utxo));
        state.reservations.iter().for_each(|(id, reservation)| index.add_reservation(*id, reservation));
        state.payments.iter().for_each(|(key, payment)| index.add_payment(key, payment));
        state.requests.iter().for_each(|(key, result)| index.add_request(key, result));
        index
    }

    pub(crate) fn add_coin(&mut self, outpoint: &OutPoint, utxo: &Utxo) {
        if is_free(utxo) {
            self.free.entry(utxo.wallet.clone()).or_default().insert((utxo.value_sat, *outpoint));
        }
    }

    pub(crate) fn remove_coin(&mut self, outpoint: &OutPoint, utxo: &Utxo) {
        let Some(coins) = self.free.get_mut(&utxo.wallet).filter(|_| is_free(utxo)) else { return };
        coins.remove(&(utxo.value_sat, *outpoint));
        if coins.is_empty() {
            self.free.remove(&utxo.wallet);
        }
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
        if !payment.is_settled() {
            self.open.insert(key.clone());
        }
        self.changes.entry(payment.changed_at).or_default().insert(key.clone());
    }

    pub(crate) fn remove_payment(&mut self, key: &PaymentKey, payment: &Payment) {
        self.open.remove(key);
        let Some(keys) = self.changes.get_mut(&payment.changed_at) else { return };
        keys.remove(key);
        if keys.is_empty() {
            self.changes.remove(&payment.changed_at);
        }
    }

    pub(crate) fn open_payments(&self) -> Vec<PaymentKey> {
        self.open.iter().cloned().collect()
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
    }

    pub(crate) fn take_oldest_request(&mut self) -> Option<RequestKey> {
        self.requests.pop_first().map(|(_, key)| key)
    }
}

fn is_free(utxo: &Utxo) -> bool {
    utxo.claim == Claim::Free && utxo.spent.is_none() && utxo.height.is_some()
}
