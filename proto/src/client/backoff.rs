//! Pauses between tries: short at first, so that a failover costs little; jittered, so that callers do not come back
//! all at once.

use std::time::Duration;

/// Longest first pause.
const FIRST: Duration = Duration::from_millis(20);
/// Longest pause.
const MAX: Duration = Duration::from_millis(200);

/// The pauses of one call.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// Half to all of the present bound, which doubles each time up to 200 ms.
    pub(super) fn pause(&mut self) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(MAX);
        bound.mul_f64(0.5 + 0.5 * random_fraction())
    }
}

/// 0 to 1. UUIDs are at hand and random enough for jitter.
fn random_fraction() -> f64 {
    let [first, second, ..] = uuid::Uuid::new_v4().into_bytes();
    f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_20_to_200_ms_and_differ() {
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let mut backoff = Backoff::new();
            let pauses: Vec<_> = (0..8).map(|_| backoff.pause()).collect();
            assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST);
            assert!(pauses.iter().all(|pause| *pause <= MAX));
            assert!(pauses[7] >= MAX / 2);
            firsts.insert(pauses[0]);
        }
        assert!(firsts.len() > 1, "no jitter");
    }
}
