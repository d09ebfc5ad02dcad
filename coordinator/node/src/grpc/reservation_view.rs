//! Reservations as callers see them. Logical time is shown as time that remains, and as a time of this node's wall
//! clock for people to read.

use std::time::Duration;

use bitcoin::OutPoint;
use onespend_core::ids::{Millis, ReservationId};
use onespend_core::limits::MAX_RESERVATION_LIFE;
use onespend_core::reservation::{Ended, Reservation};
use onespend_core::state::State;
use onespend_proto::v1;

use super::utxo_view;

/// An active reservation at a logical time. One that is past its time is shown as expired, though the leader may not
/// have freed its coins yet.
pub(crate) fn active(state: &State, id: ReservationId, reservation: &Reservation, now: Millis) -> v1::Reservation {
    let shown = if reservation.expires <= now { v1::ReservationState::Expired } else { v1::ReservationState::Active };
    let last = Millis(reservation.granted.0.saturating_add(MAX_RESERVATION_LIFE.0));
    v1::Reservation {
        reservation_id: id.to_string(),
        fence: id.fence().0,
        wallet_id: reservation.wallet.to_string(),
        owner: reservation.owner.to_string(),
        utxos: coins(state, &reservation.outpoints),
        payment_id: reservation.payment.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: shown.into(),
        create_time: Some(wall(reservation.granted, now)),
        expire_time: Some(wall(reservation.expires, now)),
        remaining: Some(remaining(reservation.expires, now)),
        max_expire_time: Some(wall(last, now)),
    }
}

/// A reservation that ended, as far as it is remembered.
pub(crate) fn ended(id: ReservationId, how: &Ended) -> v1::Reservation {
    let (state, payment_id) = match how {
        Ended::Expired => (v1::ReservationState::Expired, String::new()),
        Ended::Released => (v1::ReservationState::Released, String::new()),
        Ended::Used(payment) => (v1::ReservationState::Used, payment.to_string()),
    };
    v1::Reservation {
        reservation_id: id.to_string(),
        fence: id.fence().0,
        payment_id,
        state: state.into(),
        remaining: Some(prost_types::Duration::default()),
        ..v1::Reservation::default()
    }
}

/// A reservation under its name, active or ended.
pub(crate) fn any(state: &State, id: ReservationId, now: Millis) -> Option<v1::Reservation> {
    match state.reservation(id) {
        Some(reservation) => Some(active(state, id, reservation, now)),
        None => state.ended_reservation(id).map(|how| ended(id, how)),
    }
}

/// The reservation of a result: it was granted, whatever has become of it, so a retry has to be told of it.
pub(crate) fn granted(state: &State, id: ReservationId, now: Millis) -> v1::Reservation {
    any(state, id, now).unwrap_or_else(|| v1::Reservation {
        reservation_id: id.to_string(),
        fence: id.fence().0,
        state: v1::ReservationState::Forgotten.into(),
        remaining: Some(prost_types::Duration::default()),
        ..v1::Reservation::default()
    })
}

/// Each coin as it is known now; one that is forgotten by its name alone.
pub(crate) fn coins(state: &State, outpoints: &[OutPoint]) -> Vec<v1::Utxo> {
    let coin = |outpoint: &OutPoint| match state.utxo(outpoint) {
        Some(utxo) => utxo_view::utxo(state, outpoint, utxo),
        None => v1::Utxo { outpoint: Some(utxo_view::outpoint(outpoint)), ..v1::Utxo::default() },
    };
    outpoints.iter().map(coin).collect()
}

pub(crate) fn remaining(expires: Millis, now: Millis) -> prost_types::Duration {
    let left = Duration::from_millis(expires.0.saturating_sub(now.0));
    prost_types::Duration::try_from(left).unwrap_or_default()
}

/// A logical time on this node's wall clock.
pub(crate) fn wall(at: Millis, now: Millis) -> prost_types::Timestamp {
    let clock = crate::clock::wall();
    let time = if at >= now {
        clock.checked_add(Duration::from_millis(at.0 - now.0))
    } else {
        clock.checked_sub(Duration::from_millis(now.0 - at.0))
    };
    prost_types::Timestamp::from(time.unwrap_or(clock))
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{OutPoint, Txid};

    use super::*;

    /// safety 27: what was granted is never answered as if it were not.
    #[test]
    fn a_grant_is_told_of_also_when_its_reservation_and_its_coins_are_forgotten() {
        let (state, coin) = (State::default(), OutPoint::new(Txid::from_byte_array([7; 32]), 3));
        assert_eq!(any(&state, ReservationId(9), Millis(1)), None);
        let shown = granted(&state, ReservationId(9), Millis(1));
        assert_eq!((shown.reservation_id.as_str(), shown.fence), ("r-9", 9));
        assert_eq!(shown.state(), v1::ReservationState::Forgotten);
        let coins = coins(&state, &[coin]);
        assert_eq!(
            coins.iter().map(|coin| coin.outpoint.clone()).collect::<Vec<_>>(),
            [Some(utxo_view::outpoint(&coin))]
        );
    }
}
