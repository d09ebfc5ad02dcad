//! RenewReservation: more time, within the bound of 24 hours in all.

use std::sync::Arc;

use onespend_core::command::Command;
use onespend_core::ids::{RequestId, ReservationId};
use onespend_proto::v1::{self, renew_reservation_request};
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::expiry::{Expiration, Expiry};
use super::fields::Fields;
use super::reservation_view;

pub(super) async fn renew_reservation(
    api: Arc<Api>,
    call: Call,
    message: v1::RenewReservationRequest,
) -> Result<v1::RenewReservationResponse, Status> {
    let ((request, id), expiry) = parse(&message)?;
    let draft = || {
        let ttl = expiry.ttl()?;
        Ok(Draft::of(Command::Renew { reservation: id, fence: fence(message.fence), ttl }))
    };
    let applied = api.decide(&call, call.request(request), || std::future::ready(draft())).await?;
    let now = api.now();
    let reservation = api.replica.read(|state| reservation_view::granted(state, id, now));
    Ok(v1::RenewReservationResponse {
        reservation: Some(reservation),
        applied_index: applied.index.0,
        term: applied.term,
    })
}

pub(super) fn parse(message: &v1::RenewReservationRequest) -> Result<((RequestId, ReservationId), Expiry), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let id = fields.reservation_id(&message.reservation_id);
    let expiration = message.expiration.as_ref().map(|expiration| match expiration {
        renew_reservation_request::Expiration::Ttl(ttl) => Expiration::For(*ttl),
        renew_reservation_request::Expiration::ExpireTime(time) => Expiration::Until(*time),
    });
    let expiry = fields.expiry(expiration);
    fields.finish(request.zip(id).zip(expiry))
}

/// A fence that the caller shows; 0 shows none.
pub(super) fn fence(shown: u64) -> Option<onespend_core::ids::Fence> {
    (shown != 0).then_some(onespend_core::ids::Fence(shown))
}
