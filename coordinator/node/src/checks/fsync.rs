//! How long the log's commits take, as the checks see them: also the one that hangs and has no end yet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No commit is under way.
const NONE: u64 = u64::MAX;

/// Told by the log's thread, asked by checks; nobody waits for anybody.
#[derive(Debug)]
pub struct FsyncWatch {
    start: Instant,
    /// When the commit under way began, in microseconds since `start`.
    begun_us: AtomicU64,
    /// Per reader: the longest commit since it last asked, in microseconds.
    longest_us: Vec<AtomicU64>,
}

impl FsyncWatch {
    /// For so many readers.
    pub fn new(readers: usize) -> Self {
        let longest_us = (0..readers).map(|_| AtomicU64::new(0)).collect();
        Self { start: Instant::now(), begun_us: AtomicU64::new(NONE), longest_us }
    }

    /// A commit begins.
    pub fn begins(&self) {
        self.begun_us.store(self.us(Instant::now()), Ordering::Relaxed);
    }

    /// It is durable.
    pub fn ended(&self, took: Duration) {
        self.begun_us.store(NONE, Ordering::Relaxed);
        for longest in &self.longest_us {
            longest.fetch_max(us(took), Ordering::Relaxed);
        }
    }

    /// The longest commit since this reader's last call, one that is under way at `now` included. Readers count from 0.
    pub fn take_longest(&self, reader: usize, now: Instant) -> Duration {
        let ended = self.longest_us.get(reader).map_or(0, |longest| longest.swap(0, Ordering::Relaxed));
        let begun = self.begun_us.load(Ordering::Relaxed);
        let under_way = if begun == NONE { 0 } else { self.us(now).saturating_sub(begun) };
        Duration::from_micros(ended.max(under_way))
    }

    fn us(&self, at: Instant) -> u64 {
        us(at.saturating_duration_since(self.start))
    }
}

/// Below [`NONE`]: half a million years.
fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(NONE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_reader_sees_the_longest_commit_since_it_last_asked() {
        let watch = FsyncWatch::new(2);
        watch.begins();
        watch.ended(3 * MS);
        watch.ended(700 * MS);
        watch.ended(2 * MS);
        let now = Instant::now();
        assert_eq!(watch.take_longest(0, now), 700 * MS);
        assert_eq!(watch.take_longest(0, now), Duration::ZERO, "it has asked before");
        watch.ended(9 * MS);
        assert_eq!(watch.take_longest(0, now), 9 * MS);
        assert_eq!(watch.take_longest(1, now), 700 * MS, "the other has not");
    }

    #[test]
    fn a_commit_that_hangs_is_seen_before_it_ends() {
        let watch = FsyncWatch::new(1);
        watch.begins();
        let later = Instant::now() + 2_000 * MS;
        assert!(watch.take_longest(0, later) >= 2_000 * MS);
        assert!(watch.take_longest(0, later) >= 2_000 * MS, "it still hangs");
        watch.ended(MS);
        assert_eq!(watch.take_longest(0, later), MS);
    }
}
