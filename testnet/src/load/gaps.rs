//! What the times of acknowledgements say.

use serde::Serialize;

use crate::history::Nanos;

const NS_PER_US: Nanos = 1_000;

/// A mutation with a good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Number of the caller.
    pub caller: usize,
    /// When its request was first sent.
    pub asked_ns: Nanos,
    /// When the answer was there.
    pub at_ns: Nanos,
    /// The term that the answering node was in.
    pub term: u64,
}

/// The longest time that one caller went without an acknowledgement, if any of that lies between `from` and `until`.
/// Acknowledgements of one caller must be in the order of time. One that has none after `until` counts until then.
pub fn longest_gap(acks: &[Ack], from: Nanos, until: Nanos) -> Option<Nanos> {
    let callers = acks.iter().map(|ack| ack.caller).max()? + 1;
    let of = |caller: usize| {
        let times: Vec<Nanos> = acks.iter().filter(|ack| ack.caller == caller).map(|ack| ack.at_ns).collect();
        let begins = times.clone();
        let ends = times.into_iter().skip(1).chain([until]);
        let gaps: Vec<Nanos> = begins
            .into_iter()
            .zip(ends)
            .filter(|(begin, end)| *end > from && *begin < until)
            .map(|(begin, end)| end.saturating_sub(begin))
            .collect();
        gaps.into_iter().max()
    };
    (0..callers).filter_map(of).max()
}

/// When the first mutation of a later term than `term` was acknowledged, after `from`.
pub fn first_of_later_term(acks: &[Ack], from: Nanos, term: u64) -> Option<Nanos> {
    acks.iter().filter(|ack| ack.term > term && ack.at_ns > from).map(|ack| ack.at_ns).min()
}

/// How measured times are spread, in milliseconds; nearest rank, so each is one that was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them are not above it.
    pub p50: f64,
    /// 99 of 100 are not above it; the longest, of fewer than 100.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Spread {
    /// Of these times; `None` of none.
    pub fn of(times: &[Nanos]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { p50: ms(rank(50)?), p99: ms(rank(99)?), max: ms(rank(100)?) })
    }
}

/// In milliseconds, to a hundredth.
pub fn ms(time: Nanos) -> f64 {
    let hundredths = u32::try_from(time / NS_PER_US / 10).unwrap_or(u32::MAX);
    f64::from(hundredths) / 100.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ack(caller: usize, at_ns: Nanos, term: u64) -> Ack {
        Ack { caller, asked_ns: at_ns.saturating_sub(1), at_ns, term }
    }

    #[test]
    fn the_gap_is_that_of_the_caller_who_waited_longest() {
        let acks = [ack(0, 10, 1), ack(1, 12, 1), ack(0, 20, 1), ack(0, 90, 2), ack(1, 60, 2), ack(1, 95, 2)];
        assert_eq!(longest_gap(&acks, 30, 96), Some(70));
        // Others' answers do not help a caller who waits.
        assert_eq!(longest_gap(&acks[..4], 30, 91), Some(79));
        // What was over before does not count, and what begins later does not either.
        assert_eq!(longest_gap(&[ack(0, 1, 1), ack(0, 50, 1), ack(0, 60, 1), ack(0, 99, 1)], 52, 61), Some(39));
        assert_eq!(longest_gap(&[ack(0, 1, 1), ack(0, 50, 1), ack(0, 60, 1), ack(0, 99, 1)], 52, 60), Some(10));
        assert_eq!(longest_gap(&[], 0, 100), None);
    }

    #[test]
    fn an_answer_of_the_old_leader_ends_no_failover() {
        let acks = [ack(0, 10, 1), ack(1, 20, 1), ack(0, 40, 3), ack(1, 30, 3)];
        assert_eq!(first_of_later_term(&acks, 15, 1), Some(30));
        assert_eq!(first_of_later_term(&acks, 35, 1), Some(40));
        assert_eq!(first_of_later_term(&acks, 15, 3), None);
    }

    #[test]
    fn spreads_are_times_that_were_measured() {
        let times: Vec<Nanos> = (1..=200).map(|time| time * 1_000_000).collect();
        assert_eq!(Spread::of(&times), Some(Spread { p50: 100.0, p99: 198.0, max: 200.0 }));
        assert_eq!(Spread::of(&[7_230_000, 1_000_000]), Some(Spread { p50: 1.0, p99: 7.23, max: 7.23 }));
        assert_eq!(Spread::of(&[]), None);
    }
}
