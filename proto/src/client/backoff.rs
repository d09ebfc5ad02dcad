//! Pauses between tries: in proportion to how long a call has waited, so that a failover is noticed within an eighth of what
//! it took, and a long outage is not asked about more often than it is worth; jittered, so that callers do not come back all at
//! once.

use std::time::Duration;

/// Longest first pause.
const FIRST: Duration = Duration::from_millis(20);
/// Longest pause.
const MAX: Duration = Duration::from_millis(200);
/// Of the time that a call has waited, the part that the next pause may take.
const SHARE: u32 = 8;

/// The next pause of a call that has waited for so long: half to all of a bound, which is an eighth of that, at least 20 ms
/// and at most 200 ms.
pub(super) fn pause(waited: Duration) -> Duration {
    let bound = (waited / SHARE).clamp(FIRST, MAX);
    bound.mul_f64(0.5 + 0.5 * random_fraction())
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
    fn pauses_are_an_eighth_of_what_was_waited_between_20_and_200_ms_and_differ() {
        let ms = Duration::from_millis;
        let mut seen = std::collections::BTreeSet::new();
        for (waited, bound) in [(0, 20), (160, 20), (400, 50), (1_600, 200), (60_000, 200)] {
            for _ in 0..50 {
                let pause = pause(ms(waited));
                assert!(pause >= ms(bound) / 2 && pause <= ms(bound), "{pause:?} after {waited} ms");
                seen.insert(pause);
            }
        }
        assert!(seen.len() > 100, "hardly any jitter");
    }
}
