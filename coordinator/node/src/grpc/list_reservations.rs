//! ListReservations: the active ones; those past their time are shown as expired until the leader frees them.

use onespend_core::ids::ReservationId;
use onespend_core::reservation::Reservation;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::page::{self, Page};
use super::reservation_view;

pub(super) fn list_reservations(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::ListReservationsRequest,
) -> Result<v1::ListReservationsResponse, Status> {
    let (size, first) = parse(message)?;
    let now = api.now();
    let mut page = Page::begin(first, size);
    while page.is_open() {
        api.replica.read(|state| {
            page.look(state.reservations_from(page.at().unwrap_or(ReservationId(0))), |id, reservation| {
                let matching = matches(reservation, message);
                let shown = matching.then(|| reservation_view::active(state, *id, reservation, now))?;
                (message.states.is_empty() || message.states.contains(&shown.state)).then_some(shown)
            });
        });
    }
    let (reservations, next_page_token) = page.finish(ReservationId::to_string);
    Ok(v1::ListReservationsResponse { reservations, next_page_token, read_info: Some(info) })
}

/// The size of the page, and the reservation that it begins with.
pub(super) fn parse(message: &v1::ListReservationsRequest) -> Result<(usize, Option<ReservationId>), Status> {
    let mut fields = Fields::default();
    let size = fields.page_size(message.page_size);
    fields.optional_wallet_id(&message.wallet_id);
    fields.optional_payment_id(&message.payment_id);
    fields.states::<v1::ReservationState>(&message.states);
    let size = fields.finish(size)?;
    let first = page::start(&message.page_token, |text| ReservationId::parse(text).ok())?;
    Ok((size, first))
}

fn matches(reservation: &Reservation, wanted: &v1::ListReservationsRequest) -> bool {
    let same = |filter: &str, value: &str| filter.is_empty() || filter == value;
    let payment = reservation.payment.as_ref().map_or("", |payment| payment.as_str());
    same(&wanted.wallet_id, reservation.wallet.as_str())
        && same(&wanted.owner, reservation.owner.as_str())
        && same(&wanted.payment_id, payment)
}
