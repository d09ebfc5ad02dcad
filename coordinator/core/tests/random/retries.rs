//! Requests that come again, and commands that nobody asked for.

use bitcoin::OutPoint;
use onespend_core::command::{Command, CreatePayment, Reserve};
use onespend_core::ids::{PaymentId, PaymentKey, ReservationId};
use onespend_core::limits::DEFAULT_RESERVATION_TTL;
use onespend_core::outcome::{Outcome, Rejection};

use super::step::{Again, SIGNED_FOR};
use super::{pick, recipients, reservations, wallet_id};
use crate::world::World;

/// Retries, reused ids, and entries that come twice; the oracle knows the right answers.
pub(super) fn ask_again(world: &mut World, at: usize, how: Again) {
    let asked: Vec<usize> = (0..world.log.len()).filter(|at| world.log[*at].1.request.is_some()).collect();
    let Some(position) = pick(&asked, at) else { return };
    let (index, entry, _) = world.log[position].clone();
    let mut request = entry.request.clone().unwrap();
    match how {
        Again::Same => {}
        Again::OtherContent => request.digest[0] ^= 1,
        Again::OtherCaller => {
            request.key.caller = onespend_core::ids::CallerId::parse("client/other").unwrap();
        }
        Again::OldIndex => {
            let mut again = world.state.clone();
            let outcome = onespend_core::apply::apply(&mut again, index, &entry);
            assert!(matches!(outcome, Outcome::Rejected(Rejection::StaleBasis { .. })), "{outcome:?}");
            assert_eq!(again.hash(), world.state.hash());
            return;
        }
    }
    let registers = matches!(entry.command, Command::RegisterWallet(_));
    if !registers {
        world.run(Some(request), entry.command);
    }
}

/// safety 28: a command that belongs to a caller is refused when nobody asks.
pub(super) fn nobody_asks(world: &mut World, at: usize) {
    let reservation = pick(&reservations(world), at).unwrap_or(ReservationId(1));
    let (wallet, ttl) = (wallet_id(at % SIGNED_FOR), DEFAULT_RESERVATION_TTL);
    let outpoints: Vec<OutPoint> = world.state.free_coins(&wallet).take(2).map(|coin| coin.1).collect();
    let key = PaymentKey { wallet: wallet.clone(), payment: PaymentId::parse("nobody").unwrap() };
    let command = match at % 4 {
        0 => Command::Release { reservation, fence: None },
        1 => Command::Renew { reservation, ttl, fence: None },
        2 => Command::Reserve(Reserve { wallet, outpoints, ttl, payment: None, selected: false }),
        _ => {
            let recipients = recipients(0, false);
            Command::CreatePayment(CreatePayment { key, recipients, outpoints, fee_sat: 500 })
        }
    };
    let outcome = world.duty(command);
    assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
}
