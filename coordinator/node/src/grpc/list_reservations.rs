//! ListReservations: those that stand, and those that ended as far as they are remembered. One that is past its time is
//! shown as expired until the leader frees its coins.

use onespend_core::ids::{Millis, ReservationId};
use onespend_core::reservation::{Ended, Reservation};
use onespend_core::state::State;
use onespend_proto::v1::{self, ReservationState};
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::page::{self, Page};
use super::reservation_view;

/// A row of the list.
enum Row<'a> {
    Standing(&'a Reservation),
    Ended(&'a Ended),
}

pub(super) fn list_reservations(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::ListReservationsRequest,
) -> Result<v1::ListReservationsResponse, Status> {
    let (size, first) = parse(message)?;
    let now = api.now();
    let mut page = Page::begin(first, api.page_bounds(size));
    while page.is_open() {
        api.replica.read(|state| look(&mut page, state, message, now));
    }
    let (reservations, next_page_token) = page.finish(ReservationId::to_string);
    Ok(v1::ListReservationsResponse { reservations, next_page_token, read_info: Some(info) })
}

fn look(
    page: &mut Page<ReservationId, v1::Reservation>,
    state: &State,
    message: &v1::ListReservationsRequest,
    now: Millis,
) {
    let active = [i32::from(ReservationState::Active)];
    let states = if message.states.is_empty() { active.as_slice() } else { message.states.as_slice() };
    let with_ended = states.iter().any(|wanted| *wanted != i32::from(ReservationState::Active));
    page.look(rows(state, page.at().unwrap_or(ReservationId(0)), with_ended), |id, row| {
        if !matches(&row, message) {
            return None;
        }
        let shown = match row {
            Row::Standing(reservation) => reservation_view::active(state, *id, reservation, now),
            Row::Ended(how) => reservation_view::ended(*id, how),
        };
        states.contains(&shown.state).then_some(shown)
    });
}

/// Both kinds in one order, that of their fences.
fn rows(state: &State, first: ReservationId, with_ended: bool) -> impl Iterator<Item = (&ReservationId, Row<'_>)> {
    let standing = state.reservations_from(first).map(|(id, reservation)| (id, Row::Standing(reservation)));
    let ended = with_ended.then(|| state.ended_reservations_from(first)).into_iter().flatten();
    let ended = ended.map(|(id, how)| (id, Row::Ended(how)));
    let (mut standing, mut ended) = (standing.peekable(), ended.peekable());
    std::iter::from_fn(move || {
        let ended_is_next = match (standing.peek(), ended.peek()) {
            (Some((one, _)), Some((other, _))) => other < one,
            (one, _) => one.is_none(),
        };
        if ended_is_next { ended.next() } else { standing.next() }
    })
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

/// Of one that ended neither wallet nor owner is remembered, so it is not known to be one of theirs.
fn matches(row: &Row<'_>, wanted: &v1::ListReservationsRequest) -> bool {
    let (wallet, owner, payment) = match row {
        Row::Standing(reservation) => {
            (reservation.wallet.as_str(), reservation.owner.as_str(), reservation.payment.as_ref())
        }
        Row::Ended(Ended::Used(payment)) => ("", "", Some(payment)),
        Row::Ended(Ended::Expired | Ended::Released) => ("", "", None),
    };
    let same = |filter: &str, value: &str| filter.is_empty() || filter == value;
    same(&wanted.wallet_id, wallet)
        && same(&wanted.owner, owner)
        && same(&wanted.payment_id, payment.map_or("", |payment| payment.as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use onespend_core::command::{Command, Reserve};
    use onespend_core::outcome::Outcome;

    use super::*;
    use crate::grpc::page::Bounds;
    use crate::raft::StateView;
    use crate::specimen::{Coin, accept, apply_to, coin, register, request, started, wallet};

    const TTL: Millis = Millis(60_000);

    fn reserve(view: &StateView, n: u32) -> ReservationId {
        let command =
            Reserve { wallet: wallet("w"), outpoints: vec![coin(n)], ttl: TTL, payment: None, selected: false };
        match apply_to(view, Some(request(&format!("q{n}"))), Command::Reserve(command)) {
            Outcome::Reserved { reservation, .. } => reservation,
            other => panic!("{other:?}"),
        }
    }

    /// Three reservations, of which the second was given back.
    fn state() -> (StateView, [ReservationId; 3]) {
        let view = started();
        accept(&view, register("w", &[Coin::of(1_000), Coin::of(2_000), Coin::of(3_000)]));
        let ids = [0, 1, 2].map(|n| reserve(&view, n));
        let release = Command::Release { reservation: ids[1], fence: None };
        assert_eq!(apply_to(&view, Some(request("release")), release), Outcome::Released);
        (view, ids)
    }

    fn list(view: &StateView, message: &v1::ListReservationsRequest, now: Millis, rows: usize) -> Vec<Vec<String>> {
        let (mut pages, mut first) = (vec![], None);
        loop {
            let mut page = Page::begin(first, Bounds { rows, message_bytes: 4 << 20 });
            while page.is_open() {
                view.read(|state| look(&mut page, state, message, now));
            }
            let (shown, next) = page.finish(ReservationId::to_string);
            pages.push(shown.into_iter().map(|one| one.reservation_id).collect());
            if next.is_empty() {
                return pages;
            }
            first = page::start(&next, |text| ReservationId::parse(text).ok()).unwrap();
        }
    }

    fn asking(states: &[ReservationState]) -> v1::ListReservationsRequest {
        let states = states.iter().map(|state| i32::from(*state)).collect();
        v1::ListReservationsRequest { states, ..Default::default() }
    }

    #[test]
    fn who_names_no_state_is_shown_the_active_ones() {
        let (view, [first, _, third]) = state();
        let active = asking(&[]);
        assert_eq!(list(&view, &active, Millis(1), 10), [[first.to_string(), third.to_string()]]);
        let late = Millis(2 * TTL.0);
        assert_eq!(list(&view, &active, late, 10), [Vec::<String>::new()], "they are past their time");
        let expired = asking(&[ReservationState::Expired]);
        assert_eq!(list(&view, &expired, late, 10), [[first.to_string(), third.to_string()]]);
    }

    #[test]
    fn those_that_ended_are_listed_as_far_as_they_are_remembered() {
        let (view, ids) = state();
        let released = asking(&[ReservationState::Released]);
        assert_eq!(list(&view, &released, Millis(1), 10), [[ids[1].to_string()]]);
        assert_eq!(list(&view, &asking(&[ReservationState::Used]), Millis(1), 10), [Vec::<String>::new()]);
        let of_wallet = v1::ListReservationsRequest { wallet_id: "w".to_owned(), ..released };
        assert_eq!(list(&view, &of_wallet, Millis(1), 10), [Vec::<String>::new()], "its wallet is not remembered");
    }

    #[test]
    fn both_kinds_are_in_one_order_across_pages() {
        let (view, ids) = state();
        let all = asking(&[ReservationState::Active, ReservationState::Released]);
        let pages: Vec<_> = ids.iter().map(|id| vec![id.to_string()]).collect();
        assert_eq!(list(&view, &all, Millis(1), 1), pages);
    }
}
