//! `/metrics`: rendered apart from the thread that answers everything else.
//!
//! Rendering walks every series, reads `/proc`, and waits for a lock that the recorder's upkeep holds at times. Whether a
//! node may take spends is asked for many times a second, and must wait for none of that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Longest wait for a page, those before it included. Less than the ten seconds after which Prometheus gives up, so that
/// it is told.
const MAX_WAIT: Duration = Duration::from_secs(8);

/// What renders the page. Cheap to clone.
#[derive(Clone)]
pub(super) struct MetricsPage {
    render: Arc<dyn Fn(bool) -> String + Send + Sync>,
    /// One page at a time, so that many who ask take one core at most.
    turn: Arc<Semaphore>,
    pub(super) max_wait: Duration,
}

impl MetricsPage {
    /// `render` is told whether the node is primary.
    pub(super) fn new(render: impl Fn(bool) -> String + Send + Sync + 'static) -> Self {
        Self { render: Arc::new(render), turn: Arc::new(Semaphore::new(1)), max_wait: MAX_WAIT }
    }

    /// The page, rendered on a thread of the runtime that may block; `None` if it is not there in time. `is_primary` is
    /// asked when it is rendered: one that had to wait for its turn is no older than the others.
    pub(super) async fn text(&self, is_primary: impl FnOnce() -> bool + Send + 'static) -> Option<String> {
        timeout(self.max_wait, self.rendered(is_primary)).await.ok().flatten()
    }

    async fn rendered(&self, is_primary: impl FnOnce() -> bool + Send + 'static) -> Option<String> {
        let turn = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        let render = Arc::clone(&self.render);
        let page = tokio::task::spawn_blocking(move || {
            // Until it is rendered, also when nobody waits for it any more.
            let _turn = turn;
            render(is_primary())
        });
        page.await.ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// One that renders `page` once for each word that it is given, and says how many pages were begun.
    fn held_up(max_wait: Duration) -> (MetricsPage, Sender<()>, Arc<AtomicUsize>) {
        let (go, wait) = channel();
        let (begun, wait) = (Arc::new(AtomicUsize::new(0)), Mutex::new(wait));
        let count = Arc::clone(&begun);
        let page = MetricsPage::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ended = wait.lock().unwrap_or_else(PoisonError::into_inner).recv();
            "page".to_owned()
        });
        (MetricsPage { max_wait, ..page }, go, begun)
    }

    #[tokio::test]
    async fn whoever_asks_gets_a_page_of_its_own_and_one_is_rendered_at_a_time() {
        let (page, go, begun) = held_up(Duration::from_mins(1));
        let asked: Vec<_> = (0..3)
            .map(|_| {
                let page = page.clone();
                tokio::spawn(async move { page.text(|| true).await })
            })
            .collect();
        for (before, one) in asked.into_iter().enumerate() {
            while begun.load(Ordering::SeqCst) == before {
                tokio::task::yield_now().await;
            }
            assert_eq!(begun.load(Ordering::SeqCst), before + 1, "the others wait for their turn");
            go.send(()).unwrap();
            assert_eq!(one.await.unwrap().as_deref(), Some("page"));
        }
    }

    #[tokio::test]
    async fn a_page_that_is_late_is_given_up_and_so_is_one_that_waits_behind_it() {
        let (page, go, begun) = held_up(Duration::from_millis(50));
        assert_eq!(page.text(|| true).await, None);
        assert_eq!(page.text(|| true).await, None);
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1, "no second thread is held up");
        // The first goes on to its end; from then on nothing holds a page up.
        drop(go);
        while page.text(|| true).await.is_none() {}
    }
}
