//! GetReservation.

use onespend_core::ids::ReservationId;
use onespend_core::outcome::Rejection;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::{reservation_view, status};

pub(super) fn get_reservation(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::GetReservationRequest,
) -> Result<v1::GetReservationResponse, Status> {
    let id = parse(message)?;
    let now = api.now();
    let reservation = api.replica.read(|state| reservation_view::any(state, id, now));
    let reservation = reservation.ok_or_else(|| status::rejected(&Rejection::ReservationUnknown))?;
    Ok(v1::GetReservationResponse { reservation: Some(reservation), read_info: Some(info) })
}

pub(super) fn parse(message: &v1::GetReservationRequest) -> Result<ReservationId, Status> {
    let mut fields = Fields::default();
    let id = fields.reservation_id(&message.reservation_id);
    fields.finish(id)
}
