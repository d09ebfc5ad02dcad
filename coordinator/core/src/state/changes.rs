//! How the state changes: what rules decide ends in one of these, which keep indexes and rows together.

use bitcoin::{Network, OutPoint};

use super::{Chain, State};
use crate::audit::AuditRecord;
use crate::chain::BlockRecord;
use crate::command::BlockRef;
use crate::dedup::CachedResult;
use crate::ids::{Height, Millis, PaymentKey, RequestKey, ReservationId, WalletId};
use crate::limits::{MAX_AUDIT_RECORDS, MAX_CACHED_BYTES, MAX_CACHED_RESULTS, MAX_ENDED_RESERVATIONS};
use crate::payment::Payment;
use crate::recovery::Recovery;
use crate::reservation::{Ended, Reservation};
use crate::spending::Spending;
use crate::utxo::Utxo;
use crate::wallet::{Keychain, Wallet};

/// Changing: each method keeps the indexes true.
impl State {
    pub(crate) fn put_wallet(&mut self, id: WalletId, wallet: Wallet) {
        self.wallets.insert(id, wallet);
    }

    pub(crate) fn update_wallet<R>(&mut self, id: &WalletId, change: impl FnOnce(&mut Wallet) -> R) -> Option<R> {
        self.wallets.update(id, change)
    }

    pub(crate) fn use_index(&mut self, id: &WalletId, keychain: Keychain, index: u32) {
        if self.wallets.get(id).is_some_and(|wallet| wallet.next_index(keychain) <= index) {
            self.wallets.update(id, |wallet| wallet.use_index(keychain, index));
        }
    }

    pub(crate) fn put_utxo(&mut self, outpoint: OutPoint, utxo: Utxo) {
        if self.is_followed(&utxo) && self.utxo(&outpoint).is_none() {
            self.index.follow(&outpoint);
        }
        self.index.add_coin(&outpoint, &utxo);
        self.utxos.insert(outpoint, utxo);
    }

    pub(crate) fn update_utxo<R>(&mut self, outpoint: &OutPoint, change: impl FnOnce(&mut Utxo) -> R) -> Option<R> {
        self.index.remove_coin(outpoint, self.utxos.get(outpoint)?);
        let result = self.utxos.update(outpoint, change);
        if let Some(utxo) = self.utxos.get(outpoint) {
            self.index.add_coin(outpoint, utxo);
        }
        result
    }

    pub(crate) fn remove_utxo(&mut self, outpoint: &OutPoint) {
        if let Some(utxo) = self.utxos.remove(outpoint) {
            self.index.forget_coin(outpoint, &utxo);
            if self.is_followed(&utxo) {
                self.index.follow_no_more(outpoint);
            }
        }
    }

    pub(crate) fn put_reservation(&mut self, id: ReservationId, reservation: Reservation) {
        self.index.add_reservation(id, &reservation);
        self.recent.note(id, self.meta.applied);
        self.reservations.insert(id, reservation);
    }

    pub(crate) fn set_expiry(&mut self, id: ReservationId, expires: Millis) {
        if let Some(mut reservation) = self.reservations.remove(&id) {
            self.index.remove_reservation(id, &reservation);
            reservation.expires = expires;
            self.put_reservation(id, reservation);
        }
    }

    pub(crate) fn end_reservation(&mut self, id: ReservationId, how: Ended) -> Option<Reservation> {
        let reservation = self.reservations.remove(&id)?;
        self.index.remove_reservation(id, &reservation);
        self.ended.insert(id, how);
        self.recent.note(id, self.meta.applied);
        if self.ended.len() > MAX_ENDED_RESERVATIONS
            && let Some(oldest) = self.ended.iter().next().map(|(id, _)| *id)
        {
            self.ended.remove(&oldest);
            self.recent.forget(oldest);
        }
        Some(reservation)
    }

    pub(crate) fn put_payment(&mut self, key: PaymentKey, payment: Payment) {
        self.index.add_payment(&key, &payment);
        self.payments.insert(key, payment);
    }

    /// Changes a payment and notes the entry that did.
    pub(crate) fn change_payment<R>(&mut self, key: &PaymentKey, change: impl FnOnce(&mut Payment) -> R) -> Option<R> {
        self.index.remove_payment(key, self.payments.get(key)?);
        let at = self.meta.applied;
        let result = self.payments.update(key, |payment| {
            payment.changed_at = at;
            change(payment)
        });
        if let Some(payment) = self.payments.get(key) {
            self.index.add_payment(key, payment);
        }
        result
    }

    pub(crate) fn remember(&mut self, key: RequestKey, result: CachedResult) {
        self.index.add_request(&key, &result);
        self.requests.insert(key, result);
        while self.requests.len() > MAX_CACHED_RESULTS || self.index.cached_bytes() > MAX_CACHED_BYTES {
            let Some(oldest) = self.index.oldest_request() else { return };
            if let Some(result) = self.requests.remove(&oldest) {
                self.index.remove_result(&oldest, &result);
            }
        }
    }

    pub(crate) fn put_spending(&mut self, wallet: WalletId, spending: Spending) {
        self.spending.insert(wallet, spending);
    }

    pub(crate) fn note_audit(&mut self, record: AuditRecord) {
        self.audit.insert(self.meta.applied, record);
        while self.audit.len() > MAX_AUDIT_RECORDS {
            let Some(oldest) = self.audit.iter().next().map(|(at, _)| *at) else { return };
            self.audit.remove(&oldest);
        }
    }

    pub(crate) fn set_recovery(&mut self, recovery: Option<Recovery>) {
        self.meta.recovery = recovery;
    }

    pub(crate) fn set_feature_level(&mut self, level: u32) {
        self.meta.feature_level = Some(level);
    }

    pub(crate) fn set_epoch(&mut self, epoch: u32) {
        self.meta.epoch = Some(epoch);
    }

    pub(crate) fn start_chain(&mut self, network: Network, tip: BlockRef) {
        self.meta.chain = Some(Chain { network, tip, highest: tip.height });
        self.blocks.insert(tip.height, BlockRecord { hash: tip.hash, received: Vec::new(), spent: Vec::new() });
    }

    pub(crate) fn put_tip(&mut self, tip: BlockRef, record: BlockRecord) {
        if let Some(chain) = &mut self.meta.chain {
            chain.tip = tip;
            chain.highest = chain.highest.max(tip.height);
        }
        self.blocks.insert(tip.height, record);
    }

    /// Removes the tip's record and makes the block below the tip.
    pub(crate) fn take_tip(&mut self, below: BlockRef) -> Option<BlockRecord> {
        let chain = self.meta.chain.as_mut()?;
        let record = self.blocks.remove(&chain.tip.height)?;
        chain.tip = below;
        Some(record)
    }

    pub(crate) fn take_block(&mut self, height: Height) -> Option<BlockRecord> {
        self.blocks.remove(&height)
    }

    /// A block that is there already turns out to have taken a coin.
    pub(crate) fn note_spent(&mut self, height: Height, outpoint: OutPoint) {
        self.blocks.update(&height, |record| record.spent.push(outpoint));
    }

    pub(crate) fn note_received(&mut self, height: Height, outpoint: OutPoint) {
        self.blocks.update(&height, |record| record.received.push(outpoint));
    }
}
