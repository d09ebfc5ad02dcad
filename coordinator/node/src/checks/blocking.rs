//! Work that may hang in the kernel, on a thread of the runtime's.

use tokio::task::{JoinError, JoinHandle};

/// One kind of work, never twice at a time: as long as what was begun has not ended, nothing else is begun, so what hangs
/// holds one thread and no more.
#[derive(Debug)]
pub(super) struct Blocking<T>(Option<JoinHandle<T>>);

impl<T> Default for Blocking<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> Blocking<T> {
    /// What `work` gives; or what was begun before gives, if nobody has waited for its end. May be dropped while it waits.
    ///
    /// # Errors
    /// The work has panicked, or the runtime ends.
    pub(super) async fn run(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        let done = self.0.get_or_insert_with(|| tokio::task::spawn_blocking(work)).await;
        self.0 = None;
        done
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_not_begun_a_second_time_and_its_answer_is_taken_when_it_comes() {
        let (release, held) = mpsc::channel::<()>();
        let mut blocking = Blocking::default();
        let hangs = move || {
            let _ = held.recv();
            1
        };
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(30));
        assert!(timeout(short, blocking.run(hangs)).await.is_err());
        assert!(timeout(short, blocking.run(|| 2)).await.is_err(), "the first still hangs");
        release.send(()).unwrap();
        assert_eq!(timeout(long, blocking.run(|| 3)).await.unwrap().unwrap(), 1);
        assert_eq!(timeout(long, blocking.run(|| 4)).await.unwrap().unwrap(), 4);
    }
}
