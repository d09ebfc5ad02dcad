//! What a disk holds that says "written" too early: changes that are acknowledged, and lost if the process is killed
//! before they are written.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::queue::Group;

/// How long the lie lasts.
const DELAY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Held(VecDeque<(Instant, Group)>);

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells everyone in the group that it is written, and keeps it.
    pub(super) fn acknowledge(&mut self, mut group: Group) {
        for waiting in &mut group.changes {
            let done = std::mem::replace(&mut waiting.done, Box::new(drop));
            done(Ok(()));
        }
        self.0.push_back((Instant::now(), group));
    }

    /// The oldest group, once it is due, or at once.
    pub(super) fn take(&mut self, at_once: bool) -> Option<Group> {
        let due = self.0.front().is_some_and(|(since, _)| at_once || since.elapsed() >= DELAY);
        if due { self.0.pop_front().map(|(_, group)| group) } else { None }
    }
}
