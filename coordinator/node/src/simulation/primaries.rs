//! Who says at the same time that it may take spends: the health feed of every node runs as it does in a process, and
//! its `/primary` is asked at every moment, from outside.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::executor::Host;
use super::world::{World, executor};
use crate::health::Check;
use crate::raft::RaftConfig;
use crate::runtime::sleep;

/// How often every node is asked.
const ASK: Duration = Duration::from_millis(10);

/// What was seen of it so far.
#[derive(Default)]
pub(super) struct Primaries {
    /// Since when two nodes have been primary, without a break.
    since: BTreeMap<(Host, Host), Duration>,
    longest: Duration,
}

impl Primaries {
    /// Takes note of who is primary at this moment of the run; two for too long are a violation. Two for a moment are
    /// none: a leader that has not heard of its successor is one until its last acknowledgement is an election timeout
    /// old.
    pub(super) fn note(&mut self, at: Duration, answered: &[Host]) -> Option<String> {
        self.since.retain(|(one, other), _| answered.contains(one) && answered.contains(other));
        let mut broken = None;
        let pairs = answered.iter().flat_map(|one| answered.iter().map(move |other| (*one, *other)));
        for pair in pairs.filter(|(one, other)| one < other) {
            let since = self.since.entry(pair).or_insert(at);
            let together = at.saturating_sub(*since);
            self.longest = self.longest.max(together);
            if together > RaftConfig::default().election_timeout_max {
                // It is told again only if it lasts as long again.
                *since = at;
                broken = Some(format!("nodes {} and {} have been primary together for {together:?}", pair.0, pair.1));
            }
        }
        broken
    }

    /// The longest time for which the same two were primary.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }
}

/// Asks every node, for ever.
pub(super) async fn watch(world: Rc<World>) {
    loop {
        world.judge.primaries(executor().passed(), &answered(&world));
        sleep(ASK).await;
    }
}

/// The nodes whose `/primary` says yes. One that stands still answers nobody.
pub(super) fn answered(world: &World) -> Vec<Host> {
    let nodes = world.nodes().into_iter().filter(|(id, _)| !executor().is_paused(*id));
    nodes.filter(|(_, node)| node.health.verdict(&Check::primary()).is_yes()).map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At each of these moments, in milliseconds, these are primary.
    fn violations(looks: &[(u64, &[Host])]) -> usize {
        let mut primaries = Primaries::default();
        looks.iter().filter(|(ms, who)| primaries.note(Duration::from_millis(*ms), who).is_some()).count()
    }

    #[test]
    fn two_primaries_for_longer_than_an_election_timeout_are_a_violation() {
        let timeout = u64::try_from(RaftConfig::default().election_timeout_max.as_millis()).unwrap();
        assert_eq!(violations(&[(0, &[1]), (10_000, &[1])]), 0);
        assert_eq!(violations(&[(0, &[1, 2]), (timeout, &[1, 2])]), 0);
        assert_eq!(violations(&[(0, &[1, 2]), (timeout + 1, &[1, 2])]), 1);
        assert_eq!(violations(&[(0, &[1, 3]), (timeout + 1, &[1, 2, 3])]), 1);
        let broken_off: [(u64, &[Host]); 4] =
            [(0, &[1, 2]), (timeout, &[2]), (timeout + 10, &[1, 2]), (2 * timeout, &[1, 2])];
        assert_eq!(violations(&broken_off), 0);
        assert_eq!(violations(&[(0, &[1, 2]), (timeout, &[1, 3]), (2 * timeout, &[2, 3])]), 0, "other two each time");
    }

    #[test]
    fn the_longest_time_is_that_of_one_pair() {
        let mut primaries = Primaries::default();
        let looks: [(u64, &[Host]); 4] = [(0, &[1, 2]), (30, &[1, 2]), (40, &[1, 3]), (60, &[1, 3])];
        for (ms, who) in looks {
            assert_eq!(primaries.note(Duration::from_millis(ms), who), None);
        }
        assert_eq!(primaries.longest(), Duration::from_millis(30));
    }
}
