//! What happens to messages: how long they take, which are lost, and who cannot hear whom.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::executor::{Executor, Host, current};
use crate::raft::simulated::Weather;

/// The sky over one simulation.
#[derive(Default)]
pub(super) struct Sky(Mutex<State>);

#[derive(Default)]
struct State {
    /// Pairs of which the first is not heard by the second.
    cut: BTreeSet<(Host, Host)>,
    /// Messages get lost, come late and come twice.
    storm: bool,
}

impl Sky {
    fn state<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The second does not hear the first from now on.
    pub(super) fn cut(&self, from: Host, to: Host) {
        self.state(|state| state.cut.insert((from, to)));
    }

    /// Everybody hears everybody.
    pub(super) fn join(&self) {
        self.state(|state| state.cut.clear());
    }

    pub(super) fn set_storm(&self, storm: bool) {
        self.state(|state| state.storm = storm);
    }

    fn calm(executor: &Executor) -> Duration {
        Duration::from_micros(executor.pick(100..=1_500) as u64)
    }

    fn stormy(executor: &Executor) -> Vec<Duration> {
        let late = Duration::from_micros(executor.pick(0..=400_000) as u64);
        match executor.pick(0..=99) {
            0..=3 => vec![],
            4..=7 => vec![Self::calm(executor) + late],
            8..=10 => vec![Self::calm(executor), Self::calm(executor) + late],
            _ => vec![Self::calm(executor)],
        }
    }
}

impl Weather for Sky {
    fn arrivals(&self, from: Host, to: Host) -> Vec<Duration> {
        let Some(executor) = current() else { return vec![] };
        let (cut, storm) = self.state(|state| (state.cut.contains(&(from, to)), state.storm));
        match (cut, storm) {
            (true, _) => vec![],
            (false, true) => Self::stormy(&executor),
            (false, false) => vec![Self::calm(&executor)],
        }
    }
}
