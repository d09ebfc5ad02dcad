//! Everything random in a run follows from one number, so that a run can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Not for keys that hold value.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number of `low..high`; `low` when that is empty. The bias is below 2^-32 for the ranges used here.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next_u64() % high.saturating_sub(low).max(1)
    }

    /// So many bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}

/// A seed for a run that did not name one: short enough to type.
pub fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let low = u64::try_from(now & u128::from(u64::MAX)).unwrap_or(0);
    Seeded::new(low).next_u64() % 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        // The first outputs for seed 0, as published with the reference implementation.
        let mut seeded = Seeded::new(0);
        assert_eq!(seeded.next_u64(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(seeded.next_u64(), 0x6E78_9E6A_A1B9_65F4);
        assert_eq!(Seeded::new(5).bytes::<20>(), Seeded::new(5).bytes::<20>());
        assert_ne!(Seeded::new(5).bytes::<20>(), Seeded::new(6).bytes::<20>());
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut seeded = Seeded::new(1);
        assert!((0..1_000).all(|_| (10..13).contains(&seeded.between(10, 13))));
        assert_eq!(seeded.between(7, 7), 7);
    }
}
