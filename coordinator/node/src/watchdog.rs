//! Ends a process whose Raft core has stalled while it leads.
//!
//! A leader that hangs still holds its connections, and whoever talks to it waits. The others elect another leader all
//! the same, and this node, once started again, follows it. So a leader whose core does not turn for more than five
//! seconds ends itself, from a thread that does nothing but count: it writes no log, opens no file and allocates
//! nothing, for what it watches for may be a disk or an allocator that hangs.
//!
//! It counts its own wake-ups and reads no clock. A process that was stopped (SIGSTOP, a suspended machine) for ten
//! seconds has seen one wake-up in that time, and its core gets as long as ever to turn again.
//!
//! Nobody but a leader is ended: a follower's core waits for the disk when it stores a vote, for as long as the disk
//! takes. A leader stores a vote only when it gives its lead to the one that asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks in a row without a turn of a leader's core: five seconds, and one in which the turn is not asked for (see
/// `health_feed::watch_core`).
const MOST_LOOKS: u32 = 60;

/// What the watchdog looks at.
#[derive(Debug, Default)]
pub struct Heartbeat {
    /// Turns of Raft's core that were seen.
    turns: AtomicU64,
    /// Whether the node led when it was last looked at.
    leads: AtomicBool,
    /// The core ends on purpose.
    finished: AtomicBool,
}

impl Heartbeat {
    /// The core has turned.
    pub fn beat(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this node leads, as far as it knows.
    pub fn leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    /// From now on the core need not turn.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }
}

/// Watches from now on, on a thread of its own that ends with the process.
///
/// # Errors
/// The operating system gives no thread.
pub fn start() -> std::io::Result<Arc<Heartbeat>> {
    let heartbeat = Arc::new(Heartbeat::default());
    let watched = Arc::clone(&heartbeat);
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let mut vigil = Vigil::default();
        while !watched.is_finished() {
            if vigil.look(&watched) {
                // SIGABRT, as systemd's own watchdog does it. Nothing is run down: what is durable is durable already.
                std::process::abort();
            }
            std::thread::sleep(LOOK_EVERY);
        }
    })?;
    Ok(heartbeat)
}

/// The looks so far.
#[derive(Debug, Default)]
struct Vigil {
    turns: u64,
    /// Looks in a row that saw a leader and no turn.
    idle: u32,
}

impl Vigil {
    /// One look; whether the process must end.
    fn look(&mut self, heartbeat: &Heartbeat) -> bool {
        let turns = heartbeat.turns.load(Ordering::Relaxed);
        if turns != self.turns || !heartbeat.leads.load(Ordering::Relaxed) {
            self.turns = turns;
            self.idle = 0;
            return false;
        }
        self.idle += 1;
        self.idle > MOST_LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until it is told to end, or for so many looks.
    fn looks_before_the_end(vigil: &mut Vigil, heartbeat: &Heartbeat, most: u32) -> Option<u32> {
        (0..most).find(|_| vigil.look(heartbeat))
    }

    #[test]
    fn a_leader_whose_core_stalls_is_ended_after_more_than_five_seconds() {
        let (mut vigil, heartbeat) = (Vigil::default(), Heartbeat::default());
        heartbeat.leads(true);
        heartbeat.beat();
        let looks = looks_before_the_end(&mut vigil, &heartbeat, 1_000).map(|looks| looks * LOOK_EVERY);
        assert!(
            looks.is_some_and(|after| after > Duration::from_secs(5) && after < Duration::from_secs(8)),
            "{looks:?}"
        );
    }

    #[test]
    fn a_core_that_turns_in_time_is_never_ended() {
        let (mut vigil, heartbeat) = (Vigil::default(), Heartbeat::default());
        heartbeat.leads(true);
        for _ in 0..100 {
            heartbeat.beat();
            assert_eq!(looks_before_the_end(&mut vigil, &heartbeat, MOST_LOOKS), None);
        }
    }

    #[test]
    fn who_does_not_lead_may_wait_for_its_disk() {
        let (mut vigil, heartbeat) = (Vigil::default(), Heartbeat::default());
        assert_eq!(looks_before_the_end(&mut vigil, &heartbeat, 10_000), None);
        // One that is elected then has all of the time before it.
        heartbeat.leads(true);
        assert_eq!(looks_before_the_end(&mut vigil, &heartbeat, MOST_LOOKS), None);
        heartbeat.leads(false);
        assert_eq!(looks_before_the_end(&mut vigil, &heartbeat, 10_000), None);
    }

    /// However long the process was stopped, it has seen one look of that time.
    #[test]
    fn a_process_that_was_stopped_goes_on_where_it_was() {
        let (mut vigil, heartbeat) = (Vigil::default(), Heartbeat::default());
        heartbeat.leads(true);
        heartbeat.beat();
        assert_eq!(looks_before_the_end(&mut vigil, &heartbeat, MOST_LOOKS / 2), None);
        // Stopped and continued here, for a year: no look, no count.
        assert_eq!(looks_before_the_end(&mut vigil, &heartbeat, MOST_LOOKS / 2), None);
        heartbeat.beat();
        assert_eq!(looks_before_the_end(&mut vigil, &heartbeat, MOST_LOOKS), None);
    }

    #[test]
    fn a_node_that_stops_on_purpose_is_not_watched() {
        let heartbeat = Heartbeat::default();
        assert!(!heartbeat.is_finished());
        heartbeat.finish();
        assert!(heartbeat.is_finished());
    }
}
