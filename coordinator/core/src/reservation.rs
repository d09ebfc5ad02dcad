//! Reservations: a time-limited, exclusive claim on a set of coins.

use std::collections::BTreeSet;

use bitcoin::OutPoint;
use minicbor::{Decode, Encode};

use crate::apply::Context;
use crate::chain;
use crate::codec;
use crate::command::Reserve;
use crate::ids::{CallerId, Fence, Height, Millis, PaymentId, ReservationId, WalletId};
use crate::limits::{MAX_OUTPOINTS, MAX_RESERVATION_LIFE, MIN_RESERVATION_TTL};
use crate::outcome::{Conflict, Holder, Outcome, Rejection};
use crate::settlement;
use crate::state::State;
use crate::unconfirmed;
use crate::utxo::{Claim, Utxo};

/// An active reservation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Reservation {
    /// Whose coins.
    #[n(0)]
    pub wallet: WalletId,
    /// Who reserved.
    #[n(1)]
    pub owner: CallerId,
    /// Which coins, in the order asked for.
    #[n(2)]
    #[cbor(with = "codec::many")]
    pub outpoints: Vec<OutPoint>,
    /// The payment they are for, if named.
    #[n(3)]
    pub payment: Option<PaymentId>,
    /// Logical time of the grant.
    #[n(4)]
    pub granted: Millis,
    /// Logical time at which it ends.
    #[n(5)]
    pub expires: Millis,
}

/// How a reservation ended; remembered for a while, so that a late caller hears why.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Ended {
    /// Its time was over.
    #[n(0)]
    Expired,
    /// It was given back.
    #[n(1)]
    Released,
    /// Its coins went to a payment.
    #[n(2)]
    Used(#[n(0)] PaymentId),
}

impl State {
    /// How reservations ended, from a name on, for pages; as far as that is remembered.
    pub fn ended_reservations_from(&self, first: ReservationId) -> impl Iterator<Item = (&ReservationId, &Ended)> {
        self.ended.range(first..)
    }
}

pub(crate) fn reserve(state: &mut State, ctx: &Context, command: &Reserve) -> Result<Outcome, Rejection> {
    let owner = ctx.caller()?.clone();
    let wallet = state.active_wallet(&command.wallet)?;
    let active = state.reservation_count(&command.wallet);
    if active >= u64::from(wallet.limits.max_reservations) {
        return Err(Rejection::ReservationQuota { active });
    }
    check_ttl(command.ttl)?;
    check_available(state, &command.wallet, &command.outpoints)
        .map_err(|refusal| if command.selected { choose_again(refusal) } else { refusal })?;
    check_share(state, &command.wallet, &command.outpoints)?;

    let id = ReservationId(state.fence_at(ctx.index).0);
    let expires = ctx.now.plus(command.ttl);
    for outpoint in &command.outpoints {
        state.update_utxo(outpoint, |utxo| utxo.claim = Claim::Reserved(id));
    }
    state.put_reservation(
        id,
        Reservation {
            wallet: command.wallet.clone(),
            owner,
            outpoints: command.outpoints.clone(),
            payment: command.payment.clone(),
            granted: ctx.now,
            expires,
        },
    );
    Ok(Outcome::Reserved { reservation: id, outpoints: command.outpoints.clone(), expires })
}

pub(crate) fn renew(
    state: &mut State,
    ctx: &Context,
    id: ReservationId,
    ttl: Millis,
    fence: Option<Fence>,
) -> Result<Outcome, Rejection> {
    check_ttl(ttl)?;
    let reservation = fenced(state, ctx, id, fence.unwrap_or(id.fence()))?;
    let last = reservation.granted.plus(MAX_RESERVATION_LIFE);
    let expires = ctx.now.plus(ttl);
    if expires > last {
        return Err(beyond_last(ttl, last.0.saturating_sub(ctx.now.0)));
    }
    state.set_expiry(id, expires);
    Ok(Outcome::Renewed { expires })
}

pub(crate) fn release(
    state: &mut State,
    ctx: &Context,
    id: ReservationId,
    fence: Option<Fence>,
) -> Result<Outcome, Rejection> {
    fenced(state, ctx, id, fence.unwrap_or(id.fence()))?;
    end(state, id, Ended::Released);
    Ok(Outcome::Released)
}

/// How much of the wallet may be reserved at once. Change that is in no block is part of neither sum.
fn check_share(state: &State, wallet: &WalletId, outpoints: &[OutPoint]) -> Result<(), Rejection> {
    let Some(percent) = state.wallet(wallet)?.limits.max_reserved_percent else { return Ok(()) };
    let sums = state.sums(wallet);
    let reserved_sat = sums.reserved_sat.saturating_add(state.value_of(outpoints));
    // Divided first, so that nothing can overflow; a cap may be 99 sat stricter for it.
    let bound_sat = (sums.balance_sat / 100).saturating_mul(u64::from(percent));
    if percent < 100 && reserved_sat > bound_sat {
        return Err(Rejection::ReservedShare { reserved_sat, bound_sat });
    }
    Ok(())
}

/// Frees those that are due. A reservation whose coins were exposed is not there any more, so time can free only
/// what was never signed for (safety 5).
pub(crate) fn expire(state: &mut State, ctx: &Context, ids: &[ReservationId]) -> Outcome {
    for id in ids {
        if state.reservation(*id).is_some_and(|reservation| reservation.expires <= ctx.now) {
            end(state, *id, Ended::Expired);
        }
    }
    #[cfg(feature = "sabotage")]
    crate::sabotage::free_exposed(state);
    Outcome::Recorded
}

pub(crate) fn end(state: &mut State, id: ReservationId, how: Ended) {
    let Some(reservation) = state.end_reservation(id, how) else { return };
    for outpoint in &reservation.outpoints {
        state.update_utxo(outpoint, |utxo| {
            if utxo.claim == Claim::Reserved(id) {
                utxo.claim = Claim::Free;
            }
        });
        chain::forget_buried(state, outpoint);
        settlement::forget_if_dead(state, outpoint);
    }
}

/// The reservation, if it is there, in time, and the caller may act on it (safety 28).
pub(crate) fn owned<'a>(state: &'a State, ctx: &Context, id: ReservationId) -> Result<&'a Reservation, Rejection> {
    let Some(reservation) = state.reservation(id) else {
        return Err(match state.ended_reservation(id) {
            None => Rejection::ReservationUnknown,
            Some(Ended::Expired) => Rejection::ReservationExpired,
            Some(Ended::Released) => Rejection::ReservationReleased,
            Some(Ended::Used(payment)) => Rejection::ReservationUsed { payment: payment.clone() },
        });
    };
    if !ctx.may_act_for(&reservation.owner) {
        return Err(Rejection::NotOwner { owner: reservation.owner.clone() });
    }
    if reservation.expires <= ctx.now {
        return Err(Rejection::ReservationExpired);
    }
    Ok(reservation)
}

/// The same, and the fence is that of the grant (safety 12).
pub(crate) fn fenced<'a>(
    state: &'a State,
    ctx: &Context,
    id: ReservationId,
    fence: Fence,
) -> Result<&'a Reservation, Rejection> {
    let reservation = owned(state, ctx, id)?;
    if fence != id.fence() {
        return Err(Rejection::StaleFence { got: fence, current: id.fence() });
    }
    Ok(reservation)
}

/// Coins that the leader chose may be taken before its choice is applied: its basis was out of date.
pub(crate) fn choose_again(refusal: Rejection) -> Rejection {
    let taken = matches!(
        refusal,
        Rejection::OutpointReserved { .. }
            | Rejection::OutpointSpent { .. }
            | Rejection::OutpointUnknown { .. }
            | Rejection::OutpointImmature { .. }
    );
    if taken { Rejection::StaleBasis { what: format!("coins that were chosen are gone: {refusal}") } } else { refusal }
}

fn check_ttl(ttl: Millis) -> Result<(), Rejection> {
    if (MIN_RESERVATION_TTL..=MAX_RESERVATION_LIFE).contains(&ttl) {
        return Ok(());
    }
    let (min, max) = (MIN_RESERVATION_TTL.0, MAX_RESERVATION_LIFE.0);
    Err(Rejection::OutOfBounds { what: "ttl in ms".to_owned(), got: ttl.0, min, max })
}

/// A renewal past the whole life that a reservation may have, of which `left` milliseconds are left. Within its last second
/// the shortest time to live is too long already.
fn beyond_last(ttl: Millis, left: u64) -> Rejection {
    let min = MIN_RESERVATION_TTL.0;
    let over = if left < min { ": it cannot be renewed any more" } else { "" };
    Rejection::OutOfBounds { what: format!("ttl in ms (24 hours in all{over})"), got: ttl.0, min, max: left }
}

/// Whether the coin may be spent now: in a block and mature (safety 23), or own change that may be (safety 24).
pub(crate) fn is_ripe(state: &State, outpoint: &OutPoint, utxo: &Utxo, tip: Height) -> bool {
    if utxo.height.is_some() { utxo.is_mature(tip) } else { unconfirmed::is_spendable(state, outpoint, utxo) }
}

/// Checks that a claim on all of these coins can be granted, and names every coin that stands in the way.
pub(crate) fn check_available(state: &State, wallet: &WalletId, outpoints: &[OutPoint]) -> Result<(), Rejection> {
    if outpoints.is_empty() || outpoints.len() > MAX_OUTPOINTS {
        let (got, max) = (outpoints.len() as u64, MAX_OUTPOINTS as u64);
        return Err(Rejection::OutOfBounds { what: "number of outpoints".to_owned(), got, min: 1, max });
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = outpoints.iter().find(|outpoint| !seen.insert(**outpoint)) {
        return Err(Rejection::DuplicateInput { outpoint: *twice });
    }
    let tip = state.tip()?.height;
    let (mut unknown, mut spent, mut immature, mut conflicts) = (vec![], vec![], vec![], vec![]);
    for outpoint in outpoints {
        let Some(utxo) = state.utxo(outpoint).filter(|utxo| utxo.wallet == *wallet) else {
            unknown.push(*outpoint);
            continue;
        };
        let holder = match &utxo.claim {
            Claim::Free => None,
            Claim::Reserved(id) => Some(Holder::Reservation(*id)),
            Claim::Exposed(payment) => Some(Holder::Payment(payment.clone())),
            Claim::Quarantined => Some(Holder::Quarantine),
        };
        if utxo.spent.is_some() {
            spent.push(*outpoint);
        } else if let Some(holder) = holder {
            conflicts.push(Conflict { outpoint: *outpoint, holder });
        } else if !is_ripe(state, outpoint, utxo, tip) {
            immature.push(*outpoint);
        }
    }
    if !unknown.is_empty() {
        Err(Rejection::OutpointUnknown { outpoints: unknown })
    } else if !spent.is_empty() {
        Err(Rejection::OutpointSpent { outpoints: spent })
    } else if !conflicts.is_empty() {
        Err(Rejection::OutpointReserved { conflicts })
    } else if !immature.is_empty() {
        Err(Rejection::OutpointImmature { outpoints: immature })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_that_is_too_long_is_told_what_would_be_taken() {
        let told = |left| beyond_last(Millis(5_000), left).to_string();
        assert_eq!(told(4_000), "ttl in ms (24 hours in all) is 5000; it must be 1000 to 4000");
        assert_eq!(told(1_000), "ttl in ms (24 hours in all) is 5000; it must be 1000 to 1000");
        let over = "ttl in ms (24 hours in all: it cannot be renewed any more) is 5000; it must be 1000 to 999";
        assert_eq!(told(999), over);
    }
}
