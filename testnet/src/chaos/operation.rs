//! What callers do: a stream of operations for each, which follows from the seed alone. Which reservation an operation
//! is about, of those that the caller then has, follows from a number in it.

use crate::seed::Seeded;

/// One thing that a caller does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What.
    pub kind: Kind,
    /// Chooses what it is about.
    pub pick: u64,
    /// Chooses the way of the first try.
    pub way: u64,
    /// What else happens to its request.
    pub twist: Twist,
    /// For a reservation or renewal, in milliseconds.
    pub ttl_ms: u64,
    /// Whether it is asked for until a time of the wall clock, so far from now, and not for so long.
    pub until_a_time: bool,
    /// What a payment or selection is about, in satoshi.
    pub amount_sat: u64,
    /// Of a payment.
    pub feerate_sat_vb: u64,
    /// The caller waits so long before, in milliseconds.
    pub think_ms: u64,
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reserves one of the few coins that everybody wants.
    ReserveHot,
    /// Reserves one to four coins by name.
    Reserve,
    /// Reserves by amount.
    Select,
    /// Renews one of its reservations.
    Renew,
    /// Gives one of its reservations back.
    Release,
    /// Orders a payment.
    Pay,
    /// Orders one again that it ordered before, under a new request id.
    PayAgain,
    /// Reserves by amount, builds a transaction and has it signed.
    Sign,
    /// Pays more for one of its latest payments.
    Bump,
    /// Takes one of its latest payments back.
    Cancel,
    /// Looks at one of its payments.
    Look,
    /// A fault of the caller: an old request id for another request.
    ReuseRequestId,
    /// A fault of the caller: an old payment id for another amount.
    ReusePaymentId,
    /// A fault of the caller: a fence that is not the reservation's, to renew, to release or to sign.
    StaleFence,
    /// A fault of the caller: it renews, or signs with, a reservation that it has given back.
    UseReleased,
    /// A fault of the caller: a payment once more, from other coins and for a higher fee.
    Detach,
    /// A fault of the caller: a PSBT that lies.
    Lie(Lie),
}

/// How a PSBT lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// It spends a coin that the reservation does not hold.
    ForeignInput,
    /// A recipient gets less than was ordered.
    WrongAmount,
    /// The change goes to a stranger.
    StolenChange,
    /// A coin is said to be worth more than it is.
    FalseValue,
}

/// What else happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twist {
    /// Nothing.
    Straight,
    /// It is sent once more after its answer, by another way.
    Repeat,
    /// It is sent by two ways at once.
    Race,
}

/// One of so many operations: what a correct caller does. The hot ones are a fifth of all reserving.
const HONEST: [(Kind, u64); 11] = [
    (Kind::ReserveHot, 10),
    (Kind::Reserve, 26),
    (Kind::Select, 14),
    (Kind::Renew, 12),
    (Kind::Release, 30),
    (Kind::Pay, 10),
    (Kind::PayAgain, 3),
    (Kind::Sign, 8),
    (Kind::Bump, 6),
    (Kind::Cancel, 3),
    (Kind::Look, 7),
];
/// What a buggy caller does beside that.
const BUGGY: [(Kind, u64); 9] = [
    (Kind::ReuseRequestId, 10),
    (Kind::ReusePaymentId, 10),
    (Kind::StaleFence, 10),
    (Kind::UseReleased, 10),
    (Kind::Detach, 10),
    (Kind::Lie(Lie::ForeignInput), 5),
    (Kind::Lie(Lie::WrongAmount), 5),
    (Kind::Lie(Lie::StolenChange), 5),
    (Kind::Lie(Lie::FalseValue), 5),
];
/// One caller of so many is buggy.
const BUGGY_EVERY: usize = 4;
/// Above the service's shortest.
const TTL_MS: (u64, u64) = (1_000, 8_000);
/// Few live long: they must be there in the end.
const LONG_TTL_MS: u64 = 600_000;
const LONG_PER_THOUSAND: u64 = 5;
/// So many reservations and renewals name a time of the wall clock.
const UNTIL_A_TIME_PER_CENT: u64 = 20;
/// Above every dust limit, below what one coin can pay.
const AMOUNT_SAT: (u64, u64) = (10_000, 60_000);
const FEERATE_SAT_VB: (u64, u64) = (1, 6);
const THINK_MS: (u64, u64) = (2, 40);
const REPEAT_PER_CENT: u64 = 10;
const RACE_PER_CENT: u64 = 5;

/// The operations of one caller.
#[derive(Clone, Debug)]
pub struct Operations {
    seeded: Seeded,
    kinds: Vec<(Kind, u64)>,
}

impl Operations {
    /// Of the caller with this number.
    pub fn new(seed: u64, caller: usize) -> Self {
        let mut kinds = HONEST.to_vec();
        if caller % BUGGY_EVERY == BUGGY_EVERY - 1 {
            kinds.extend(BUGGY);
        }
        let salt = u64::try_from(caller).unwrap_or(u64::MAX).wrapping_add(1);
        Self { seeded: Seeded::new(seed ^ salt.wrapping_mul(0x00C0_FFEE_D00D)), kinds }
    }

    fn kind(&mut self) -> Kind {
        let all = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.seeded.between(0, all);
        for (kind, weight) in &self.kinds {
            if drawn < *weight {
                return *kind;
            }
            drawn -= weight;
        }
        Kind::Look
    }
}

impl Iterator for Operations {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        let kind = self.kind();
        let seeded = &mut self.seeded;
        let long = seeded.between(0, 1_000) < LONG_PER_THOUSAND && kind != Kind::ReserveHot;
        let twist = match seeded.between(0, 100) {
            drawn if drawn < REPEAT_PER_CENT => Twist::Repeat,
            drawn if drawn < REPEAT_PER_CENT + RACE_PER_CENT => Twist::Race,
            _ => Twist::Straight,
        };
        Some(Operation {
            kind,
            pick: seeded.next_u64(),
            way: seeded.next_u64(),
            twist,
            ttl_ms: if long { LONG_TTL_MS } else { seeded.between(TTL_MS.0, TTL_MS.1) },
            amount_sat: seeded.between(AMOUNT_SAT.0, AMOUNT_SAT.1),
            feerate_sat_vb: seeded.between(FEERATE_SAT_VB.0, FEERATE_SAT_VB.1),
            think_ms: seeded.between(THINK_MS.0, THINK_MS.1),
            until_a_time: seeded.between(0, 100) < UNTIL_A_TIME_PER_CENT,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn first(seed: u64, caller: usize) -> Vec<Operation> {
        Operations::new(seed, caller).take(4_000).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_operations_to_the_same_caller() {
        assert_eq!(first(7, 2), first(7, 2));
        assert_ne!(first(7, 2), first(8, 2));
        assert_ne!(first(7, 2), first(7, 4));
    }

    #[test]
    fn every_kind_comes_up_and_hot_coins_get_a_fifth_of_reserving() {
        let mut seen: BTreeMap<Kind, u32> = BTreeMap::new();
        for operation in first(7, BUGGY_EVERY - 1) {
            *seen.entry(operation.kind).or_default() += 1;
        }
        assert_eq!(seen.len(), HONEST.len() + BUGGY.len());
        let honest = first(7, 0);
        let count = |kinds: &[Kind]| honest.iter().filter(|one| kinds.contains(&one.kind)).count();
        let (hot, all) = (count(&[Kind::ReserveHot]), count(&[Kind::ReserveHot, Kind::Reserve, Kind::Select]));
        assert!(hot * 100 > all * 17 && hot * 100 < all * 23, "{hot} of {all}");
        assert_eq!(count(&[Kind::ReuseRequestId, Kind::ReusePaymentId, Kind::StaleFence, Kind::UseReleased]), 0);
        let timed = honest.iter().filter(|one| one.until_a_time).count();
        assert!(timed * 100 > honest.len() * 17 && timed * 100 < honest.len() * 23, "{timed}");
    }
}
