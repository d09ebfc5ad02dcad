//! ReleaseReservation: the coins go back.

use std::sync::Arc;

use onespend_core::command::Command;
use onespend_core::ids::{RequestId, ReservationId};
use onespend_core::outcome::Outcome;
use onespend_proto::v1::{self, ErrorReason};
use tonic::Status;

use super::api::{Api, Call};
use super::fields::Fields;
use super::renew_reservation::fence;
use super::{reservation_view, status};

pub(super) async fn release_reservation(
    api: Arc<Api>,
    call: Call,
    message: v1::ReleaseReservationRequest,
) -> Result<v1::ReleaseReservationResponse, Status> {
    let (request, id) = parse(&message)?;
    let command = Command::Release { reservation: id, fence: fence(message.fence) };
    let shown = fence(message.fence).unwrap_or(id.fence());
    let applied = match api.decide_plain(&call, call.request(request), command).await {
        // What the caller wants is so already, as after a retry under another request id.
        Err(refused) if status::is_for(&refused, ErrorReason::ReservationReleased) && shown == id.fence() => {
            api.replica.applied(Outcome::Released)
        }
        decided => decided?,
    };
    let now = api.now();
    let reservation = api.replica.read(|state| reservation_view::any(state, id, now));
    Ok(v1::ReleaseReservationResponse { reservation, applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::ReleaseReservationRequest) -> Result<(RequestId, ReservationId), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let id = fields.reservation_id(&message.reservation_id);
    fields.finish(request.zip(id))
}
