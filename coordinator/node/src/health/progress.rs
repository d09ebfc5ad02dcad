//! Heartbeats: whether the node's loops still turn.
//!
//! `/livez` must not read a flag that a stalled thread no longer clears. Each loop that the node
//! cannot do without registers here with a bound and beats once per turn; `/livez` looks at the
//! ages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

const RUNNING: u8 = 0;
const FINISHED: u8 = 1;
const LOST: u8 = 2;

/// The register of loops. Cheap to clone; never blocks.
#[derive(Debug, Clone)]
pub struct Progress {
    start: Instant,
    loops: Arc<ArcSwap<Vec<Arc<Loop>>>>,
    stopping: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Loop {
    name: &'static str,
    bound: Duration,
    /// Milliseconds since `Progress::start`.
    last: AtomicU64,
    state: AtomicU8,
}

/// A loop's hold on its entry. Dropping it without [`Beat::finish`] counts as a death: a loop
/// that panicked or was forgotten is not alive.
#[derive(Debug)]
pub struct Beat {
    start: Instant,
    of: Arc<Loop>,
}

/// A loop as `/livez` sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// The loop's name.
    pub name: &'static str,
    /// Time since its last turn.
    pub age: Duration,
    /// The longest that one turn may take.
    pub bound: Duration,
    /// Whether it turns: in time, or ended on purpose, or the node is stopping.
    pub alive: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { start: Instant::now(), loops: Arc::default(), stopping: Arc::default() }
    }
}

impl Progress {
    /// Registers a loop, one turn of which takes at most `bound`, waiting included.
    pub fn register(&self, name: &'static str, bound: Duration) -> Beat {
        let entry = Arc::new(Loop {
            name,
            bound,
            last: AtomicU64::new(millis(self.start.elapsed())),
            state: AtomicU8::new(RUNNING),
        });
        self.loops.rcu(|loops| {
            let mut more = Vec::clone(loops);
            more.retain(|known| known.state.load(Ordering::Relaxed) != FINISHED);
            more.push(Arc::clone(&entry));
            more
        });
        Beat { start: self.start, of: entry }
    }

    /// From now on loops may end; those that still run must still turn.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the node stops.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Every loop at the moment `now`.
    pub fn pulses(&self, now: Instant) -> Vec<Pulse> {
        let stopping = self.is_stopping();
        let elapsed = millis(now.saturating_duration_since(self.start));
        let pulse = |known: &Arc<Loop>| {
            let last = known.last.load(Ordering::Relaxed);
            let age = Duration::from_millis(elapsed.saturating_sub(last));
            let alive = match known.state.load(Ordering::Relaxed) {
                RUNNING => age <= known.bound,
                LOST => stopping,
                _ => true,
            };
            Pulse { name: known.name, age, bound: known.bound, alive }
        };
        self.loops.load().iter().map(pulse).collect()
    }
}

impl Beat {
    /// One more turn.
    pub fn beat(&self) {
        self.of.last.store(millis(self.start.elapsed()), Ordering::Relaxed);
    }

    /// The loop ends on purpose.
    pub fn finish(self) {
        self.of.state.store(FINISHED, Ordering::Relaxed);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        // Fails, as it should, after `finish`.
        let _ = self.of.state.compare_exchange(RUNNING, LOST, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whole milliseconds; 584 million years before it saturates.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(5);

    fn alive(progress: &Progress, after: Duration) -> Vec<(&'static str, bool)> {
        let pulses = progress.pulses(Instant::now() + after);
        pulses.iter().map(|pulse| (pulse.name, pulse.alive)).collect()
    }

    #[test]
    fn a_loop_that_turns_is_alive_and_one_that_stalls_is_not() {
        let progress = Progress::default();
        let apply = progress.register("apply", BOUND);
        let watch = progress.register("watch", BOUND * 3);
        apply.beat();
        watch.beat();
        assert_eq!(alive(&progress, Duration::ZERO), [("apply", true), ("watch", true)]);
        assert_eq!(alive(&progress, BOUND * 2), [("apply", false), ("watch", true)]);
    }

    #[test]
    fn a_loop_that_vanishes_is_dead_unless_it_finished_or_the_node_stops() {
        let progress = Progress::default();
        progress.register("finished", BOUND).finish();
        assert_eq!(alive(&progress, BOUND * 2), [("finished", true)]);
        let worker = std::thread::spawn({
            let beat = progress.register("panicked", BOUND);
            move || {
                let _held = beat;
                std::panic::resume_unwind(Box::new("on purpose"));
            }
        });
        assert!(worker.join().is_err());
        assert_eq!(alive(&progress, Duration::ZERO), [("panicked", false)]);
        let stuck = progress.register("stuck", BOUND);
        progress.stopping();
        assert_eq!(alive(&progress, BOUND * 2), [("panicked", true), ("stuck", false)]);
        stuck.finish();
    }
}
