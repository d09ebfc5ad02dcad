//! The first failure of a store, remembered for ever.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreError;

/// Called once, with the first failure, on the thread that noticed it. Must not block.
pub type FailureWatcher = Box<dyn FnOnce(StoreError) + Send>;

/// Set at most once; tells whoever watches, at once and also when it came too late.
#[derive(Default)]
pub(crate) struct Failure(Mutex<Known>);

#[derive(Default)]
struct Known {
    first: Option<StoreError>,
    watchers: Vec<FailureWatcher>,
}

impl Failure {
    pub(crate) fn get(&self) -> Option<StoreError> {
        lock(&self.0).first.clone()
    }

    /// `Err` with what every call after a failure gets, `Ok` while there was none.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.get().map_or(Ok(()), |first| Err(first.sticky()))
    }

    /// Remembers the first failure and tells the watchers. A later one changes nothing.
    pub(crate) fn set(&self, error: &StoreError) {
        let watchers = {
            let mut known = lock(&self.0);
            if known.first.is_some() {
                return;
            }
            known.first = Some(error.clone());
            std::mem::take(&mut known.watchers)
        };
        for watcher in watchers {
            watcher(error.clone());
        }
    }

    pub(crate) fn watch(&self, watcher: FailureWatcher) {
        let first = {
            let mut known = lock(&self.0);
            match &known.first {
                None => {
                    known.watchers.push(watcher);
                    return;
                }
                Some(first) => first.clone(),
            }
        };
        watcher(first);
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failure").field(&self.get()).finish()
    }
}

/// Locks also after a panic of another holder: the guarded sections of this module call nobody else's code and leave
/// no half-done change behind, so the data is sound.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
