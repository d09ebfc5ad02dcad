//! What came of a step, in words.

use bitcoin::OutPoint;
use onespend_core::ids::ReservationId;
use onespend_core::outcome::{Holder, Outcome, Rejection};
use onespend_core::settlement::attempt_state;

use super::Scenario;
use crate::world::wallets::fixtures;

impl Scenario {
    pub(super) fn state_of(&self, what: &str) -> String {
        let state = &self.world.state;
        if what.contains('#') && !what.contains('/') {
            let (key, attempt) = self.attempt(what);
            let attempt = state.payment(&key).unwrap().attempt(attempt).unwrap_or_else(|| panic!("no {what}"));
            return spelled(&format!("{:?}", attempt_state(state, attempt)));
        }
        if let Some(id) = self.reservations.get(what) {
            return match (state.reservation(*id), state.ended_reservation(*id)) {
                (Some(_), _) => "active".to_owned(),
                (None, Some(ended)) => spelled(&format!("{ended:?}")),
                (None, None) => "unknown".to_owned(),
            };
        }
        if let Some(fixture) = fixtures().iter().find(|fixture| fixture.id.as_str() == what) {
            let frozen = state.wallet(&fixture.id).unwrap().frozen.is_some();
            return if frozen { "frozen" } else { "working" }.to_owned();
        }
        if let Some((_, payment)) = state.payments().find(|(key, _)| key.payment.as_str() == what) {
            let end = if payment.is_cancelled() { "cancelled" } else { "settled" };
            return if payment.is_settled() { end } else { "open" }.to_owned();
        }
        let Some(utxo) = state.utxo(&self.coin(what)) else { return "unknown".to_owned() };
        let depth = state.wallet(&utxo.wallet).unwrap().limits.finality_depth;
        spelled(&format!("{:?}", utxo.state(state.tip().unwrap().height, depth)))
    }

    pub(super) fn describe(&mut self, outcome: &Outcome, expected: &str) -> String {
        match outcome {
            Outcome::Recorded | Outcome::WalletChanged | Outcome::Released | Outcome::Renewed { .. } => "ok".to_owned(),
            Outcome::AddressesGiven { first, count, .. } => format!("{first}..{}", first + count - 1),
            Outcome::Reserved { reservation, .. } => {
                let known = self.reservations.entry(expected.to_owned()).or_insert(*reservation);
                assert_eq!(known, reservation, "{expected} is another reservation");
                expected.to_owned()
            }
            Outcome::Permitted { payment, attempt } => format!("{}#{attempt}", payment.payment),
            Outcome::Rejected(rejection) => self.describe_refusal(rejection),
        }
    }

    fn describe_refusal(&self, rejection: &Rejection) -> String {
        let coins = |outpoints: &[OutPoint]| -> Vec<String> { outpoints.iter().map(|o| self.name(o)).collect() };
        let details = match rejection {
            Rejection::OutpointUnknown { outpoints }
            | Rejection::OutpointSpent { outpoints }
            | Rejection::OutpointImmature { outpoints }
            | Rejection::NotQuarantined { outpoints } => coins(outpoints),
            Rejection::OutpointReserved { conflicts } => conflicts
                .iter()
                .map(|conflict| {
                    let holder = match &conflict.holder {
                        Holder::Reservation(id) => self.reservation_name(*id),
                        Holder::Payment(payment) => payment.to_string(),
                        Holder::Quarantine => "quarantine".to_owned(),
                    };
                    format!("{}={holder}", self.name(&conflict.outpoint))
                })
                .collect(),
            Rejection::ReplacementMissingAnchor { anchor: outpoint }
            | Rejection::HasDescendants { outpoint, .. }
            | Rejection::DuplicateInput { outpoint }
            | Rejection::ForeignInput { outpoint }
            | Rejection::MissingInput { outpoint } => coins(&[*outpoint]),
            Rejection::PaymentUnresolved { attempt, .. } => vec![format!("#{attempt}")],
            Rejection::FeeLimit { limit, .. } => vec![format!("{limit:?}")],
            Rejection::NotOwner { owner } => vec![owner.to_string()],
            Rejection::ReservationUsed { payment } | Rejection::ReservedForOther { payment } => {
                vec![payment.to_string()]
            }
            Rejection::ReservationQuota { active } => vec![active.to_string()],
            Rejection::OutputInvalid { vout, .. } => vec![vout.to_string()],
            Rejection::VelocityLimit { spent_sat, .. } => vec![spent_sat.to_string()],
            Rejection::ReservedShare { reserved_sat, .. } => vec![reserved_sat.to_string()],
            _ => vec![],
        };
        let debug = format!("{rejection:?}");
        let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        std::iter::once(format!("refused {variant}")).chain(details).collect::<Vec<_>>().join(" ")
    }

    fn name(&self, outpoint: &OutPoint) -> String {
        let known = self.coins.iter().find(|(_, known)| *known == outpoint);
        known.map_or_else(|| "nowhere".to_owned(), |(name, _)| name.clone())
    }

    fn reservation_name(&self, id: ReservationId) -> String {
        let known = self.reservations.iter().find(|(_, known)| **known == id);
        known.map_or_else(|| id.to_string(), |(name, _)| name.clone())
    }
}

/// `SpentPending` as `spent pending`, and without the facts that follow in brackets.
fn spelled(debug: &str) -> String {
    let name = debug.split('(').next().unwrap();
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}
