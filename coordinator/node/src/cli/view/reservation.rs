//! Reservations.

use onespend_proto::v1;
use serde::Serialize;

use super::utxo::{self, Utxo};
use super::{millis, set, time};
use crate::cli::answer::MORE;
use crate::cli::format::{counted, span, timestamp_ago};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};
use crate::cli::words::Word as _;

/// `v1::Reservation`.
#[derive(Debug, Serialize)]
pub struct Reservation {
    reservation_id: String,
    fence: u64,
    wallet_id: String,
    owner: String,
    utxos: Vec<Utxo>,
    payment_id: Option<String>,
    state: &'static str,
    create_time: Option<String>,
    expire_time: Option<String>,
    remaining_ms: Option<u64>,
    max_expire_time: Option<String>,
    #[serde(skip)]
    created: String,
}

impl From<v1::Reservation> for Reservation {
    fn from(reservation: v1::Reservation) -> Self {
        Self {
            state: reservation.state().word(),
            reservation_id: reservation.reservation_id,
            fence: reservation.fence,
            wallet_id: reservation.wallet_id,
            owner: reservation.owner,
            utxos: reservation.utxos.into_iter().map(Utxo::from).collect(),
            payment_id: set(reservation.payment_id),
            create_time: time(reservation.create_time.as_ref()),
            expire_time: time(reservation.expire_time.as_ref()),
            remaining_ms: millis(reservation.remaining.as_ref()),
            max_expire_time: time(reservation.max_expire_time.as_ref()),
            created: timestamp_ago(reservation.create_time.as_ref()),
        }
    }
}

impl Reservation {
    /// One line for following: `r-77  active, 9 min 41 s left  2 coins, 150,000 sat  for order-7`.
    fn line(&self) -> String {
        let left = self.left();
        let state = if left.is_empty() { self.state.to_owned() } else { format!("{}, {left} left", self.state) };
        let payment = self.payment_id.as_ref().map(|payment| format!("for {payment}"));
        let mut parts = vec![self.reservation_id.clone(), state, self.holds()];
        parts.extend(payment);
        parts.retain(|part| !part.is_empty());
        parts.join("  ")
    }

    /// One that ended is remembered without its coins.
    fn holds(&self) -> String {
        if self.utxos.is_empty() { String::new() } else { utxo::sum(&self.utxos) }
    }

    /// Only an active reservation runs out.
    fn left(&self) -> String {
        match self.remaining_ms {
            Some(ms) if self.state == "active" => span(std::time::Duration::from_millis(ms)),
            _ => String::new(),
        }
    }
}

impl Show for Reservation {
    fn text(&self) -> String {
        let card = table::card([
            ("reservation", self.reservation_id.clone()),
            ("fence", self.fence.to_string()),
            ("wallet", self.wallet_id.clone()),
            ("owner", self.owner.clone()),
            ("state", self.state.to_owned()),
            ("time left", self.left()),
            ("reserved", self.created.clone()),
            ("payment", self.payment_id.clone().unwrap_or_default()),
            ("holds", self.holds()),
        ]);
        if self.utxos.is_empty() { card } else { format!("{card}\n\n{}", utxo::coins(&self.utxos)) }
    }
}

/// A page of reservations.
#[derive(Debug, Serialize)]
pub struct Reservations {
    reservations: Vec<Reservation>,
    /// Whether there are more than were asked for.
    more: bool,
}

impl Reservations {
    /// Of pages that were read.
    pub fn new((reservations, more): (Vec<v1::Reservation>, bool)) -> Self {
        Self { reservations: reservations.into_iter().map(Reservation::from).collect(), more }
    }
}

impl Show for Reservations {
    fn text(&self) -> String {
        let columns = [
            Column::Whole("RESERVATION"),
            Column::Whole("WALLET"),
            Column::Text("OWNER"),
            Column::Whole("STATE"),
            Column::Whole("TIME LEFT"),
            Column::Whole("HOLDS"),
            Column::Text("PAYMENT"),
        ];
        let row = |reservation: &Reservation| {
            [
                reservation.reservation_id.clone(),
                reservation.wallet_id.clone(),
                reservation.owner.clone(),
                reservation.state.to_owned(),
                reservation.left(),
                reservation.holds(),
                reservation.payment_id.clone().unwrap_or_default(),
            ]
        };
        let list = table::list(columns, self.reservations.iter().map(row), "no reservations");
        let below =
            if self.more { MORE.to_owned() } else { counted(self.reservations.len(), "reservation", "reservations") };
        if self.reservations.is_empty() { list } else { format!("{list}\n{below}") }
    }
}

/// `v1::WatchReservationsResponse` with a reservation: one that changed.
#[derive(Debug, Serialize)]
pub struct Update {
    reservation: Reservation,
    /// What to resume from: `reserve watch --from-index`.
    applied_index: u64,
}

impl Update {
    /// Of a message of the stream.
    pub fn new(reservation: v1::Reservation, applied_index: u64) -> Self {
        Self { reservation: reservation.into(), applied_index }
    }
}

impl Show for Update {
    fn text(&self) -> String {
        format!("{}  {}", self.applied_index, self.reservation.line())
    }
}
