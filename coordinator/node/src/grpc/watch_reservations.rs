//! WatchReservations: every reservation that changed after an index, then each change as it is applied; see
//! [`super::watch`]. Which entry changed one is known from the moment on at which this node loaded its state; a caller
//! who resumes from before that is told everything that is remembered.

use std::sync::Arc;

use onespend_core::ids::{LogIndex, Millis, ReservationId, WalletId};
use onespend_core::state::State;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::reservation_view;
use super::watch::{self, Batch, Changes, Follow, Told};

/// What a stream follows.
#[derive(Default)]
pub(super) struct Filter {
    wallet: Option<WalletId>,
    reservation: Option<ReservationId>,
}

pub(super) fn watch_reservations(
    api: &Arc<Api>,
    message: &v1::WatchReservationsRequest,
) -> Result<Changes<v1::WatchReservationsResponse>, Status> {
    watch::open(api, parse(message)?, message.from_index)
}

pub(super) fn parse(message: &v1::WatchReservationsRequest) -> Result<Filter, Status> {
    let mut fields = Fields::default();
    let wallet = fields.optional_wallet_id(&message.wallet_id);
    let reservation = fields.optional_reservation_id(&message.reservation_id);
    fields.finish(Some(Filter { wallet, reservation }))
}

impl Follow for Filter {
    type Key = ReservationId;
    type Message = v1::WatchReservationsResponse;

    fn changes(&self, state: &State, told: &Told<ReservationId>, now: Millis) -> Batch<ReservationId, Self::Message> {
        changes(state, self, told, now)
    }

    fn mark(index: LogIndex) -> Self::Message {
        v1::WatchReservationsResponse { reservation: None, applied_index: index.0 }
    }
}

fn changes(
    state: &State,
    filter: &Filter,
    told: &Told<ReservationId>,
    now: Millis,
) -> Batch<ReservationId, v1::WatchReservationsResponse> {
    let later = state.reservations_changed_after(told.index, told.within);
    watch::batch(state, told, later, |id, applied_index| {
        let reservation = filter.wants(state, *id).then(|| reservation_view::any(state, *id, now)).flatten()?;
        Some(v1::WatchReservationsResponse { reservation: Some(reservation), applied_index })
    })
}

impl Filter {
    /// Of one that ended the wallet is not remembered, so those are told to everybody who did not name another one.
    fn wants(&self, state: &State, id: ReservationId) -> bool {
        let of_wallet =
            |wallet: &WalletId| state.reservation(id).is_none_or(|reservation| reservation.wallet == *wallet);
        self.reservation.is_none_or(|named| named == id) && self.wallet.as_ref().is_none_or(of_wallet)
    }
}

#[cfg(test)]
#[path = "watch_reservations_tests.rs"]
mod tests;
