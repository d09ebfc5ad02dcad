//! Which entry last changed each reservation, for callers that follow them.
//!
//! No row has it, so it is known only from the moment on at which this node loaded its state; what is older counts as
//! changed by the entry that was loaded. So nodes differ in it, within what is harmless: a follower that goes on from
//! before that entry is told again, and never misses anything. It is no part of what replicas agree on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use crate::ids::{LogIndex, ReservationId};
use crate::state::State;

/// The last change of each reservation that is active, or ended and remembered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    changes: BTreeMap<LogIndex, BTreeSet<ReservationId>>,
    last: BTreeMap<ReservationId, LogIndex>,
}

impl Recent {
    /// Of a state that was just loaded: everything changed at its index.
    pub(crate) fn of(state: &State) -> Self {
        let mut recent = Self::default();
        let all = state.reservations.iter().map(|(id, _)| *id).chain(state.ended.iter().map(|(id, _)| *id));
        all.for_each(|id| recent.note(id, state.meta.applied));
        recent
    }

    /// An entry changed it.
    pub(crate) fn note(&mut self, id: ReservationId, at: LogIndex) {
        self.forget(id);
        self.changes.entry(at).or_default().insert(id);
        self.last.insert(id, at);
    }

    /// It is not remembered any more.
    pub(crate) fn forget(&mut self, id: ReservationId) {
        let Some(at) = self.last.remove(&id) else { return };
        let Some(ids) = self.changes.get_mut(&at) else { return };
        ids.remove(&id);
        if ids.is_empty() {
            self.changes.remove(&at);
        }
    }

    fn after(
        &self,
        index: LogIndex,
        id: Option<ReservationId>,
    ) -> impl Iterator<Item = (LogIndex, ReservationId)> + use<'_> {
        let of_entry = id.and_then(|id| Some(self.changes.get(&index)?.range((Excluded(id), Unbounded))));
        let rest = of_entry.into_iter().flatten().map(move |id| (index, *id));
        let later = self.changes.range((Excluded(index), Unbounded));
        rest.chain(later.flat_map(|(at, ids)| ids.iter().map(|id| (*at, *id))))
    }
}

impl State {
    /// Reservations that changed after an index, active ones and those whose end is remembered: the oldest change first,
    /// and those of one entry by name. With a reservation of that index named, begins within the entry, after it. What
    /// changed before this node loaded its state counts as changed by the entry that it had loaded. Finding the first
    /// costs a lookup.
    pub fn reservations_changed_after(
        &self,
        index: LogIndex,
        reservation: Option<ReservationId>,
    ) -> impl Iterator<Item = (LogIndex, ReservationId)> + use<'_> {
        self.recent.after(index, reservation)
    }
}
