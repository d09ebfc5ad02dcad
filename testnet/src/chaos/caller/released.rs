//! What a buggy caller does who forgets that it has given a reservation back: it goes on with it.

use anyhow::Result;
use onespend_proto::v1::{ReleaseReservationRequest, Reservation};

use super::{Caller, renewal};
use crate::chaos::calls::Ask;
use crate::chaos::operation::Operation;

impl Caller {
    /// Gives a reservation back, and then renews it or has its coins signed away all the same.
    pub(super) async fn use_released(&mut self, operation: &Operation) -> Result<()> {
        let ask = if operation.pick.is_multiple_of(2) {
            let Some(draft) = self.draft(operation).await? else { return Ok(()) };
            if !self.give_back(operation, &draft.reservation).await {
                return Ok(());
            }
            Ask::Sign(self.sign_request(&draft, draft.reservation.fence)?)
        } else {
            let Some(reservation) = self.a_reservation(operation.pick) else { return Ok(()) };
            if !self.give_back(operation, &reservation).await {
                return Ok(());
            }
            renewal(self.request_id(), &reservation, reservation.fence, operation)
        };
        self.ask(operation, ask, Some("the reservation was given back")).await;
        Ok(())
    }

    /// Whether it certainly is given back. Where nobody knows, nothing is certain of what is asked of it next.
    pub(super) async fn give_back(&mut self, operation: &Operation, reservation: &Reservation) -> bool {
        self.forget(reservation);
        let ask = Ask::Release(ReleaseReservationRequest {
            request_id: self.request_id(),
            reservation_id: reservation.reservation_id.clone(),
            fence: reservation.fence,
        });
        self.ask(operation, ask, None).await.is_some()
    }
}
