//! One at a time per name: a retry that arrives while the first try is still under way waits for it, instead of
//! choosing coins once more.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Locks<K> = Arc<Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>>;

/// Names that are in use.
pub(crate) struct Turns<K>(Locks<K>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// The right to act under a name; given back when dropped.
pub(crate) struct Turn<K: Eq + Hash> {
    key: K,
    locks: Locks<K>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// Waits until nobody else acts under the name.
    pub(crate) async fn take(&self, key: K) -> Turn<K> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(key.clone()).or_default())
        };
        // Made before the wait, so that a caller who gives up waiting leaves no name behind.
        let mut turn = Turn { key, locks: Arc::clone(&self.0), guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        self.guard = None;
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody else holds or awaits it: the map has the only handle.
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_second_turn_waits_for_the_first_and_no_name_stays_behind() {
        let turns = Turns::<u32>::default();
        let first = turns.take(1).await;
        let other = turns.take(2).await;
        drop(other);
        let waiting = turns.take(1);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        drop(waiting.await);
        assert!(turns.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn giving_up_the_wait_leaves_no_name_behind() {
        let turns = Turns::<u32>::default();
        let first = turns.take(1).await;
        {
            let waiting = turns.take(1);
            tokio::pin!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending());
        }
        drop(first);
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
