//! RenewReservation: more time, within the bound of 24 hours in all.

use std::sync::Arc;

use onespend_core::command::Command;
use onespend_core::ids::{Millis, RequestId, ReservationId};
use onespend_proto::v1::{self, renew_reservation_request};
use tonic::Status;

use super::api::{Api, Call};
use super::fields::{Fields, Ttl};
use super::reservation_view;

pub(super) async fn renew_reservation(
    api: Arc<Api>,
    call: Call,
    message: v1::RenewReservationRequest,
) -> Result<v1::RenewReservationResponse, Status> {
    let ((request, id), ttl) = parse(&message)?;
    let command = Command::Renew { reservation: id, fence: fence(message.fence), ttl };
    let applied = api.decide_plain(&call, call.request(request), command).await?;
    let now = api.now();
    let reservation = api.replica.read(|state| reservation_view::any(state, id, now));
    Ok(v1::RenewReservationResponse { reservation, applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::RenewReservationRequest) -> Result<((RequestId, ReservationId), Millis), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let id = fields.reservation_id(&message.reservation_id);
    let ttl = message.expiration.as_ref().map(|expiration| match expiration {
        renew_reservation_request::Expiration::Ttl(ttl) => Ttl::For(*ttl),
        renew_reservation_request::Expiration::ExpireTime(time) => Ttl::Until(*time),
    });
    let ttl = fields.ttl(ttl.as_ref());
    fields.finish(request.zip(id).zip(ttl))
}

/// A fence that the caller shows; 0 shows none.
pub(super) fn fence(shown: u64) -> Option<onespend_core::ids::Fence> {
    (shown != 0).then_some(onespend_core::ids::Fence(shown))
}
